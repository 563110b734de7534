"""Cross-entropy plus eps times a penalty on confident predictions, whatever the target."""

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.options import Input, Reduction, WeightMode


def max_suppression(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy plus eps times what the largest logit has over the average one.

    .. math:: \ell = -lp_y + \epsilon\,(\max_k z_k - \bar z)

    Smoothing is cross-entropy plus eps (z_y - mean z): for a sample that is classified rightly the two are
    the same. For a wrong one smoothing rewards what this penalises, the confidence in the wrong class.

    Args:
        logits: `(N, K)` or `(N, K, d1, ...)`, K at least 2. -inf masks a class, which then is neither the
            largest nor in the average.
        target: class indices `(N, d1, ...)`, or distributions of the logits' shape.
        eps: weight of the penalty in [0, 1), see [`smooth_targets`]; 0 is cross-entropy.
        weight: per class `(K,)`, not negative.
        weight_mode: `"sample"` weights cross-entropy and penalty of a sample by w_y, `"torch"` the
            cross-entropy alone; the mean divides as in [`smoothed_cross_entropy`].
        ignore_index: as in [`smoothed_cross_entropy`].
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> import torch
        >>> max_suppression(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0]), eps=0.1)
        tensor(2.5076)

    Source: Zhou et al. 2025, arXiv:2502.15798.
    """
    return class_loss(_max_suppression, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input)


def confidence_penalty(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy minus eps times the entropy of the prediction.

    .. math:: \ell = -lp_y - \epsilon\,H(p), \qquad H(p) = -\textstyle\sum_k p_k\,lp_k

    Smoothing adds KL(uniform, p), this KL(p, uniform), up to constants: it forbids no class probability
    near 0. The loss may be negative.

    Args:
        logits: as in [`max_suppression`]; a masked class has no part in the entropy.
        target: as there.
        eps: the beta of the paper, in [0, 1), as there.
        weight: as there.
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> import torch
        >>> confidence_penalty(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0]), eps=0.1)
        tensor(2.3244)

    Source: Pereyra et al. 2017, arXiv:1701.06548.
    """
    return class_loss(
        _confidence_penalty, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input
    )


def margin_smoothing(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    margin: float = 10.0,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy plus eps times how far the logits lie below the largest by more than a margin.

    .. math:: \ell = -lp_y + \epsilon\,\tfrac1K \textstyle\sum_k \max(0,\; \max_j z_j - z_k - m)

    With m = 0 it is [`max_suppression`]. A larger m leaves the logits alone until they are that far apart.

    Args:
        logits: as in [`max_suppression`].
        target: as there.
        eps: the alpha of the paper, in [0, 1), as there.
        margin: m, at least 0; 6 to 10 is usual.
        weight: as there.
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there; margin is negative.

    Example:
        >>> import torch
        >>> margin_smoothing(torch.tensor([[0.0, 9.0, 1.0]]), torch.tensor([1]), eps=0.1, margin=6.0)
        tensor(0.1671)

    Source: Liu et al. 2022, arXiv:2111.15430.
    """
    check_margin(margin)
    per_sample = partial(_margin, margin=margin)
    return class_loss(per_sample, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input)


def check_margin(margin: float) -> None:
    """Refuse a margin below 0 or nan, and what is no number."""
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise TypeError(f"margin must be a number of at least 0, got {margin!r}.")
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin must be a number of at least 0, got {margin}. 6 to 10 is usual.")


def _max_suppression(terms: Terms) -> Tensor:
    return terms.true + terms.eps * _below_largest(terms, margin=0)


def _confidence_penalty(terms: Terms) -> Tensor:
    entropy = -(terms.log_probs.exp() * terms.finite).sum(1)
    return terms.true - terms.eps * entropy


def _margin(terms: Terms, margin: float) -> Tensor:
    return terms.true + terms.eps * _below_largest(terms, margin)


def _below_largest(terms: Terms, margin: float) -> Tensor:
    """Mean over the classes of relu(max z - z - margin); differences of logits are those of log-probabilities."""
    gap = terms.log_probs.amax(1, keepdim=True) - terms.finite
    beyond = F.relu(gap - margin) if margin else gap
    return beyond.masked_fill(~terms.available, 0).sum(1) / terms.recipients
