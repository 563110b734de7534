"""Which calls of a smoothing loss go the fast way; all others go the clear one."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ls_lightning.functional.class_loss import Terms, check_shapes, class_loss
from ls_lightning.functional.fused_ce import Problem, fused_loss, may_read
from ls_lightning.functional.fused_layout import arrange_rows, layout_of
from ls_lightning.functional.fused_rows import Number, SmoothedTarget
from ls_lightning.functional.options import Input, Reduction, Spread, WeightMode, check_options, compute_dtype
from ls_lightning.functional.reduction import RowWeights
from ls_lightning.functional.targets import Target, read_target


class Smoothing(NamedTuple):
    """A loss that is linear in the log-probabilities: cross-entropy with (1-eps) onehot + eps prior.

    Attributes:
        clear: the same of [`Terms`], by operations that torch differentiates.
        divergence: whether the entropy of that distribution is taken from it.
        prior: `(K,)` with the sum 1, or 0; None for all classes alike.
        consume: whether the backward pass may overwrite the logits.
    """

    clear: Callable[[Terms], Tensor]
    divergence: bool = False
    prior: Tensor | None = None
    consume: bool = False


def smoothing_loss(
    smoothing: Smoothing,
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor,
    weight: Tensor | None,
    weight_mode: WeightMode,
    ignore_index: int,
    reduction: Reduction,
    spread: Spread,
    input: Input,
) -> Tensor:
    """Return the loss by [`class_loss`], or what comes to the same in less time and memory."""
    check_options(weight_mode=weight_mode, reduction=reduction, spread=spread, input=input)

    def clear(logits: Tensor) -> Tensor:
        return class_loss(
            smoothing.clear, logits, target, eps, weight, weight_mode, ignore_index, reduction, spread, input
        )

    if input != "logits" or not _is_plain(logits, target, eps, weight, smoothing.prior):
        return clear(logits)
    check_shapes(logits, target, weight)
    layout = layout_of(logits)
    if layout is None:
        logits, layout = logits.contiguous(), "space"
    if smoothing.consume and logits.is_leaf and logits.requires_grad:
        raise ValueError(
            "consume_logits=True overwrites the logits in the backward pass, got logits that are a leaf of the "
            "graph: a parameter or an input. Leave it at False for them."
        )
    shape, dtype = tuple(logits.shape), compute_dtype(logits)
    read = _read_index(target, shape, dtype, ignore_index)
    weight = None if weight is None else weight.to(dtype)
    weights = RowWeights.of(read, weight, weight_mode, dtype)
    by_class = weight is not None and weight_mode == "torch"
    level = read.eps(eps, shape, dtype)

    def rows(values: Tensor) -> Tensor:
        return arrange_rows(values if values.shape == weights.shape else values.expand(weights.shape), layout)

    smoothed = SmoothedTarget(
        label=rows(read.value),
        valid=None if read.valid is None else rows(read.valid),
        eps=_number(level) if not isinstance(level, Tensor) or level.ndim == 0 else rows(level),
        others=spread == "others",
        prior=None if smoothing.prior is None else smoothing.prior.to(dtype).view(1, -1, 1),
        weight=weight.view(1, -1, 1) if weight is not None and by_class else None,
        own_weight=rows(read.expectation(weight)) if weight is not None and by_class else 1.0,
        divergence=smoothing.divergence,
        num_classes=read.num_classes,
    )
    return fused_loss(logits, Problem(layout, read, smoothed, weights, reduction, smoothing.consume, clear))


_PLAIN = (Tensor, torch.nn.Parameter)


def _is_plain(logits: Tensor, target: Tensor, *constants: float | Tensor | None) -> bool:
    """Whether these are tensors in memory, the target class indices, and none but the logits needs a gradient."""
    if type(logits) not in _PLAIN or type(target) is not Tensor or logits.device.type not in ("cpu", "cuda"):
        return False
    if target.ndim != logits.ndim - 1 or target.is_floating_point() or logits.numel() == 0:
        return False
    for value in constants:
        if isinstance(value, Tensor) and (value.requires_grad or type(value) not in _PLAIN):
            return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return logits.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled()


def _read_index(target: Tensor, shape: tuple[int, ...], dtype: torch.dtype, ignore_index: int) -> Target:
    """Read class indices; where a look shows that none is ignored, without marks for those that are."""
    read = read_target(target, shape, dtype, None)
    if ignore_index < 0 and may_read(target) and read.value.amin().item() >= 0:
        return read
    return read_target(target, shape, dtype, ignore_index)


def _number(eps: Number) -> Number:
    return eps.item() if isinstance(eps, Tensor) and may_read(eps) else eps
