"""Label relaxation: every prediction that gives the true class enough is right."""

import torch
from torch import Tensor

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.options import Input, Reduction, WeightMode


def label_relaxation(
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
    r"""Divergence from the nearest target that gives the true class 1 - eps.

    .. math::
        \ell = 0 \text{ if } p_y \ge 1-\epsilon, \text{ else } \mathrm{KL}(r\,\|\,p), \qquad
        r_y = 1-\epsilon, \quad r_k = \epsilon\,p_k / \textstyle\sum_{j \ne y} p_j

    with r held fixed in the gradient. Smoothing says how eps is shared by the other classes; here the
    network decides, and what is confident enough is left alone.

    Args:
        logits: `(N, K)` or `(N, K, d1, ...)`, K at least 2; -inf masks a class. A masked true class gives inf.
        target: class indices `(N, d1, ...)`. A distribution has no true class and is refused.
        eps: in [0, 1), see [`smooth_targets`]; 0 is cross-entropy.
        weight: per class `(K,)`, not negative.
        weight_mode: as in [`smoothed_cross_entropy`]; `"torch"` weights the terms of the sum over k.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there; the target holds distributions.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0, 1.0], [0.0, 9.0, 1.0]])
        >>> label_relaxation(logits, torch.tensor([1, 1]), eps=0.1, reduction="none")
        tensor([0.1512, 0.0000])

    Source: Lienen and Hüllermeier 2021, "From Label Smoothing to Label Relaxation", AAAI.
    """
    return class_loss(
        _label_relaxation, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input
    )


def _label_relaxation(terms: Terms) -> Tensor:
    if terms.target.is_distribution:
        raise ValueError(
            "loss=relaxation needs class indices: a target distribution has no true class to relax, got one of shape "
            f"{tuple(terms.target.value.shape)}. Use loss=ce with mixup and the like."
        )
    true = terms.target.dense(terms.log_probs.dtype).bool()
    log_probs = terms.finite
    log_target = _log_target(terms, true)
    target = log_target.exp()
    each = target * (log_target.masked_fill(target == 0, 0) - log_probs)
    if terms.class_weight is not None:
        each = terms.class_weight * each
    enough = terms.target.expectation(terms.log_probs).exp() >= 1 - terms.eps
    return each.sum(1).masked_fill(terms.true.isinf(), torch.inf).masked_fill(enough, 0)


def _log_target(terms: Terms, true: Tensor) -> Tensor:
    """Logarithm of r, which takes no gradient to the prediction; -inf for a class that is masked."""
    log_probs = terms.log_probs.detach().masked_fill(true, -torch.inf)
    others = log_probs.logsumexp(1, keepdim=True)
    share = log_probs - others.masked_fill(others == -torch.inf, 0)
    eps = terms.per_class(terms.eps)
    if not isinstance(eps, Tensor):
        eps = share.new_full((), eps)
    return torch.where(true, torch.log1p(-eps), eps.log() + share)
