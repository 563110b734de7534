"""Negative label smoothing."""

from torch import Tensor

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.eps import NEGATIVE_EPS
from ls_lightning.functional.options import Input, Reduction, WeightMode


def negative_smoothing(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = -0.4,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy with a target that takes mass away from all classes and gives it to the true one.

    .. math:: \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k, \qquad \epsilon < 0

    The smoothed cross-entropy, with eps on the other side of 0. It has no lower bound: from the first step
    on it drives the logits apart, so train with cross-entropy before.

    Args:
        logits: as in [`smoothed_cross_entropy`].
        target: as there.
        eps: 0 or below, -0.4 to -6 is usual; a number or a tensor as there; 0 is cross-entropy.
        weight: as there.
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there; eps is above 0.

    Example:
        >>> import torch
        >>> negative_smoothing(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([1]), eps=-0.4)
        tensor(0.0076)

    Source: Wei et al. 2022, arXiv:2106.04149.
    """
    return class_loss(
        _negative, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input, NEGATIVE_EPS
    )


def _negative(terms: Terms) -> Tensor:
    return (1 - terms.eps) * terms.true + terms.eps * terms.rest
