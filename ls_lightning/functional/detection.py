"""How well a score tells two kinds of input apart: what is known, and what is not."""

import math

import torch
from torch import Tensor


def detection_auroc(known: Tensor, unknown: Tensor) -> float:
    r"""The probability that a known input scores higher than an unknown one.

    .. math:: P(s^+ > s^-) + P(s^+ = s^-) / 2

    over all pairs of a known input :math:`s^+` and an unknown one :math:`s^-`: the area under the ROC curve with the
    known as positives. 1/2 is chance.

    Args:
        known: scores ``(N,)``; the higher, the more known.
        unknown: scores ``(M,)``.

    Returns:
        In [0, 1]; nan where one of them is empty or holds a nan.

    Example:
        >>> detection_auroc(torch.tensor([0.9, 0.8, 0.6]), torch.tensor([0.6, 0.1]))
        0.9166666666666666

    Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747; as a measure of detection Hendrycks and Gimpel
    2017, arXiv:1610.02136.
    """
    if not _comparable(known, unknown):
        return math.nan
    ordered = unknown.sort().values
    below, not_above = (torch.searchsorted(ordered, known, right=right).sum().item() for right in (False, True))
    return (below + not_above) / (2 * len(known) * len(unknown))


def detection_fpr(known: Tensor, unknown: Tensor, tpr: float = 0.95) -> float:
    r"""The share of unknown inputs that pass where at least a share ``tpr`` of the known do.

    .. math:: \frac{1}{M} \sum_i [s^-_i \ge \theta],\quad
        \theta = \max\{t : \tfrac{1}{N} \textstyle\sum_j [s^+_j \ge t] \ge \mathrm{tpr}\}

    Args:
        known: scores ``(N,)``; the higher, the more known.
        unknown: scores ``(M,)``.
        tpr: in (0, 1].

    Returns:
        In [0, 1]; nan where one of them is empty or holds a nan.

    Raises:
        ValueError: ``tpr`` is out of range.

    Example:
        >>> detection_fpr(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.75, 0.1]), tpr=0.75)
        0.5

    Source: Liang et al. 2018, arXiv:1706.02690, section 4.3.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], got {tpr}. 0.95 is usual.")
    if not _comparable(known, unknown):
        return math.nan
    passing = math.ceil(round(tpr * len(known), 9))  # 0.95 * 20 may be a hair above 19
    threshold = known.sort(descending=True).values[passing - 1]
    return (unknown >= threshold).sum().item() / len(unknown)


def _comparable(known: Tensor, unknown: Tensor) -> bool:
    return all(len(scores) > 0 and not bool(scores.isnan().any()) for scores in (known, unknown))
