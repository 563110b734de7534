"""Smoothing towards something else than the uniform distribution."""

from functools import partial

from torch import Tensor

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.fused_smoothing import Smoothing, smoothing_loss
from ls_lightning.functional.options import Input, Reduction, WeightMode, compute_dtype
from ls_lightning.functional.targets import per_class


def prior_smoothing(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    prior: Tensor,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy with a target that gives eps to a prior instead of to all classes alike.

    .. math:: \ell = -(1-\epsilon)\,lp_y - \epsilon \textstyle\sum_k \pi_k\,lp_k

    Args:
        logits: `(N, K)` or `(N, K, d1, ...)`, K at least 2. -inf masks a class: the prior is that of the
            classes still available in that row.
        target: class indices `(N, d1, ...)`, or distributions of the logits' shape.
        eps: in [0, 1), see [`smooth_targets`]; 0 is cross-entropy.
        prior: one for all samples, `(K,)`; or one for each true class y in row y of `(K, K)`, of which a
            target distribution takes the average over its mass. Not negative; scaled to sum 1, so counts
            are right too. A uniform one is [`smoothed_cross_entropy`].
        weight: per class `(K,)`, not negative.
        weight_mode: as in [`smoothed_cross_entropy`].
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there; a prior that is not floating point.
        ValueError: as there; a prior whose shape does not fit.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([1])
        >>> prior_smoothing(logits, target, eps=0.1, prior=torch.tensor([0.7, 0.2, 0.1]))
        tensor(0.5576)

    Source: Pereyra et al. 2017, arXiv:1701.06548 (unigram smoothing); rows by class:
        Bertinetto et al. 2020, arXiv:1912.09393.
    """
    if not prior.is_floating_point():
        raise TypeError(f"prior must be floating point, got {prior.dtype}: pass prior.float().")
    num_classes = logits.shape[1] if logits.ndim > 1 else 0
    if tuple(prior.shape) not in ((num_classes,), (num_classes, num_classes)):
        raise ValueError(
            f"prior must be (K,) or (K, K) for logits (N, K, ...), got prior {tuple(prior.shape)} and logits "
            f"{tuple(logits.shape)}."
        )
    prior = prior.to(compute_dtype(logits))
    sums = prior.sum(-1, keepdim=True)
    prior = prior / sums.masked_fill(sums == 0, 1)
    per_sample = partial(_prior_smoothing, prior=prior)
    if prior.ndim == 2:
        return class_loss(per_sample, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input)
    smoothing = Smoothing(per_sample, prior=prior)
    return smoothing_loss(smoothing, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input)


def _prior_smoothing(terms: Terms, prior: Tensor) -> Tensor:
    rows = per_class(prior, terms.log_probs.ndim) if prior.ndim == 1 else terms.target.rows(prior)
    share = rows * terms.available
    total = share.sum(1)
    eps = (total > 0).to(total.dtype) * terms.eps  # with no class left to take it, the mass stays
    each = share * terms.finite
    if terms.class_weight is not None:
        each = terms.class_weight * each
    return (1 - eps) * terms.true - eps * each.sum(1) / total.masked_fill(total == 0, 1)
