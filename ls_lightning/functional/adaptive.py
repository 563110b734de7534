"""Calibration over groups of equal size instead of equal width: adaptive, or equal-mass, ECE."""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.levels import Levels, exact_levels, sample_keys
from ls_lightning.functional.measures import Norm, check_norm
from ls_lightning.functional.outputs import Confidence, NanPolicy, Scores, Spec, Task, like
from ls_lightning.functional.ranking import Ranking

_FIXED_POINT = 2.0**-32


class AdaptiveGaps(NamedTuple):
    """Groups by increasing confidence, each float64 `(num_bins,)`; empty ones, if samples are too few, hold 0.

    Attributes:
        n: samples.
        gap: sum of confidences minus hits.
        slack: how far `gap` may be from that of the best or worst order within levels.
    """

    n: Tensor
    gap: Tensor
    slack: Tensor


def adaptive_calibration_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    norm: Norm = "l1",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Measure how far confidence is from accuracy over bins of equal size.

    .. math:: \sum_b \frac{n_b}{N} |c_b - a_b|

    and its forms of other norms, as :func:`calibration_error`. The samples, sorted by confidence, are cut in `num_bins`
    groups of N / M, the N mod M least sure of which hold one more. Equal confidences that a cut divides
    are shared out: each part gets its share of their hits, so that the value does not depend on the order of samples.

    Args, Raises: as :func:`calibration_error`, and
        num_bins: groups of equal size, at least 1; 15 is usual.

    Returns:
        0-d float64 in [0, 1]; NaN if nothing was counted.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]], dtype=torch.float64)
        >>> adaptive_calibration_error(probs, torch.tensor([0, 0, 1, 0]), num_bins=2, input="probs")
        tensor(0.1500, dtype=torch.float64)

    Source: Nguyen and O'Connor 2015, arXiv:1508.05154; Nixon et al. 2019, arXiv:1904.01685, whose ACE is its mean over
    all classes' probabilities.
    """
    check_norm(norm)
    ranking = Ranking(Spec(task, num_classes, num_bins, "right", input, ignore_index, confidence, nan_policy))
    levels = exact_levels(sample_keys(logits, target, ranking), nan_policy)
    return like(adaptive_error(levels, num_bins, norm), logits)


def adaptive_error(levels: Levels, num_bins: int, norm: Norm = "l1") -> Tensor:
    """Weighted mean (`l1`), root mean square (`l2`) or maximum (`max`) of the groups' `|conf - acc|`; NaN if empty."""
    groups = adaptive_gaps(levels, num_bins)
    return _norm(groups.n, groups.gap, norm)


def adaptive_bounds(levels: Levels, num_bins: int, norm: Norm = "l1") -> tuple[Tensor, Tensor]:
    """Bound the error from below and above, whatever the order within levels: by the triangle inequality."""
    groups = adaptive_gaps(levels, num_bins)
    value = _norm(groups.n, groups.gap, norm)
    slack = _norm(groups.n, groups.slack, norm) + _FIXED_POINT
    return (value - slack).clamp(min=0), (value + slack).clamp(max=1)


def adaptive_gaps(levels: Levels, num_bins: int) -> AdaptiveGaps:
    """Cut the samples in groups of equal size, and levels in proportion where a cut divides them."""
    n, wrong, p, width = (values.flip(0) for values in levels)
    total = int(n.sum())
    sizes = total // num_bins + (torch.arange(num_bins) < total % num_bins).double()
    if total == 0:
        return AdaptiveGaps(sizes, sizes, sizes)
    ends, gaps = n.cumsum(0), p - n + wrong
    cuts = sizes.cumsum(0)
    cut = torch.searchsorted(ends, cuts)
    n, wrong, inside = n[cut], wrong[cut], cuts - (ends - n)[cut]
    share = inside / n
    gap = (gaps.cumsum(0) - gaps)[cut] + gaps[cut] * share
    fewest, most = (inside - (n - wrong)).clamp(min=0), torch.minimum(wrong, inside)
    moved = torch.maximum(wrong * share - fewest, most - wrong * share)
    slack = moved + torch.minimum(inside, n - inside) * width[cut]
    zero = n.new_zeros(1)
    return AdaptiveGaps(sizes, gap.diff(prepend=zero), slack + torch.cat([zero, slack[:-1]]))


def _norm(n: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    gaps, total = gap.abs(), n.sum()
    # Empty groups have gap 0 here and count as 1 only to keep 0/0 away.
    counts = n.clamp(min=1)
    if norm == "l1":
        return gaps.sum() / total
    if norm == "l2":
        return ((gaps**2 / counts).sum() / total).sqrt()
    return (gaps / counts).max().where(total > 0, torch.nan)
