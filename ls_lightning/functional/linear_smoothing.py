"""Smoothed cross-entropy of a linear layer whose logits are never all in memory: for large vocabularies."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ls_lightning.functional.linear_chunks import Problem
from ls_lightning.functional.linear_ops import clear_losses, linear_smoothed_each, linear_smoothed_sum
from ls_lightning.functional.options import Reduction, Spread, WeightMode, check_options, compute_dtype
from ls_lightning.functional.reduction import reduce
from ls_lightning.functional.targets import Target, read_target


def linear_smoothed_cross_entropy(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    bias: Tensor | None = None,
    prior: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight_mode: WeightMode = "sample",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    spread: Spread = "all",
) -> Tensor:
    r"""Smoothed cross-entropy of the logits `input @ weight.T + bias`, without holding them.

    .. math::
        \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k, \qquad
        lp = \log\mathrm{softmax}(W x + b)

    [`smoothed_cross_entropy`] of `F.linear(input, weight, bias)`. It goes through the samples in chunks and computes
    the gradients together with the loss, so that next to them it needs the memory of one chunk of logits (32 MB
    or 256 samples; at least 1,024 samples on a GPU). `reduction="none"` computes the logits once more in the backward.

    Under autocast the products of matrices are in its dtype; softmax and the sum of the weight's gradient are in
    float32 or better. Second derivatives, `torch.func` and forward-mode derivatives go by way of all the logits, and so
    does an eps, prior or class_weight that requires grad.

    Args:
        input: `(N, d1, ..., H)`, what goes into the last layer.
        weight: of the last layer, `(K, H)`, K at least 2.
        target: class indices `(N, d1, ...)`.
        eps: in [0, 1). A number, or a tensor: 0-d, one per class `(K,)` or `(1, K)`, one per sample
            `(N, 1, ...)` or of the target's shape. A tensor's values are not checked.
        bias: of the last layer, `(K,)`; -inf masks a class, as a logit of -inf in [`smoothed_cross_entropy`].
        prior: `(K,)`, not negative: eps goes to the classes in these shares, as in [`prior_smoothing`].
        class_weight: per class `(K,)`, not negative.
        weight_mode: as in [`smoothed_cross_entropy`].
        ignore_index: as there.
        reduction: as there.
        spread: as there; a prior goes with `"all"`.

    Returns:
        A 0-d tensor, or `(N, d1, ...)` for `"none"`; float32, or float64 for float64 inputs. If nothing
        counts (all ignored, or N = 0) it is 0 with zero gradient.

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: eps, an option, a shape or, on the CPU, a class index that does not fit.

    Example:
        >>> input, weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.1, 0.1], [0.2, 0.1], [0.3, 0.1]])
        >>> linear_smoothed_cross_entropy(input, weight, torch.tensor([2, 0]), eps=0.1)
        tensor(1.0553)

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; gradients in the forward, chunk by chunk:
        Hsu et al. 2024, arXiv:2410.10989 (Liger Kernel).
    """
    check_options(weight_mode=weight_mode, reduction=reduction, spread=spread)
    dtype = _product_dtype(input, weight)
    _check_shapes(input, weight, target, bias=bias, prior=prior, class_weight=class_weight)
    if prior is not None and spread != "all":
        raise ValueError(
            f"a prior says itself which classes eps goes to, got spread={spread!r} besides. Leave it away."
        )
    read = read_target(
        target, (target.shape[0], weight.shape[0], *target.shape[1:]), compute_dtype(input), ignore_index
    )
    share = torch.ones_like(weight[:, 0]) if prior is None else prior
    share = (share if bias is None else share.masked_fill(bias == -torch.inf, 0)).to(compute_dtype(input))
    true, rest = _mass(read, eps, share, spread)
    counts = torch.ones_like(true) if read.valid is None else read.valid.to(true.dtype)
    if class_weight is not None:
        of_sample = read.expectation(class_weight.to(true.dtype))
        counts, true = counts * of_sample, true * of_sample
        share, rest = (share * class_weight, rest) if weight_mode == "torch" else (share, rest * of_sample)
    if read.valid is not None:
        true, rest = (part.masked_fill(~read.valid, 0) for part in (true, rest))
    input = input.masked_fill(((true == 0) & (rest == 0)).unsqueeze(-1), 0)  # what does not count may be nan
    true, rest, index, input = true.flatten(), rest.flatten(), read.value.flatten(), input.flatten(0, -2)
    losses = _losses(Problem(input, weight, bias, index, true, rest, share, dtype), reduction != "none")
    if losses.ndim:
        return reduce(losses.view(target.shape), counts, reduction)
    if reduction == "mean":
        return reduce(losses[None], counts.sum()[None], "mean")
    return losses / max(target.shape[0], 1) if reduction == "batchmean" else losses


def _losses(problem: Problem, summed: bool) -> Tensor:
    """The losses `(N,)`, or their sum where the fused operator has their gradients at once then."""
    layer = (problem.input, problem.weight, problem.bias)
    label = (problem.index, problem.true, problem.rest, problem.share, problem.dtype)
    needs = [torch.is_grad_enabled() and part is not None and part.requires_grad for part in (*layer, *label[1:4])]
    # Derivatives that the fused operators do not have.
    if any(needs[3:]) or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return clear_losses(problem)
    found: Tensor = (
        linear_smoothed_sum(*layer, *label, needs[:3])[0] if summed else linear_smoothed_each(*layer, *label)
    )
    return found


def _product_dtype(input: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype in which F.linear would work; refuse what it would."""
    for name, tensor in (("input", input), ("weight", weight)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype} of shape {tuple(tensor.shape)}.")
    device = input.device.type
    if torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    if input.dtype != weight.dtype:
        raise TypeError(
            f"input and weight must have one dtype, got {input.dtype} and {weight.dtype}. Cast one of them."
        )
    return input.dtype


def _check_shapes(input: Tensor, weight: Tensor, target: Tensor, **vectors: Tensor | None) -> None:
    if weight.ndim != 2 or input.ndim < 2 or input.shape[-1] != weight.shape[1] or weight.shape[0] < 2:
        raise ValueError(
            "input must be (N, d1, ..., H) and weight (K, H) with K >= 2, "
            f"got input {tuple(input.shape)} and weight {tuple(weight.shape)}."
        )
    if target.shape != input.shape[:-1]:
        raise ValueError(
            f"target must hold class indices of shape {tuple(input.shape[:-1])} for input {tuple(input.shape)}, "
            f"got {tuple(target.shape)}. For distributions: smoothed_cross_entropy(F.linear(input, weight), target)."
        )
    for name, vector in vectors.items():
        if vector is not None and vector.shape != weight.shape[:1]:
            raise ValueError(
                f"{name} must be {tuple(weight.shape[:1])} for weight {tuple(weight.shape)}, got {tuple(vector.shape)}."
            )


def _mass(read: Target, eps: float | Tensor, share: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
    """The smoothed target: the mass on the true class, and the factor of `share` on all classes."""
    own = read.expectation(share)
    total = share.sum() - own if spread == "others" else share.sum()
    some = total > 0  # with no class left to take it, the mass stays
    level = some.to(share.dtype) * read.eps(eps, (*own.shape[:1], *share.shape, *own.shape[1:]), share.dtype)
    rest = (level / total.masked_fill(~some, 1)).expand_as(own)
    return 1 - level - (rest * own if spread == "others" else torch.zeros_like(own)), rest
