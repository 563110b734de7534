"""Selective classification as functions of levels: the risk at a coverage is the error rate of the surest samples.

With W(k) errors among the k surest of N, the mean over all orders within levels, the risk at coverage k/N is W(k)/k.
Each number is a 0-d float64, NaN without samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.levels import Levels, errors_first, errors_last
from ls_lightning.functional.outputs import NanPolicy
from ls_lightning.functional.sketch import read_sketch


class RiskCoverage(NamedTuple):
    """A risk-coverage curve, each float64 `(J,)`, by increasing coverage.

    Attributes:
        coverage: share of samples kept, in (0, 1].
        risk: error rate among them; within a level the mean over all orders.
        lower: the risk if the errors of each level come last, at the least.
        upper: the risk if they come first, at the most.
    """

    coverage: Tensor
    risk: Tensor
    lower: Tensor
    upper: Tensor


def area(levels: Levels) -> Tensor:
    """AURC, `1/N sum_k W(k)/k`; of several data sets side by side, levels `(..., J)`, some of them perhaps empty."""
    above, wrong_above = _before(levels.n), _before(levels.wrong)
    # W(k) is linear in a level of n samples: its sum over 1/k is a difference of harmonic numbers.
    harmonic = torch.digamma(above + levels.n + 1) - torch.digamma(above + 1)
    each = levels.wrong + (wrong_above - levels.wrong / levels.n.clamp(min=1) * above) * harmonic
    return _total(each) / _total(levels.n)


def excess_area(levels: Levels) -> Tensor:
    """E-AURC, `AURC - (e + (1 - e) ln(1 - e))` with the error rate e."""
    error = _total(levels.wrong) / _total(levels.n)
    return area(levels) - (error + torch.xlogy(1 - error, 1 - error))


def generalized_area(levels: Levels) -> Tensor:
    """AUGRC, `1/N sum_k W(k)/N`."""
    sums = levels.n * _before(levels.wrong) + levels.wrong * (levels.n + 1) / 2
    return _total(sums) / _total(levels.n) ** 2


def risk_at(levels: Levels, coverage: float) -> Tensor:
    """Risk of the fewest surest samples that cover at least `coverage` of all."""
    total = _total(levels.n)
    if total == 0:
        return total / total
    kept = _fewest(total, coverage)
    return (_errors_among(levels, kept[None]) / kept).squeeze()


def coverage_at(levels: Levels, risk: float) -> Tensor:
    """Return the largest coverage whose risk is at most `risk`; 0 if there is none."""
    total = _total(levels.n)
    if total == 0:
        return total / total
    n, above, wrong_above = levels.n, _before(levels.n), _before(levels.wrong)
    slope = levels.wrong / n
    # Where a level starts within the risk and leaves it, it does so at the root of a linear equation.
    root = ((risk * above - wrong_above) / (slope - risk)).nan_to_num(0, 0, 0).floor()
    largest = total.new_zeros(())
    for step in (root - 1, root, root + 1, n):
        kept = torch.minimum(step.clamp(min=1), n)
        reached = (wrong_above * n + levels.wrong * kept) / (n * (above + kept)) <= risk
        largest = torch.where(reached, above + kept, 0).max().maximum(largest)
    return largest / total


def curve(levels: Levels) -> RiskCoverage:
    """Points at the end of each level, and where the bounds turn within it."""
    above, right = _before(levels.n), levels.n - levels.wrong
    kept = torch.cat([above + levels.wrong, above + right, above + levels.n]).sort().values
    kept = torch.unique_consecutive(kept[kept > 0])
    risks = (_errors_among(each, kept) / kept for each in (levels, errors_last(levels), errors_first(levels)))
    return RiskCoverage(kept / _total(levels.n), *risks)


def sampled_curve(levels: Levels, points: int = 100) -> RiskCoverage:
    """The curve at coverages 1/points, 2/points, ..., 1: the same for every data set, so that means can be taken.

    The risk is that of the fewest surest samples that cover each, as `risk_at` gives it.

    Args:
        levels: of one sample at least.
        points: J, at least 1.

    Raises:
        ValueError: there are no samples.

    Example:
        >>> one = torch.ones(4, dtype=torch.float64)
        >>> levels = Levels(n=one, wrong=torch.tensor([0.0, 1.0, 0.0, 0.0]).double(), p=one, width=0 * one)
        >>> sampled_curve(levels, points=2).risk
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    total = _total(levels.n)
    if total == 0:
        raise ValueError("a risk-coverage curve needs samples, got none.")
    coverage = torch.arange(1, points + 1, dtype=torch.float64) / points
    kept = _fewest(total, coverage)
    risks = (_errors_among(each, kept) / kept for each in (levels, errors_last(levels), errors_first(levels)))
    return RiskCoverage(coverage, *risks)


def risk_coverage_points(sums: Tensor, nan_policy: NanPolicy = "raise") -> RiskCoverage:
    """Read the curve off the sketch's sums over all batches and ranks; between cells it is exact.

    Raises:
        ValueError: some sample was not a number or its target out of range.

    Example:
        >>> from ls_lightning.functional.sketch import Ranking, sketch
        >>> sums = sketch(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), Ranking())
        >>> risk_coverage_points(sums).risk
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    return curve(read_sketch(sums, nan_policy))


def check_share(name: str, share: float, above_zero: bool = False) -> None:
    """Raise a ValueError for what is not in [0, 1], or (0, 1]."""
    if not 0 <= share <= 1 or (above_zero and share == 0):
        raise ValueError(f"{name} must be in {'(' if above_zero else '['}0, 1], got {share!r}. It is a share of 1.")


def _fewest(total: Tensor, coverage: float | Tensor) -> Tensor:
    """The least number of samples that is at least a share `coverage` of all."""
    kept = total * coverage
    nearest = kept.round()
    return torch.where((kept - nearest).abs() <= nearest * 2.0**-50, nearest, kept.ceil())  # .07 * 100 is above 7


def _errors_among(levels: Levels, kept: Tensor) -> Tensor:
    """W(k) for counts k from 1 to N."""
    index = torch.searchsorted(levels.n.cumsum(0), kept)
    n, wrong = levels.n[index], levels.wrong[index]
    return _before(levels.wrong)[index] + wrong * (kept - _before(levels.n)[index]) / n


def _before(values: Tensor) -> Tensor:
    return values.cumsum(-1) - values


def _total(values: Tensor) -> Tensor:
    """Sum in order: a parallel sum rounds differently for another number of threads."""
    return torch.cat([values.new_zeros(*values.shape[:-1], 1), values], -1).cumsum(-1)[..., -1]
