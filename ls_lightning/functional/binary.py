"""Label smoothing with one logit per label: binary and multi-label."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional.eps import align_eps
from ls_lightning.functional.options import Input, Reduction, check_options, compute_dtype
from ls_lightning.functional.reduction import reduce


def smoothed_binary_cross_entropy_with_logits(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    input: Input = "logits",
) -> Tensor:
    r"""Binary cross-entropy with the smoothed target, for every label by itself.

    .. math::
        \ell = -w\,[\,w^+ y_s \log\sigma(z) + (1-y_s) \log\sigma(-z)\,], \qquad
        y_s = (1-\epsilon)\,y + \epsilon/2

    It is `torch.nn.functional.binary_cross_entropy_with_logits` on y_s, and the smoothed cross-entropy
    over the two classes with logits (0, z). Arithmetic is in float32 or better, also under autocast.

    Args:
        logits: `(N,)` for binary, `(N, L)` or `(N, L, d1, ...)` for L labels. An infinite logit masks the
            other outcome: no eps goes there.
        target: of the logits' shape, 0 or 1 or between, of any real dtype.
        eps: in [0, 1), 0.01 to 0.1 is usual; a number, or a tensor: 0-d, one per label `(L,)` or `(1, L)`,
            one per sample `(N, 1, ...)`, or of the logits' shape. A tensor's values are not checked.
        weight: broadcasts over the logits.
        pos_weight: weight of the positive term; broadcasts over the logits; moves the optimum, as in torch.
        ignore_index: elements where the target has this value are left out.
        reduction: `"mean"` divides by the number of elements that are not ignored, whatever their weights
            (as torch does); `"sum"`; `"none"`; `"batchmean"` divides the sum by N.
        input: `"logits"`, or `"log_probs"` for log P(y=1), which is logsigmoid(z).

    Returns:
        A 0-d tensor, or one of the logits' shape for `"none"`; float32, or float64 for float64 logits. If
        nothing counts (all ignored, or N = 0) it is 0 with zero gradient.

    Raises:
        TypeError: logits or an eps that are not floating point.
        ValueError: eps, an option or a shape that does not fit.

    Example:
        >>> logits, target = torch.tensor([0.3, -1.2, 2.0, -0.5]), torch.tensor([1, 0, 1, 0])
        >>> smoothed_binary_cross_entropy_with_logits(logits, target, eps=0.1)
        tensor(0.4047)

    Source: Zhang et al. 2019, arXiv:1902.04103; `smooth_BCE` of YOLO.
    """
    check_options(reduction=reduction, input=input)
    dtype, shape = compute_dtype(logits), tuple(logits.shape)
    if not shape or target.shape != shape:
        raise ValueError(
            "logits and target must have the same shape, (N,) or (N, L, d1, ...), "
            f"got logits {shape} and target {tuple(target.shape)}."
        )
    target = target.to(dtype)
    valid = target != ignore_index
    target = target.masked_fill(~valid, 0)
    # An ignored element, whatever it holds, becomes an even chance.
    logits = logits.masked_fill(~valid, 0 if input == "logits" else -math.log(2))
    positive, negative = _log_probabilities(logits.to(dtype), input)
    positive_mass, negative_mass = _smoothed(target, eps, positive, negative)
    if pos_weight is not None:
        positive_mass = positive_mass * _broadcast("pos_weight", pos_weight, shape, dtype)
    loss = -(_times(positive_mass, positive) + _times(negative_mass, negative))
    if weight is not None:
        loss = _times(_broadcast("weight", weight, shape, dtype), loss)
    loss = loss.masked_fill(~valid, 0)
    return reduce(loss, valid.to(dtype), reduction)


def _smoothed(target: Tensor, eps: float | Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smoothed target's mass on 1 and on 0; eps is 0 where one of the two is masked."""
    shape = tuple(target.shape)
    level = align_eps(eps, shape if len(shape) > 1 else (*shape, 1), shape, target.dtype)
    if len(shape) == 1 and isinstance(level, Tensor) and level.ndim:
        level = level.squeeze(1)
    open_to_both = ((positive != -torch.inf) & (negative != -torch.inf)).to(target.dtype)
    mass = target + level * open_to_both * (0.5 - target)
    return mass, 1 - mass


def _log_probabilities(values: Tensor, input: Input) -> tuple[Tensor, Tensor]:
    """Return log P(y=1) and log P(y=0)."""
    if input == "logits":
        return F.logsigmoid(values), F.logsigmoid(-values)
    # log(1 - exp(x)) in the form that is accurate on each side of -log 2; the values replaced by -log 2
    # keep the branch not taken, and certainty (x = 0), from an infinite gradient.
    certain, near = values == 0, values > -math.log(2)
    below = torch.log1p(-values.masked_fill(near, -math.log(2)).exp())
    above = torch.log(-torch.expm1(values.masked_fill(~near | certain, -math.log(2))))
    return values, torch.where(near, above, below).masked_fill(certain, -torch.inf)


def _times(factor: Tensor, values: Tensor) -> Tensor:
    """Multiply, with 0 * inf = 0."""
    return factor * values.masked_fill((factor == 0) & values.isinf(), 0)


def _broadcast(name: str, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Refuse weights that do not broadcast over the logits, or that would make the loss larger."""
    trailing = shape[len(shape) - values.ndim :]
    if values.ndim > len(shape) or any(g not in (1, s) for g, s in zip(values.shape, trailing, strict=True)):
        raise ValueError(f"{name} must broadcast over logits {shape}, got shape {tuple(values.shape)}.")
    return values.to(dtype)
