"""The smoothed loss of few numbers that no loop in C reads: calls take the time and not arithmetic, so few of them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ls_lightning.functional.fused_ce import clear_gradient
from ls_lightning.functional.fused_layout import FEW
from ls_lightning.functional.fused_rows import information, may_read
from ls_lightning.functional.native.loss import can_read
from ls_lightning.functional.options import compute_dtype

Clear = Callable[[Tensor], Tensor]


def is_tiny(logits: Tensor) -> bool:
    """Whether there are few numbers, in the dtype of the arithmetic, which may be looked at but are not read in C."""
    few = 2**17 if logits.ndim > 2 or logits.shape[1] < FEW else 2**13
    is_wide = logits.dtype == compute_dtype(logits)
    return logits.numel() <= few and is_wide and may_read(logits) and not can_read(logits)


def tiny_loss(
    logits: Tensor, label: Tensor, eps: float, others: bool, divergence: bool, slope: float, clear: Clear
) -> Tensor | None:
    """Return the sum of the losses times `slope`; None where a class is masked or a logit is not finite.

    Args:
        logits: `(N, K, d1, ...)`.
        label: class indices `(N, d1, ...)`, none of them ignored.
        eps: one for all.
        others: whether the true class has no part of it.
        divergence: whether the entropy of the target is taken from the loss.
        slope: 1, or over how many the losses are averaged.
        clear: the same loss by operations that torch can differentiate twice.
    """
    wanted = logits.requires_grad and torch.is_grad_enabled()
    value, gradient = _compute(logits.detach(), label, eps, others, divergence, slope, wanted)
    if not math.isfinite(value):
        return None
    if wanted:
        return _Known.apply(logits, label, value, gradient, clear)  # type: ignore[no-untyped-call,no-any-return]
    return logits.new_full((), value)


def _compute(
    logits: Tensor, label: Tensor, eps: float, others: bool, divergence: bool, slope: float, wanted: bool
) -> tuple[float, Tensor | None]:
    num_classes = logits.shape[1]
    columns = logits.ndim == 2 and num_classes < FEW  # short rows are faster side by side
    dim = 0 if columns else 1
    z, index = (logits.t() if columns else logits).log_softmax(dim), label.unsqueeze(dim)
    own = z.gather(dim, index)
    each = eps / (num_classes - others)
    true = 1 - eps - each * others
    value = -true * own.sum().item() - each * z.sum().item()
    if divergence:
        value -= own.numel() * (information(true + each) + (num_classes - 1) * information(each))
    if not wanted or not math.isfinite(value):
        return slope * value, None
    z.exp_().mul_(slope).sub_(each * slope).scatter_add_(dim, index, own.fill_(-true * slope))
    return slope * value, z.t().contiguous() if columns else z


class _Known(torch.autograd.Function):
    """A loss whose value and gradient are known."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, value: float, gradient: Tensor, clear: Clear) -> Tensor:
        ctx.save_for_backward(logits, label)
        ctx.gradient, ctx.clear = gradient, clear
        return logits.new_full((), value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or torch.is_grad_enabled():
            return clear_gradient(ctx.clear, ctx.saved_tensors[0], upstream), None, None, None, None
        known = may_read(upstream) and upstream.item() == 1
        return gradient if known else gradient.mul_(upstream), None, None, None, None
