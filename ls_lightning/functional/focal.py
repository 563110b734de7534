"""Focal loss: cross-entropy that counts the samples less that are classified well already."""

import torch
from torch import Tensor

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.eps import GAMMA
from ls_lightning.functional.options import Input, Reduction, WeightMode


def focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float | Tensor = 3.0,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Focal loss over K classes.

    .. math:: \ell = -(1 - p_y)^\gamma\,lp_y

    and for a target distribution t the sum over k of t_k times this. It is at least cross-entropy minus
    gamma H(p): a penalty on confidence in disguise. 1 - p is computed without cancellation, so the gradient
    is right where p rounds to 1, for every gamma.

    Args:
        logits: `(N, K)` or `(N, K, d1, ...)`, K at least 2; -inf masks a class. A masked true class gives inf.
        target: class indices `(N, d1, ...)`, or distributions of the logits' shape.
        gamma: 0 or more: 0 is cross-entropy, 1 to 5 is usual. A number, or a tensor: 0-d, per class or per
            sample, of the shapes that eps has in [`smooth_targets`]. A tensor's values are not checked.
        weight: per class `(K,)`, not negative: the alpha of the paper.
        weight_mode: as in [`smoothed_cross_entropy`].
        ignore_index: as there.
        reduction: as there. The mean is over samples, not over the sum of (1 - p_y)^gamma.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there; gamma is negative.

    Example:
        >>> focal_loss(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([1]), gamma=3.0)
        tensor(0.0153)

    Source: Lin et al. 2017, arXiv:1708.02002; for calibration: Mukhoti et al. 2020, arXiv:2002.09437.
    """
    return class_loss(_focal, logits, target, gamma, weight, weight_mode, ignore_index, reduction, "all", input, GAMMA)


def _focal(terms: Terms) -> Tensor:
    gamma = terms.per_class(terms.eps)
    focus = (gamma * _log_of_the_rest(terms)).exp()
    each = focus * terms.finite
    if terms.class_weight is not None:
        each = terms.class_weight * each
    # The sum leaves a masked true class out; `true` knows of it.
    return -terms.target.expectation(each).masked_fill(terms.true.isinf(), -torch.inf)


def _log_of_the_rest(terms: Terms) -> Tensor:
    """Logarithm of 1 - p of every class; for the largest p from the sum of the others, which does not cancel."""
    top = terms.log_probs.argmax(1, keepdim=True)
    probs = terms.log_probs.exp().scatter(1, top, 0)
    # Not -inf: where all others are masked the gradient would be nan.
    lowest = torch.finfo(probs.dtype).min / 4
    others = terms.log_probs.masked_fill(~terms.available, lowest).scatter(1, top, lowest)
    return torch.log1p(-probs).scatter(1, top, others.logsumexp(1, keepdim=True))
