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

from ls_lightning.callbacks.batch_buffer import BatchBuffer, RowBuffer
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.measures import ReliabilityBins, num_samples, reliability_bins
from ls_lightning.functional.outputs import Scores, Task
from ls_lightning.metrics import CalibrationMetric, SumMetric, update_statistics

Build = Callable[..., MetricCollection]
Add = Callable[[Tensor, Tensor], Any]

_Totals = dict[str, tuple[SumMetric, Tensor]]

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
        self._idle: dict[_Kind, list[MetricCollection]] = {}
        self._collections: list[MetricCollection | None] = []
        self._kinds: list[_Kind | None] = []
        self.reset(num_loaders)

    def reset(self, num_loaders: int | None = None) -> None:
        """Begin anew, with as many dataloaders as before if none are given.

        What has been built serves again where it fits: it takes as long as to measure hundreds of small batches.
        """
        for kind, found in zip(self._kinds, self._collections, strict=True):
            if found is not None and kind is not None:
                _reset(found)
                self._idle.setdefault(kind, []).append(found)
        num_loaders = len(self._collections) if num_loaders is None else num_loaders
        self._options: list[dict[str, Any] | None] = [None] * num_loaders
        self._kinds = [None] * num_loaders
        self._collections = [None] * num_loaders
        self._adders: list[Add | None] = [None] * num_loaders
        self._rows: list[RowBuffer | None] = [None] * num_loaders
        self._buffers: list[BatchBuffer | RowBuffer] = []

    def reads_statistics(self, index: int, options: dict[str, Any], device: torch.device) -> bool:
        """Whether batches of dataloader ``index`` may come as statistics, where all have these options."""
        if self._adders[index] is None:
            self._begin(index, options, device)
        return self._options[index] == options and self._rows[index] is not None

    def update(self, index: int, outputs: Outputs) -> None:
        """Add a batch of dataloader ``index``."""
        logits, statistics = outputs.logits, outputs.statistics
        add = self._adders[index]
        if add is None:
            device = logits.device if statistics is None else statistics.device
            add = self._begin(index, {"num_classes": outputs.num_classes, **outputs.options}, device)
        rows = self._rows[index]
        if statistics is None or rows is None:
            add(logits, outputs.target)
        else:
            rows.add(statistics)

    def measure(self, trainer: L.Trainer, device: torch.device) -> list[Measured]:
        """Compute everything; every rank has to call it."""
        return [_read(metrics, found) for metrics, found in self._totals(trainer, device)]

    def state(self, index: int, trainer: L.Trainer, device: torch.device) -> dict[str, Any] | None:
        """The sums so far with dataloader ``index``, over all ranks; every rank has to call it. None without any."""
        options = self._options[index]
        if options is None and trainer.world_size == 1:
            return None
        sums = {name: total.cpu() for name, (_, total) in self._totals(trainer, device)[index][1].items()}
        return None if options is None else {"options": options, "sums": sums}

    def resume(self, index: int, options: dict[str, Any], sums: dict[str, Tensor], device: torch.device) -> None:
        """Go on from such a state; metrics that are no sums begin anew."""
        self._begin(index, options, device)
        found = self._collections[index]
        for metric in found.values(copy_state=False) if found else ():
            if _is_sum(metric) and metric._state in sums:
                metric.sums.copy_(sums[metric._state])

    def _begin(self, index: int, options: dict[str, Any], device: torch.device) -> Add:
        """What adds a batch from now on."""
        self._options[index] = options
        self._kinds[index] = _kind(options, device)
        found = self._collections[index] = self._start(options, device)
        add = adder(found)
        # To metrics of others the size of a batch may matter.
        if all(isinstance(metric, SumMetric) for metric in found.values(copy_state=False)):
            buffer = BatchBuffer(add)
            self._buffers.append(buffer)
            add = buffer.add
        self._adders[index] = add
        if all(isinstance(metric, SumMetric) and metric.reads_statistics for metric in found.values(copy_state=False)):
            rows = self._rows[index] = RowBuffer(partial(update_statistics, found))
            self._buffers.append(rows)
        return add

    def _totals(self, trainer: L.Trainer, device: torch.device) -> list[tuple[dict[str, Metric], _Totals]]:
        """Of each dataloader the metrics; and of each distinct state one that reads it, and the sums over all ranks."""
        for buffer in self._buffers:
            buffer.flush()
        members = [dict(found.items(copy_state=False)) for found in self._on_all_ranks(trainer, device)]
        states = [_states(metrics.values()) for metrics in members]
        totals = iter(_add_up([metric.sums for found in states for metric in found.values()], trainer, device))
        summed = [{name: (metric, next(totals)) for name, metric in found.items()} for found in states]
        return list(zip(members, summed, strict=True))

    def _start(self, options: dict[str, Any], device: torch.device) -> MetricCollection:
        idle = self._idle.get(_kind(options, device))
        if idle:
            return idle.pop()
        if options["task"] == "multilabel":  # without their number, labels may be tokens: more in the next batch
            with contextlib.suppress(TypeError, ValueError):
                return self._build(**{**options, "num_classes": None}).to(device)
        return self._build(**options).to(device)

    def _on_all_ranks(self, trainer: L.Trainer, device: torch.device) -> list[MetricCollection]:
        """The collections, built here as well where only other ranks had a batch."""
        options = self._options
        if trainer.world_size > 1:
            known = torch.tensor([_encode(found) for found in options], device=device)
            options = [_decode(row) for row in trainer.strategy.reduce(known, reduce_op="max").tolist()]
        usual = {"task": "multiclass", "num_classes": 2}
        return [
            found or self._start(given or usual, device)
            for found, given in zip(self._collections, options, strict=True)
        ]


def adder(found: MetricCollection) -> Add:
    """Return what adds a batch to all members: where they share one pass and its states, to the first of them alone.

    That leaves out what torchmetrics notes for each member at each update.
    """
    leader = _leader(found)
    return found.update if leader is None else partial(SumMetric.update, leader)


def _leader(found: MetricCollection) -> SumMetric | None:
    """The member whose states all others read; None if there is none such."""
    members = dict(found.items(keep_base=True, copy_state=False))
    groups = list(found.compute_groups.values())
    leader = members[groups[0][0]] if groups and len(groups[0]) == len(members) else None
    return leader if isinstance(leader, SumMetric) and leader._pass is not None else None


def _reset(found: MetricCollection) -> None:
    """Reset; where all read the states of one member, those alone, since every copy of a sketch takes 0.4 MB."""
    leader = _leader(found)
    if leader is None:
        found.reset()
    else:
        leader.reset()
        dict(found.items(copy_state=False))  # points all members at the leader's states


def log_values(
    trainer: L.Trainer, pl_module: L.LightningModule, stage: str, found: dict[str, dict[str, float]]
) -> None:
    """Log ``stage/name``, for keys with a suffix ``stage/name/dataloader_idx_0``; keys that others log win.

    Args:
        trainer: of the stage that ends.
        pl_module: logs.
        stage: the first part of the keys.
        found: values, equal on all ranks, by ``stage`` or ``stage/dataloader_idx_0``; ``n`` is not logged.
    """
    theirs = _logged_by_others(trainer)
    wanted = {
        f"{stage}/{name}{key.removeprefix(stage)}": value
        for key, values in found.items()
        for name, value in values.items()
        if name != "n" and f"{stage}/{name}" not in theirs
    }
    for index, (name, value) in enumerate(wanted.items()):
        if index and _log_again(trainer, pl_module, name, value):
            continue
        # Equal on all ranks: the maximum keeps the bits, a mean would not.
        pl_module.log(name, value, on_epoch=True, sync_dist=True, reduce_fx="max", add_dataloader_idx=False)


def _log_again(trainer: L.Trainer, pl_module: L.LightningModule, name: str, value: float) -> bool:
    """Log a value as in the epoch before: `log` copies what it keeps of it, which takes as long as to measure a batch.

    It has to be called for the first value, since it finds out that an epoch has begun.
    """
    results: Any = trainer._results
    key = f"{pl_module._current_fx_name}.{name}"
    if not results or key not in results:
        return False
    results.update_metrics(key, results[key].value.new_tensor(value), 1)
    return True


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


_Kind = tuple[tuple[str, Any], ...]


def _kind(options: dict[str, Any], device: torch.device) -> _Kind:
    """By what collections are told apart."""
    return (*sorted(options.items()), ("device", device))


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


def _logged_by_others(trainer: L.Trainer) -> set[str]:
    """The keys that the module has logged in its steps of this epoch, and those that callbacks say they log."""
    results: Any = trainer._results
    found = [] if results is None else [metric.meta for metric in results.values()]
    by_module = {str(meta.name) for meta in found if not meta.fx.endswith("_epoch_end")}  # those are ours, of before
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return by_module.union(*(getattr(callback, "logged_keys", ()) for callback in callbacks))
