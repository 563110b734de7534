"""Label smoothing: the target, and the losses over K classes (one function per sample each)."""

import torch
from torch import Tensor

from ls_lightning.functional.binary import smoothed_binary_cross_entropy_with_logits
from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.fused_quick import quick_loss
from ls_lightning.functional.fused_smoothing import Smoothing, smoothing_loss
from ls_lightning.functional.options import Input, Reduction, Spread, WeightMode, check_options
from ls_lightning.functional.targets import read_target

__all__ = [
    "smooth_targets",
    "smoothed_binary_cross_entropy_with_logits",
    "smoothed_cross_entropy",
    "smoothed_kl_div",
    "soft_cross_entropy",
]


def smooth_targets(target: Tensor, eps: float | Tensor, num_classes: int, *, spread: Spread = "all") -> Tensor:
    r"""Move the mass `eps` from the true class evenly to all classes, or to the others.

    .. math::
        q = (1-\epsilon)\,t + \epsilon / K \quad\text{(all)} \qquad
        q = (1-\epsilon)\,t + \epsilon\,(1-t) / (K-1) \quad\text{(others)}

    with t the one-hot target or the given distribution. Smoothing by e1 and then by e2 is smoothing once
    by 1-(1-e1)(1-e2) (all), and smoothing commutes with mixup and CutMix.

    Args:
        target: class indices `(N, d1, ...)` or distributions `(N, K, d1, ...)`.
        eps: in [0, 1); 0 returns the target, 0.1 is usual. A number, or a tensor: 0-d, one per class
            `(K,)` or `(1, K)`, one per sample `(N, 1, ...)` or of the class indices' shape. Per class, a
            distribution t is smoothed by sum_k t_k eps_k. A tensor's values are not checked.
        num_classes: K, at least 2.
        spread: `"all"` or `"others"`. The latter leaves the true class exactly 1-eps, equals `"all"` with
            eps K/(K-1), and is meaningful up to eps = (K-1)/K.

    Returns:
        Distributions `(N, K, d1, ...)` in float32 or better; each sums to 1 over K.

    Raises:
        TypeError: class indices that are not integers; an eps that is neither number nor float tensor.
        ValueError: eps, num_classes, a class index or a shape does not fit.

    Example:
        >>> smooth_targets(torch.tensor([2]), eps=0.3, num_classes=3)
        tensor([[0.1000, 0.1000, 0.8000]])
        >>> smooth_targets(torch.tensor([2]), eps=0.3, num_classes=3, spread="others")
        tensor([[0.1500, 0.1500, 0.7000]])

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; others: Vaswani et al. 2017, arXiv:1706.03762.
    """
    check_options(spread=spread)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    distribution = target.is_floating_point()
    shape = tuple(target.shape) if distribution else (*target.shape[:1], num_classes, *target.shape[1:])
    if target.ndim < 1 + distribution or shape[1] != num_classes:
        raise ValueError(
            f"target must hold class indices (N, d1, ...) or distributions (N, {num_classes}, d1, ...), "
            f"got {target.dtype} of shape {tuple(target.shape)} with num_classes={num_classes}."
        )
    dtype = torch.promote_types(
        target.dtype if distribution else torch.get_default_dtype(),
        eps.dtype if isinstance(eps, Tensor) else torch.float32,
    )
    dtype = torch.promote_types(dtype, torch.float32)
    read = read_target(target, shape, dtype, ignore_index=None)
    level = read.eps(eps, shape, dtype)
    if isinstance(level, Tensor) and level.ndim:
        level = level.unsqueeze(1)
    dense = read.dense(dtype)
    share = (1 - dense) / (num_classes - 1) if spread == "others" else 1 / num_classes
    return (1 - level) * dense + level * share


def smoothed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    spread: Spread = "all",
    input: Input = "logits",
    consume_logits: bool = False,
    statistics: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy with the smoothed target.

    .. math::
        \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k
             = \mathrm{CE} + \epsilon\,(z_y - \bar z), \qquad lp = \log\mathrm{softmax}(z)

    Without class weights it is `torch.nn.functional.cross_entropy(label_smoothing=eps)`. Its optimum is
    p_y = 1 - eps + eps/K, where it equals the entropy of the target, not 0. Arithmetic is in float32 or
    better, also under autocast. With class indices the gradient is computed in the forward pass, and kept for
    the backward pass in memory of the logits' size; a second derivative takes longer.

    Args:
        logits: `(N, K)` or `(N, K, d1, ...)`, K at least 2. -inf masks a class: eps is shared by the
            classes still available in that row. A masked true class gives inf.
        target: class indices `(N, d1, ...)`, or distributions of the logits' shape.
        eps: in [0, 1), see [`smooth_targets`]; 0 is plain cross-entropy.
        weight: per class `(K,)`, not negative.
        weight_mode: `"sample"` weights each sample by w_y (a distribution t by sum_k t_k w_k) and the mean
            divides by the sum of these weights, so that the optimum stays at the smoothed target.
            `"torch"` is `torch.nn.CrossEntropyLoss`: it weights every class of the smoothed target, which
            moves the optimum (pytorch issue 104776); the mean divides by sum w_y for class indices, by the
            number of samples for distributions.
        ignore_index: a class index that is left out, of the mean's denominator as well. A target of
            distributions has none: it takes only negative values.
        reduction: `"mean"`, `"sum"`, `"none"`, or `"batchmean"`: the sum divided by N, ignored or not.
        spread: over `"all"` classes, or over the K-1 `"others"`.
        input: `"logits"`, or `"log_probs"` for what went through log_softmax already.
        consume_logits: whether the backward pass may write the gradient over the logits, which saves their size
            in memory. They are not to be used after it; where torch needs them, it says so by a RuntimeError.
        statistics: float32 `(4, S)`, contiguous, on the logits' device, for the S class indices in their order; written
            to in the same pass, for `update_statistics` of the metrics. Its lines: the label's negative log-likelihood,
            not smoothed, or NaN where logits are NaN, +inf or all -inf; log((1-p)/p) of the largest probability p; the
            sum of the squared probabilities; 1 where the label is the first class of the largest logit, 0 where not,
            -1 where ignored.

    Returns:
        A 0-d tensor, or `(N, d1, ...)` for `"none"`; float32, or float64 for float64 logits. If nothing
        counts (all ignored, or N = 0) it is 0 with zero gradient.

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: eps, an option, a shape or, on the CPU, a class index that does not fit; `consume_logits`
            where the logits are a parameter or an input, a leaf of the graph; `statistics` of another shape, dtype or
            device, or for distributions, log-probabilities or transforms of `torch.func`, of which there are none.

    Example:
        >>> logits, target = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3])
        >>> smoothed_cross_entropy(logits, target, eps=0.1)
        tensor(1.3669)

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    if weight is None and input == "logits" and not consume_logits:
        options = weight_mode, ignore_index, reduction, spread, statistics
        loss = quick_loss(_cross_entropy, False, logits, target, eps, *options)
        if loss is not None:
            return loss
    return smoothing_loss(
        Smoothing(_cross_entropy, consume=consume_logits),
        logits,
        target,
        eps,
        weight,
        weight_mode,
        ignore_index,
        reduction,
        spread,
        input,
        statistics,
    )


def smoothed_kl_div(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    spread: Spread = "others",
    input: Input = "logits",
    consume_logits: bool = False,
    statistics: Tensor | None = None,
) -> Tensor:
    r"""Kullback-Leibler divergence of the prediction from the smoothed target.

    .. math::
        \ell = \mathrm{KL}(q\,\|\,p) = \textstyle\sum_k q_k\,(\log q_k - lp_k)
             = \mathrm{CE}(q, p) - H(q)

    The gradient of the smoothed cross-entropy of the same `spread`, but its minimum is 0 for every eps:
    under a schedule this is the curve to look at.

    Args:
        logits: as in [`smoothed_cross_entropy`].
        target: as there.
        eps: as there.
        weight: as there.
        weight_mode: as there; `"torch"` weights the terms of the sum over k.
        ignore_index: as there.
        reduction: as there. `"mean"` is over samples (`torch.nn.functional.kl_div` calls that
            `"batchmean"`, its `"mean"` is over elements).
        spread: over the K-1 `"others"` (the default here) or over `"all"` classes.
        input: as there; the gradient with respect to log-probabilities is -q.
        consume_logits: as there.
        statistics: as there.

    Returns:
        As there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> logits, target = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3])
        >>> smoothed_kl_div(logits, target, eps=0.1, reduction="batchmean")
        tensor(0.9328)

    Source: Vaswani et al. 2017, arXiv:1706.03762, as in the Annotated Transformer.
    """
    if weight is None and input == "logits" and not consume_logits:
        options = weight_mode, ignore_index, reduction, spread, statistics
        loss = quick_loss(_kl_div, True, logits, target, eps, *options)
        if loss is not None:
            return loss
    return smoothing_loss(
        Smoothing(_kl_div, divergence=True, consume=consume_logits),
        logits,
        target,
        eps,
        weight,
        weight_mode,
        ignore_index,
        reduction,
        spread,
        input,
        statistics,
    )


def soft_cross_entropy(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.5,
    *,
    normalized: bool = False,
    weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Cross-entropy plus a multiple of the uniform cross-entropy.

    .. math::
        \ell = -lp_y - \tfrac{\epsilon}{1-\epsilon}\,\tfrac1K \textstyle\sum_k lp_k
             = \mathrm{LS}_\epsilon / (1-\epsilon)

    eps = 1/2 is CE + uniform CE. The gradient, and so the learning rate, is 1/(1-eps) times that of
    smoothing; `normalized=True` multiplies by 1-eps and is the smoothed cross-entropy.

    Args:
        logits: as in [`smoothed_cross_entropy`].
        target: as there.
        eps: as there; the uniform term has the weight eps/(1-eps).
        normalized: multiply by 1-eps.
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
        >>> logits, target = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3])
        >>> soft_cross_entropy(logits, target), soft_cross_entropy(logits, target, normalized=True)
        (tensor(2.7538), tensor(1.3769))

    Source: the sum of two criteria found in many training scripts; normalised: Szegedy et al. 2016.
    """
    per_sample = _cross_entropy if normalized else _unnormalized
    return class_loss(per_sample, logits, target, eps, weight, weight_mode, ignore_index, reduction, "all", input)


def _cross_entropy(terms: Terms) -> Tensor:
    return (1 - terms.eps) * terms.true + terms.eps * terms.rest


def _kl_div(terms: Terms) -> Tensor:
    return _cross_entropy(terms) - terms.entropy()


def _unnormalized(terms: Terms) -> Tensor:
    return terms.true + terms.eps / (1 - terms.eps) * terms.rest
