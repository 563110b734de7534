"""Which calls of a smoothing loss go the fast way; all others go the clear one."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ls_lightning.functional.class_loss import Terms, check_shapes, class_loss
from ls_lightning.functional.fused_ce import Problem, fused_loss
from ls_lightning.functional.fused_express import express_loss
from ls_lightning.functional.fused_layout import Layout, arrange_rows, layout_of
from ls_lightning.functional.fused_rows import SmoothedTarget, may_read
from ls_lightning.functional.fused_tiny import is_tiny, tiny_loss
from ls_lightning.functional.fused_vmap import IGNORED, can_be_stacked, stacked_losses
from ls_lightning.functional.options import Input, Reduction, Spread, WeightMode, check_options, compute_dtype
from ls_lightning.functional.reduction import RowWeights
from ls_lightning.functional.row_statistics import check_statistics, write_statistics
from ls_lightning.functional.targets import Target, explain_index_error, read_target


class Smoothing(NamedTuple):
    """A loss that is linear in the log-probabilities: cross-entropy with (1-eps) onehot + eps prior.

    Attributes:
        clear: the same of [`Terms`], by operations that torch differentiates.
        divergence: whether the entropy of that distribution is taken from it.
        prior: `(K,)` with the sum 1, or 0, in the dtype of the arithmetic; None for all classes alike.
        consume: whether the backward pass may overwrite the logits.
    """

    clear: Callable[[Terms], Tensor]
    divergence: bool = False
    prior: Tensor | None = None
    consume: bool = False

    @property
    def is_usual(self) -> bool:
        """Whether nothing is said of single classes or of memory."""
        return self.prior is None and not self.consume


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
    statistics: Tensor | None = None,
) -> Tensor:
    """Return the loss by [`class_loss`], or what comes to the same in less time and memory."""
    check_options(weight_mode=weight_mode, reduction=reduction, spread=spread, input=input)
    if statistics is not None:
        check_statistics(statistics, logits, target, input)

    def clear(logits: Tensor) -> Tensor:
        return class_loss(
            smoothing.clear, logits, target, eps, weight, weight_mode, ignore_index, reduction, spread, input
        )

    if input != "logits" or not _is_plain(logits, target, eps, weight, smoothing.prior):
        value = clear(logits)
        if statistics is not None:
            write_statistics(statistics, logits, target, ignore_index)
        return value
    check_shapes(logits, target, weight)
    if torch._C._are_functorch_transforms_active():
        if weight is not None or smoothing.prior is not None or not can_be_stacked(logits, eps):
            return clear(logits)
        return _stacked(smoothing, logits, target, eps, ignore_index, reduction, spread)
    if smoothing.consume and logits.is_leaf and logits.requires_grad:
        raise ValueError(
            "consume_logits=True overwrites the logits in the backward pass, got logits that are a leaf of the "
            "graph: a parameter or an input. Leave it at False for them."
        )
    if weight is None and smoothing.prior is None:
        options = ignore_index, spread == "others", smoothing.divergence, reduction, smoothing.consume
        loss = express_loss(logits, target, eps, *options, clear, statistics)
        if loss is not None:
            return loss
    read, dtype = _read_index(target, logits, ignore_index), compute_dtype(logits)
    level = read.eps(eps, tuple(logits.shape), dtype)
    if isinstance(level, Tensor) and level.ndim == 0 and may_read(level):
        level = level.item()
    weight = None if weight is None else weight.to(dtype)
    weights = RowWeights.of(read, weight, weight_mode, dtype)
    try:
        if weight is None and smoothing.is_usual and isinstance(level, float) and is_tiny(logits):
            slope, others = weights.slope(reduction), spread == "others"
            if isinstance(slope, float) and reduction != "none":
                loss = tiny_loss(logits, read.value, level, others, smoothing.divergence, slope, clear)
                if loss is not None:
                    if statistics is not None:
                        write_statistics(statistics, logits, target, ignore_index)
                    return loss
        layout = layout_of(logits)
        if layout is None:
            logits, layout = logits.contiguous(), "space"
        smoothed = _smoothed(smoothing, read, level, weight if weight_mode == "torch" else None, spread, layout)
        return fused_loss(logits, Problem(layout, smoothed, weights, reduction, smoothing.consume, clear, statistics))
    except RuntimeError as error:
        raise explain_index_error(read.value, read.num_classes, error) from None


def _smoothed(
    smoothing: Smoothing, read: Target, eps: float | Tensor, weight: Tensor | None, spread: Spread, layout: Layout
) -> SmoothedTarget:
    """Lay out what the target is smoothed to; `weight` is that of the classes, not of the samples."""
    if isinstance(eps, Tensor) and eps.ndim:
        eps = arrange_rows(eps.expand(read.value.shape), layout)
    return SmoothedTarget(
        label=arrange_rows(read.value, layout),
        valid=None if read.valid is None else arrange_rows(read.valid, layout),
        eps=eps,
        others=spread == "others",
        prior=None if smoothing.prior is None else smoothing.prior.view(1, -1, 1),
        weight=None if weight is None else weight.view(1, -1, 1),
        own_weight=1.0 if weight is None else arrange_rows(read.expectation(weight), layout),
        divergence=smoothing.divergence,
        num_classes=read.num_classes,
    )


def _stacked(
    smoothing: Smoothing,
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor,
    ignore_index: int,
    reduction: Reduction,
    spread: Spread,
) -> Tensor:
    def clear(logits: Tensor, target: Tensor, eps: Tensor) -> Tensor:
        return class_loss(smoothing.clear, logits, target, eps, None, "sample", IGNORED, "none", spread, "logits")

    read = read_target(target, tuple(logits.shape), compute_dtype(logits), ignore_index)
    losses = stacked_losses(read, logits, eps, spread == "others", smoothing.divergence, clear)
    return RowWeights.of(read, None, "sample", losses.dtype).reduce(losses, reduction)


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
    if torch.compiler.is_compiling() or _is_traced():
        return False
    if forward_ad._current_level >= 0:
        return False
    return logits.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled()


def _is_traced() -> bool:
    """Whether what happens is written down to be run again."""
    key = torch._C._TorchDispatchModeKey.PROXY
    return torch._C._get_tracing_state() is not None or torch._C._get_dispatch_mode(key) is not None


def _read_index(target: Tensor, logits: Tensor, ignore_index: int) -> Target:
    """Read class indices; where a look shows that none is ignored, without marks for those that are."""
    shape, dtype = tuple(logits.shape), compute_dtype(logits)
    read = read_target(target, shape, dtype, None)
    if ignore_index < 0 and may_read(target) and read.value.amin().item() >= 0:
        return read
    return read_target(target, shape, dtype, ignore_index)
