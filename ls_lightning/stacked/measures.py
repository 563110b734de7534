"""The metrics of all members in one pass over their samples."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch

from ls_lightning.callbacks.stage_metrics import Build, Measured, StageMetrics, _read, _states
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.outputs import as_rows
from ls_lightning.functional.ranking import as_ranked
from ls_lightning.functional.samples import Samples, measure
from ls_lightning.functional.sketch import sketch_samples
from ls_lightning.functional.sums import add_sums, sum_samples
from ls_lightning.metrics.base import SharedPass, SumMetric


def measure_members(build: Build, outputs: list[Outputs], trainer: L.Trainer) -> list[Measured]:
    """What :class:`~ls_lightning.callbacks.stage_metrics.StageMetrics` measures of each member, to the same bits.

    Args:
        build: makes the collection of metrics.
        outputs: of each member, for the same samples and with the same options.
        trainer: of the stack.
    """
    if not outputs:
        return []
    options = {"num_classes": outputs[0].num_classes, **outputs[0].options}
    metrics = dict(StageMetrics(build, 1)._start(options).items(copy_state=False))
    passes = {metric._pass if isinstance(metric, SumMetric) else None for metric in metrics.values()}
    shared = passes.pop()
    if passes or shared is None:
        return [_one_by_one(build, own, trainer) for own in outputs]
    empty_sums, empty_sketch = (getattr(next(iter(metrics.values())), name) for name in (shared.sums, shared.sketch))
    found = []
    for samples in _samples_of_each(outputs, shared):
        added, sketch = sum_samples(samples, shared.spec), empty_sketch.to(samples.nll.device, copy=True)
        sketch_samples(sketch, as_ranked(samples))
        sums = {shared.sums: add_sums(empty_sums.to(added.device), added), shared.sketch: sketch}
        states = _states(metrics.values())
        found.append(_read(metrics, {name: (metric, sums[name]) for name, metric in states.items()}))
    return found


def _samples_of_each(outputs: list[Outputs], shared: SharedPass) -> Iterator[Samples]:
    """Every sample is read by itself, so that all can be read at once."""
    logits, target = torch.cat([own.logits for own in outputs]), torch.cat([own.target for own in outputs])
    scores, labels = as_rows(logits, target, shared.spec)
    samples = measure(scores, labels, shared.spec)
    columns = ([None] * len(outputs) if values is None else values.chunk(len(outputs)) for values in samples)
    return (Samples(*own) for own in zip(*columns, strict=True))


def _one_by_one(build: Build, outputs: Outputs, trainer: L.Trainer) -> Measured:
    metrics = StageMetrics(build, 1)
    metrics.update(0, outputs)
    (measured,) = metrics.measure(trainer, outputs.logits.device)
    return measured
