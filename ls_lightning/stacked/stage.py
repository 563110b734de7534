"""What a validation or a test finds of each member, as CalibrationMonitor and TemperatureScaling measure it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.callbacks.step_outputs import Stage as Name
from ls_lightning.callbacks.temperature_scaling import scaled_outputs
from ls_lightning.functional.outputs import Spec
from ls_lightning.stacked.measures import measure_members
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.temperatures import fit_members


class Stage:
    """Gather the logits of all members, and measure them; what is found goes to the members' callbacks.

    Args:
        name: ``"val"``, which fits the temperatures; or ``"test"``, which is measured with them, too.
        members: with the same task, metrics and bounds.
    """

    def __init__(self, name: Name, members: Sequence[Member]) -> None:
        self._name, self._members = name, list(members)
        classifier = members[0].classifier
        self._criterion = type(classifier.criterion)(reduction="none")
        self._options: dict[str, Any] = {"task": classifier.task}
        if classifier.task == "multiclass":
            self._options["ignore_index"] = -100
        self._seen: list[tuple[Tensor, Tensor]] = []

    def start(self) -> None:
        """Begin anew."""
        self._seen = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """A batch: logits ``(M, B, ...)``, targets of the B samples."""
        self._seen.append((logits, target))

    def rows(self, trainer: L.Trainer) -> list[dict[str, float]]:
        """What is logged of each member: its loss, metrics and temperature."""
        losses = self._losses().tolist()
        logits = torch.cat([rows for rows, _ in self._seen], 1)
        target = torch.cat([rows for _, rows in self._seen])
        outputs = [Outputs(own, target, self._options, len(target)) for own in logits]
        rows = self._measure(trainer, [member.monitor for member in self._members], self._name, outputs)
        if self._name == "val":
            self._fit(trainer, outputs)
            for row, member in zip(rows, self._members, strict=True):
                fit = member.scaling.fit
                row["ls/temperature"], row["val_scaled/nll"] = (
                    (fit.temperature, fit.nll_after) if fit else (math.nan,) * 2
                )
        else:
            fitted = [k for k, member in enumerate(self._members) if member.scaling.fit is not None]
            callbacks = [self._members[k].scaling for k in fitted]
            scaled = [scaled_outputs(outputs[k], self._members[k].scaling.module().to(logits.device)) for k in fitted]
            for k, row in zip(fitted, self._measure(trainer, callbacks, "test_scaled", scaled), strict=True):
                rows[k] |= row
        found = []
        for loss, values in zip(losses, rows, strict=True):
            # Lightning keeps what a callback logs in float32.
            rounded = torch.tensor(list(values.values()), dtype=torch.float32).tolist()
            found.append({f"{self._name}/loss": loss, **dict(zip(values, rounded, strict=True))})
        return found

    def _measure(
        self, trainer: L.Trainer, callbacks: Sequence[Any], prefix: str, outputs: list[Outputs]
    ) -> list[dict[str, float]]:
        """Measure with the monitor's metrics; each callback keeps what is found of its member."""
        build = self._members[0].monitor.build
        found = measure_members(build, outputs, trainer)
        for callback, measured in zip(callbacks, found, strict=True):
            callback.measured[self._name] = measured
        return [{f"{prefix}/{name}": value for name, value in one.values.items() if name != "n"} for one in found]

    def _fit(self, trainer: L.Trainer, outputs: list[Outputs]) -> None:
        first = self._members[0].scaling._fit
        if outputs[0].logits.numel() > first._keeping["max_values"]:  # a sample of the rows, as alone
            for member, own in zip(self._members, outputs, strict=True):
                member.scaling._fit.start()
                member.scaling._fit.add(trainer, own)
                member.scaling._fit.fit(trainer, own.logits.device)
            return
        logits = torch.stack([own.logits for own in outputs])
        fits = fit_members(logits, outputs[0].target, Spec(**self._options), first.bounds)
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
