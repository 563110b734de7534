"""What a validation or a test finds of each member, as CalibrationMonitor and TemperatureScaling measure it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.callbacks.step_outputs import Stage as Name
from ls_lightning.functional.outputs import Spec
from ls_lightning.stacked.measures import measure_members
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.temperatures import fit_members
from ls_lightning.stacked.values import values_of_members

Rows = list[dict[str, float]]


class Stage:
    """Gather the logits of all members, and measure them.

    Args:
        name: ``"val"``, which fits the temperatures; or ``"test"``, which is measured with them, too.
        members: with the same task, metrics and bounds.
        final: leave what is found with the members' callbacks, to the same bits as alone; else it is needed for
            ``metrics.csv`` only.
    """

    def __init__(self, name: Name, members: Sequence[Member], final: bool = True) -> None:
        self._name, self._members, self._final = name, list(members), final
        classifier = members[0].classifier
        self._criterion = type(classifier.criterion)(reduction="none")
        self._options: dict[str, Any] = {"task": classifier.task}
        if classifier.task == "multiclass":
            self._options["ignore_index"] = -100
        self._metrics: MetricCollection | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []

    def start(self) -> None:
        """Begin anew."""
        self._seen = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """A batch: logits ``(M, B, ...)``, targets of the B samples."""
        self._seen.append((logits, target))

    def rows(self, trainer: L.Trainer) -> Rows:
        """What is logged of each member: its loss, metrics and temperature."""
        losses = self._losses().tolist()
        logits = torch.cat([rows for rows, _ in self._seen], 1)
        target = torch.cat([rows for _, rows in self._seen])
        rows = self._measure(trainer, logits, target)
        if self._name == "val":
            self._fit(trainer, logits, target)
            for row, member in zip(rows, self._members, strict=True):
                fit = member.scaling.fit
                fitted = (fit.temperature, fit.nll_after) if fit else (math.nan, math.nan)
                row["ls/temperature"], row["val_scaled/nll"] = fitted
        else:
            self._measure_scaled(trainer, logits, target, rows)
        found = []
        for loss, row in zip(losses, rows, strict=True):
            # Lightning keeps what a callback logs in float32.
            rounded = torch.tensor(list(row.values()), dtype=torch.float32).tolist()
            found.append({f"{self._name}/loss": loss, **dict(zip(row, rounded, strict=True))})
        return found

    def _measure(self, trainer: L.Trainer, logits: Tensor, target: Tensor) -> Rows:
        if not self._final:
            if self._metrics is None:
                outputs = self._outputs(logits[:1], target)[0]
                self._metrics = self._members[0].monitor.build(num_classes=outputs.num_classes, **self._options)
            values = values_of_members(self._metrics, logits, target)
            if values is not None:
                return [{f"{self._name}/{name}": value for name, value in row.items()} for row in values]
        callbacks = [member.monitor for member in self._members]
        return self._measure_to_the_bit(trainer, callbacks, self._name, self._outputs(logits, target))

    def _measure_scaled(self, trainer: L.Trainer, logits: Tensor, target: Tensor, rows: Rows) -> None:
        """Add to the rows what those members have that have a temperature."""
        fitted = [k for k, member in enumerate(self._members) if member.scaling.fit is not None]
        callbacks = [self._members[k].scaling for k in fitted]
        scaled = [callback.module().to(logits.device)(logits[k]) for k, callback in zip(fitted, callbacks, strict=True)]
        outputs = self._outputs(scaled, target)
        for k, row in zip(fitted, self._measure_to_the_bit(trainer, callbacks, "test_scaled", outputs), strict=True):
            rows[k] |= row

    def _outputs(self, logits: Sequence[Tensor] | Tensor, target: Tensor) -> list[Outputs]:
        return [Outputs(own, target, self._options, len(target)) for own in logits]

    def _measure_to_the_bit(
        self, trainer: L.Trainer, callbacks: Sequence[Any], prefix: str, outputs: list[Outputs]
    ) -> Rows:
        """Measure with the monitor's metrics; each callback keeps what is found of its member."""
        found = measure_members(self._members[0].monitor.build, outputs, trainer)
        for callback, measured in zip(callbacks, found, strict=True):
            callback.measured[self._name] = measured
        return [{f"{prefix}/{name}": value for name, value in one.values.items() if name != "n"} for one in found]

    def _fit(self, trainer: L.Trainer, logits: Tensor, target: Tensor) -> None:
        first = self._members[0].scaling._fit
        if logits[0].numel() > first._keeping["max_values"]:  # a sample of the rows, as alone
            for member, own in zip(self._members, self._outputs(logits, target), strict=True):
                member.scaling._fit.start()
                member.scaling._fit.add(trainer, own)
                member.scaling._fit.fit(trainer, logits.device)
            return
        near = [member.scaling.fit for member in self._members]
        fits = fit_members(logits, target, Spec(**self._options), first.bounds, near)
        for member, fit in zip(self._members, fits, strict=True):
            member.scaling._fit.found, member.scaling._fit.step = fit, trainer.global_step

    def _losses(self) -> Tensor:
        """Mean over samples ``(M,)`` of the plain loss, batch by batch as Lightning takes it."""
        total, count = torch.zeros((), device=self._seen[0][0].device), 0
        for logits, target in self._seen:
            members, size = len(logits), len(target)
            if self._options["task"] != "multiclass" and not target.is_floating_point():
                target = target.float()
            repeated = target.expand(members, *target.shape).flatten(0, 1)
            each: Tensor = self._criterion(logits.flatten(0, 1), repeated).view(members, -1)
            total, count = total + each.mean(1) * size, count + size
        return total / count
