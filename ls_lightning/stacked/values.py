"""The default metrics of all members as a few operations, for the validations within training.

They are what :mod:`~ls_lightning.stacked.measures` finds, without the integer sums that it is read off: to 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from ls_lightning.functional import measures, risk
from ls_lightning.functional.levels import Levels
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.samples import Samples, measure
from ls_lightning.functional.sketch import cell_of
from ls_lightning.functional.sums import BinSums, Totals, bin_index
from ls_lightning.metrics import (
    AURC,
    Accuracy,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    CalibrationMetric,
    NegativeLogLikelihood,
    OverconfidenceError,
)


class _Found(NamedTuple):
    """Of all members: sums, a row each; and levels."""

    sums: tuple[BinSums, Totals]
    levels: Levels


def values_of_members(metrics: MetricCollection, logits: Tensor, target: Tensor) -> list[dict[str, float]] | None:
    """Measure each member.

    Args:
        metrics: what to measure.
        logits: ``(M, N, K)``; ``(M, N)`` for binary.
        target: of the N samples.

    Returns:
        None if one of the metrics is not among the default ones, or a sample cannot be measured or does not count.
    """
    named: dict[str, Any] = dict(metrics.items(copy_state=False))
    spec = _spec_of(named.values())
    if spec is None:
        return None
    members = len(logits)
    rows, labels = as_rows(logits.flatten(0, 1), target.expand(members, *target.shape).flatten(0, 1), spec)
    samples = measure(rows, labels, spec)
    if not bool(samples.counted.all()):
        return None
    found = _Found(_sums(samples, spec, members), _levels(samples, members))
    columns = [_READ[type(metric)](metric, found) for metric in named.values()]
    return [dict(zip(named, row, strict=True)) for row in torch.stack(columns, 1).tolist()]


def _spec_of(metrics: Collection[Any]) -> Spec | None:
    """How all of the metrics read samples; None if they differ, or one is not known here."""
    specs = {metric.spec for metric in metrics if isinstance(metric, CalibrationMetric)}
    if len(specs) != 1 or not all(_is_known(metric) for metric in metrics):
        return None
    (spec,), usual = specs, Spec()
    ranking = Ranking(replace(spec, num_bins=usual.num_bins, closed=usual.closed, confidence=usual.confidence))
    return spec if all(metric.ranking == ranking for metric in metrics if isinstance(metric, AURC)) else None


def _is_known(metric: Any) -> bool:
    return type(metric) in _READ and not getattr(metric, "debias", False) and getattr(metric, "mode", "") != "exact"


def _sums(samples: Samples, spec: Spec, members: int) -> tuple[BinSums, Totals]:
    """Those sums that the default metrics read; the others are NaN."""
    one, p, hit, correct = torch.ones_like(samples.nll), samples.confidence, samples.hit.double(), samples.correct
    index = bin_index(p, spec.num_bins, spec.closed).view(members, -1)
    index += spec.num_bins * torch.arange(members, device=index.device)[:, None]
    numbers = torch.stack([one, hit, p, correct.double()], -1)
    sums = numbers.new_zeros(members * spec.num_bins, 4).index_add_(0, index.flatten(), numbers)
    n, hits, p, correct = sums.view(members, -1, 4).unbind(-1)
    finite, unknown = samples.nll.isfinite(), torch.full_like(n, torch.nan)
    each = {"n": one, "infinite": ~finite, "nll": samples.nll.where(finite, 0), "brier": samples.brier}
    totals = {name: values.view(members, -1).sum(1) for name, values in each.items()}
    bins = BinSums(n, hits, p, unknown, unknown, unknown, correct)
    rest = dict.fromkeys(Totals._fields, unknown[:, 0])
    return bins, Totals(**{**rest, **totals})


def _levels(samples: Samples, members: int) -> Levels:
    """A row for each member, as the cells of the sketch make them; what is left of a row is empty levels."""
    cells, order = cell_of(samples.odds, Ranking().num_cells).view(members, -1).sort(1)
    wrong = (~samples.correct).view(members, -1).gather(1, order).double()
    begins = cells.diff(dim=1, prepend=cells[:, :1]) > 0
    level, empty = begins.cumsum(1), torch.zeros_like(wrong)
    n, errors = (empty.scatter_add(1, level, numbers) for numbers in (torch.ones_like(wrong), wrong))
    return Levels(n, errors, p=empty, width=empty)


_READ: dict[type, Callable[[Any, _Found], Tensor]] = {
    Accuracy: lambda _, found: measures.accuracy(found.sums),
    NegativeLogLikelihood: lambda _, found: measures.negative_log_likelihood(found.sums),
    BrierScore: lambda _, found: measures.brier_score(found.sums),
    CalibrationError: lambda metric, found: measures.calibration_error(found.sums, metric.norm),
    CalibrationGap: lambda _, found: measures.calibration_gap(found.sums),
    OverconfidenceError: lambda _, found: measures.overconfidence_error(found.sums),
    AURC: lambda _, found: risk.area(found.levels),
}
