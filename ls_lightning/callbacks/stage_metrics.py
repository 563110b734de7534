"""StageMetrics: what a stage is measured by, one collection a dataloader, computed over all ranks at its end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeGuard, get_args

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ls_lightning.callbacks.batch_buffer import BatchBuffer
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.measures import ReliabilityBins, num_samples, reliability_bins
from ls_lightning.functional.outputs import Scores, Task
from ls_lightning.metrics import CalibrationMetric, SumMetric
from ls_lightning.metrics.base import SharedPass

Build = Callable[..., MetricCollection]

_ABSENT = -(2**62)
_TASKS, _INPUTS = get_args(Task), get_args(Scores)


class Measured(NamedTuple):
    """What was found with one dataloader, equal on all ranks.

    Attributes:
        values: the metrics as Python floats, and ``n``, the number of samples.
        reliability: bins of the reliability diagram; None without a metric that has them, or if a sample was NaN.
        states: of each distinct state one metric that reads it, and the sums over all ranks.
    """

    values: dict[str, float]
    reliability: ReliabilityBins | None
    states: dict[str, tuple[SumMetric, Tensor]]


class StageMetrics:
    """Metrics of one stage.

    Members that are a :class:`~ls_lightning.metrics.SumMetric` cost one reduction together, each distinct state
    once; others synchronise themselves. A rank without a batch learns from the others what there is to reduce.

    Args:
        build: called with ``task=``, ``num_classes=``, ``ignore_index=`` and, for probabilities, ``input="probs"``.
        num_loaders: dataloaders of the stage.
    """

    def __init__(self, build: Build, num_loaders: int) -> None:
        self._build = build
        self._options: list[dict[str, Any] | None] = [None] * num_loaders
        self._collections: list[MetricCollection | None] = [None] * num_loaders
        self._buffers: list[BatchBuffer | None] = [None] * num_loaders

    def update(self, index: int, outputs: Outputs) -> None:
        """Add a batch of dataloader ``index``."""
        found = self._collections[index]
        if found is None:
            options = self._options[index] = {"num_classes": outputs.num_classes, **outputs.options}
            found = self._collections[index] = self._start(options).to(outputs.logits.device)
            if all(isinstance(metric, SumMetric) for metric in found.values()):  # to others the size may matter
                self._buffers[index] = BatchBuffer(adder(found))
        buffer = self._buffers[index]
        (found.update if buffer is None else buffer.add)(outputs.logits, outputs.target)

    def measure(self, trainer: L.Trainer, device: torch.device) -> list[Measured]:
        """Compute everything; every rank has to call it."""
        for buffer in self._buffers:
            if buffer is not None:
                buffer.flush()
        members = [dict(found.items(copy_state=False)) for found in self._on_all_ranks(trainer, device)]
        states = [_states(metrics.values()) for metrics in members]
        totals = iter(_add_up([metric.sums for found in states for metric in found.values()], trainer, device))
        summed = [{name: (metric, next(totals)) for name, metric in found.items()} for found in states]
        return [_read(metrics, found) for metrics, found in zip(members, summed, strict=True)]

    def _start(self, options: dict[str, Any]) -> MetricCollection:
        if options["task"] == "multilabel":  # without their number, labels may be tokens: more in the next batch
            with contextlib.suppress(TypeError, ValueError):
                return self._build(**{**options, "num_classes": None})
        return self._build(**options)

    def _on_all_ranks(self, trainer: L.Trainer, device: torch.device) -> list[MetricCollection]:
        """The collections, built here as well where only other ranks had a batch."""
        options = self._options
        if trainer.world_size > 1:
            known = torch.tensor([_encode(found) for found in options], device=device)
            options = [_decode(row) for row in trainer.strategy.reduce(known, reduce_op="max").tolist()]
        usual = {"task": "multiclass", "num_classes": 2}
        return [
            found or self._start(given or usual).to(device)
            for found, given in zip(self._collections, options, strict=True)
        ]


def adder(found: MetricCollection) -> Callable[[Tensor, Tensor], Any]:
    """Return what adds a batch to all members: where they share one pass and its states, to the first of them alone.

    That leaves out what torchmetrics notes for each member at each update.
    """
    members = dict(found.items(keep_base=True, copy_state=False))
    groups = list(found.compute_groups.values())
    leader = members[groups[0][0]] if groups and len(groups[0]) == len(members) else None
    if isinstance(leader, SumMetric) and leader._pass is not None:
        return partial(SumMetric.update, leader)
    return found.update


def shared_pass(metrics: Iterable[Metric]) -> SharedPass | None:
    """How all of the metrics read samples, if they do so in one pass."""
    passes = {metric._pass if isinstance(metric, SumMetric) else None for metric in metrics}
    return passes.pop() if len(passes) == 1 else None


def log_values(
    trainer: L.Trainer, pl_module: L.LightningModule, stage: str, found: dict[str, dict[str, float]]
) -> None:
    """Log ``stage/name``, for keys with a suffix ``stage/name/dataloader_idx_0``; a key of the module's own wins.

    Args:
        trainer: of the stage that ends.
        pl_module: logs.
        stage: the first part of the keys.
        found: values, equal on all ranks, by ``stage`` or ``stage/dataloader_idx_0``; ``n`` is not logged.
    """
    theirs = _logged_by_module(trainer)
    for key, values in found.items():
        for name, value in values.items():
            if name == "n" or f"{stage}/{name}" in theirs:
                continue
            # Equal on all ranks: the maximum keeps the bits, a mean would not.
            pl_module.log(
                f"{stage}/{name}{key.removeprefix(stage)}",
                value,
                on_epoch=True,
                sync_dist=True,
                reduce_fx="max",
                add_dataloader_idx=False,
            )


def by_loader(stage: str, found: list[Any]) -> dict[str, Any]:
    """``{"val": ...}``, or with several dataloaders ``{"val/dataloader_idx_0": ..., ...}``."""
    suffixes = [""] if len(found) == 1 else [f"/dataloader_idx_{index}" for index in range(len(found))]
    return {stage + suffix: one for suffix, one in zip(suffixes, found, strict=True)}


def _add_up(sums: list[Tensor], trainer: L.Trainer, device: torch.device) -> list[Tensor]:
    """Sums over all ranks, in one reduction."""
    if not sums:
        return []
    flat = torch.cat([tensor.flatten().to(device) for tensor in sums])
    totals = trainer.strategy.reduce(flat, reduce_op="sum").split([tensor.numel() for tensor in sums])
    return [total.view_as(tensor) for total, tensor in zip(totals, sums, strict=True)]


def _states(metrics: Iterable[Metric]) -> dict[str, SumMetric]:
    """One metric for each distinct state that is a sum."""
    return {metric._state: metric for metric in metrics if _is_sum(metric)}


def _is_sum(metric: Metric) -> TypeGuard[SumMetric]:
    return isinstance(metric, SumMetric) and isinstance(getattr(metric, metric._state), Tensor)


def _read(metrics: dict[str, Metric], states: dict[str, tuple[SumMetric, Tensor]]) -> Measured:
    values: dict[str, float] = {}
    reliability = None
    complaints = []
    for name, metric in metrics.items():
        try:
            value = metric.measure(states[metric._state][1]) if _is_sum(metric) else metric.compute()
            if isinstance(value, Tensor) and value.numel() == 1:
                values[name] = value.item()
            else:
                rank_zero_warn(f"{name} is left out: it is not a single number. Log it in the module, or reduce it.")
        except ValueError as error:
            values[name] = math.nan
            complaints.append(f"{name}: {error}")
    if complaints:
        rank_zero_warn(f"{len(complaints)} metrics are nan. {complaints[0]}")
    counted = [sums for metric, sums in states.values() if isinstance(metric, CalibrationMetric)]
    if counted and not complaints:
        reliability = reliability_bins(counted[0])
    if counted:
        values["n"] = 0 if complaints else num_samples(counted[0])
    return Measured(values, reliability, states)


def _encode(options: dict[str, Any] | None) -> list[int]:
    if options is None:
        return [_ABSENT] * 4
    ignored = options.get("ignore_index")
    return [
        _TASKS.index(options["task"]),
        options["num_classes"] or 0,
        _ABSENT if ignored is None else ignored,
        _INPUTS.index(options.get("input", "logits")),
    ]


def _decode(row: list[int]) -> dict[str, Any] | None:
    task, num_classes, ignored, kind = row
    if task == _ABSENT:
        return None
    options: dict[str, Any] = {"task": _TASKS[task], "num_classes": num_classes or None}
    if ignored != _ABSENT:
        options["ignore_index"] = ignored
    return {**options, "input": "probs"} if _INPUTS[kind] == "probs" else options


def _logged_by_module(trainer: L.Trainer) -> set[str]:
    """The keys that the module has logged in its steps of this epoch."""
    results: Any = trainer._results
    found = [] if results is None else [metric.meta for metric in results.values()]
    return {str(meta.name) for meta in found if not meta.fx.endswith("_epoch_end")}  # those are ours, of epochs before
