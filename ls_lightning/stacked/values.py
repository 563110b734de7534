"""The default metrics of all members as a few operations, for the validations within training.

They are what :mod:`~ls_lightning.stacked.measures` finds, without the integer sums that it is read off: to 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.samples import measure
from ls_lightning.functional.sums import bin_index
from ls_lightning.metrics import (
    AURC,
    Accuracy,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    NegativeLogLikelihood,
    OverconfidenceError,
)


class _Found(NamedTuple):
    """Of samples ``(M, S)``, sums over bins ``(M, num_bins)``, and the samples' cells ``(M, S)`` in the sketch."""

    correct: Tensor
    nll: Tensor
    brier: Tensor
    n: Tensor
    hits: Tensor
    p: Tensor
    cells: Tensor

    @property
    def gaps(self) -> Tensor:
        return self.p - self.hits


def values_of_members(metrics: MetricCollection, logits: Tensor, target: Tensor) -> list[dict[str, float]] | None:
    """Measure each member.

    Args:
        metrics: what to measure.
        logits: ``(M, N, K)``; ``(M, N)`` for binary.
        target: of the N samples.

    Returns:
        None if one of the metrics is not among the default ones, or a sample cannot be measured or does not count.
    """
    members: dict[str, Any] = dict(metrics.items(copy_state=False))
    passes = {getattr(metric, "_pass", None) for metric in members.values()}
    shared = passes.pop()
    if passes or shared is None or not all(_is_known(metric) for metric in members.values()):
        return None
    found = _find(logits, target, shared.spec, members["aurc"].ranking.num_cells)
    if found is None:
        return None
    columns = [_READ[type(metric)](metric, found) for metric in members.values()]
    return [dict(zip(members, row, strict=True)) for row in torch.stack(columns, 1).tolist()]


def _is_known(metric: Any) -> bool:
    return type(metric) in _READ and not getattr(metric, "debias", False) and getattr(metric, "mode", "") != "exact"


def _find(logits: Tensor, target: Tensor, spec: Spec, num_cells: int) -> _Found | None:
    members = len(logits)
    rows, labels = as_rows(logits.flatten(0, 1), target.expand(members, *target.shape).flatten(0, 1), spec)
    flat = measure(rows, labels, spec)
    if not bool(flat.counted.all()):
        return None
    cells = (flat.log_odds.exp().float().view(torch.int32) >> 16).clamp(max=num_cells - 1)  # as the sketch has them
    index = bin_index(flat.confidence, spec.num_bins, spec.closed).view(members, -1)
    index += spec.num_bins * torch.arange(members, device=index.device)[:, None]
    numbers = torch.stack([torch.ones_like(flat.nll), flat.hit.double(), flat.confidence], -1)
    sums = numbers.new_zeros(members * spec.num_bins, 3).index_add_(0, index.flatten(), numbers)
    n, hits, p = sums.view(members, -1, 3).unbind(-1)
    correct, nll, brier = (column.view(members, -1) for column in (flat.correct, flat.nll, flat.brier))
    return _Found(correct, nll, brier, n, hits, p, cells.view(members, -1))


def _calibration_error(metric: CalibrationError, found: _Found) -> Tensor:
    gaps, size = found.gaps.abs(), found.cells.shape[1]
    if metric.norm == "l1":
        return gaps.sum(1) / size
    if metric.norm == "max":
        return (gaps / found.n.clamp(min=1)).amax(1)
    return ((gaps**2 / found.n.clamp(min=1)).sum(1) / size).sqrt()


def _overconfidence(_: OverconfidenceError, found: _Found) -> Tensor:
    return (found.p / found.n.clamp(min=1) * found.gaps.clamp(min=0)).sum(1) / found.cells.shape[1]


def _area(_: AURC, found: _Found) -> Tensor:
    """Go through each member's samples by cell; a cell's part of the area is known at its last sample."""
    cells, order = found.cells.sort(1)
    wrong, size = (~found.correct).gather(1, order).double(), cells.shape[1]
    place = torch.arange(size, device=cells.device)
    first = torch.ones_like(cells, dtype=torch.bool)
    first[:, 1:] = cells[:, 1:] != cells[:, :-1]
    above = torch.where(first, place, 0).cummax(1).values
    errors = wrong.cumsum(1)
    errors_above = (errors - wrong).gather(1, above)
    harmonic = torch.digamma(torch.arange(1, size + 2, dtype=torch.float64, device=cells.device))
    own, count = errors - errors_above, place + 1 - above
    parts = own + (errors_above - own / count * above) * (harmonic[place + 1] - harmonic[above])
    return (parts * first.roll(-1, 1)).sum(1) / size


_READ: dict[type, Callable[[Any, _Found], Tensor]] = {
    Accuracy: lambda _, found: found.correct.double().mean(1),
    NegativeLogLikelihood: lambda _, found: found.nll.mean(1),
    BrierScore: lambda _, found: found.brier.mean(1),
    CalibrationError: _calibration_error,
    CalibrationGap: lambda _, found: found.gaps.sum(1) / found.cells.shape[1],
    OverconfidenceError: _overconfidence,
    AURC: _area,
}
