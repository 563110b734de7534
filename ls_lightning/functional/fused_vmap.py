"""Smoothed cross-entropy of a stack of models under `torch.func.vmap`: folded into the rows of one."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from ls_lightning.functional.fused_layout import arrange, arrange_rows, layout_of
from ls_lightning.functional.fused_rows import SmoothedTarget, may_read, smoothed_rows
from ls_lightning.functional.options import compute_dtype
from ls_lightning.functional.targets import Target, explain_index_error

Clear = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The losses `(N,)` of logits, class indices and eps `(N, 1)` by operations that torch differentiates."""

IGNORED = -100

_functorch = torch._C._functorch


def can_be_stacked(logits: Tensor, eps: float | Tensor) -> bool:
    """Whether the transforms around are vmap and at most one first derivative, and that is asked for.

    Args:
        logits: `(N, K)` in each model.
        eps: of these; without a gradient.
    """
    kinds = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
    derivatives = kinds.count(_functorch.TransformType.Grad)
    if derivatives > 1 or not kinds or derivatives + kinds.count(_functorch.TransformType.Vmap) < len(kinds):
        return False
    if logits.ndim != 2 or logits.numel() == 0 or derivatives == len(kinds):
        return False
    if isinstance(eps, Tensor) and (eps.requires_grad or _needs_gradient(eps)):
        return False
    if derivatives:  # one that is itself a variable of the graph outside would be differentiated again
        return logits.requires_grad and not _needs_gradient(logits)
    return torch.is_grad_enabled() and _needs_gradient(logits)


def stacked_losses(
    read: Target, logits: Tensor, eps: float | Tensor, others: bool, divergence: bool, clear: Clear
) -> Tensor:
    """Return the losses `(N,)` of logits `(N, K)`; anything where ignored."""
    label, dtype = read.value, compute_dtype(logits)
    valid = torch.ones_like(label, dtype=torch.bool) if read.valid is None else read.valid
    level = read.eps(eps, tuple(logits.shape), dtype)
    rows = (level if isinstance(level, Tensor) else torch.tensor(level, dtype=dtype, device=label.device)).expand(
        label.shape
    )
    losses: Tensor = _Stacked.apply(logits, label, valid, rows, others, divergence, clear)[0]  # type: ignore[no-untyped-call]
    return losses


class _Stacked(torch.autograd.Function):
    """Returns losses, and their gradients for the backward pass."""

    @staticmethod
    def forward(
        logits: Tensor, label: Tensor, valid: Tensor, eps: Tensor, others: bool, divergence: bool, clear: Clear
    ) -> tuple[Tensor, Tensor]:
        layout, dtype, num_classes = layout_of(logits) or "rows", compute_dtype(logits), logits.shape[1]
        label_, valid_, eps_ = (arrange_rows(values, layout) for values in (label, valid, eps))
        target = SmoothedTarget(label_, valid_, eps_, others, None, None, 1.0, divergence, num_classes)
        gradient = torch.empty_like(logits, dtype=dtype)
        z, out = arrange(logits, layout), arrange(gradient, layout)
        try:
            losses = smoothed_rows(z, target, dtype, not may_read(logits), 1.0, out, False)
            if may_read(logits) and not math.isfinite(losses.sum().item()):
                losses = smoothed_rows(z, target, dtype, True, 1.0, out, False)
        except RuntimeError as error:
            raise explain_index_error(label, num_classes, error) from None
        return losses.view(-1), gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, label, valid, eps, *_, ctx.clear = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(logits, label, valid, eps, output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, valid, eps, gradient = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
            losses = ctx.clear(logits, label.masked_fill(~valid, IGNORED), eps.unsqueeze(1))
            return torch.autograd.grad(losses, logits, upstream, create_graph=True)[0], *(None,) * 6
        return (gradient * upstream.unsqueeze(1)).to(logits.dtype), *(None,) * 6

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        def fold(values: Tensor, dim: int | None) -> Tensor:
            stack = values.expand(info.batch_size, *values.shape) if dim is None else values.movedim(dim, 0)
            return stack.flatten(0, 1)

        rows = [fold(values, dim) for values, dim in zip(inputs[:4], in_dims, strict=False)]
        losses, gradient = _Stacked.apply(*rows, *inputs[4:])  # type: ignore[no-untyped-call]
        size = (info.batch_size, -1)
        return (losses.unflatten(0, size), gradient.unflatten(0, size)), (0, 0)


def _needs_gradient(values: Tensor) -> bool:
    """Whether the tensor under all transforms is a variable."""
    while _functorch.is_functorch_wrapped_tensor(values):
        values = _functorch.get_unwrapped(values)
    return values.requires_grad
