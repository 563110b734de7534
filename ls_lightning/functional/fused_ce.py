"""Smoothed cross-entropy whose gradient is made in the forward pass, while the logits are in the cache."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ls_lightning.functional import triton_rows
from ls_lightning.functional.fused_layout import Layout, arrange, arrange_rows
from ls_lightning.functional.fused_rows import SmoothedTarget, may_read, smoothed_rows
from ls_lightning.functional.options import Reduction, compute_dtype
from ls_lightning.functional.reduction import RowWeights


class Problem(NamedTuple):
    """What the loss of logits depends on besides them.

    Attributes:
        layout: of the logits.
        target: what it is smoothed to.
        weights: of the samples.
        reduction: of their losses.
        consume: whether the backward pass may overwrite the logits with their gradient.
        clear: the same loss of logits by operations that torch can differentiate twice.
        statistics: of the rows, to be written to in the forward pass; None where nobody wants them.
    """

    layout: Layout
    target: SmoothedTarget
    weights: RowWeights
    reduction: Reduction
    consume: bool
    clear: Callable[[Tensor], Tensor]
    statistics: Tensor | None = None


def fused_loss(logits: Tensor, problem: Problem) -> Tensor:
    """Return the loss of logits that lie as `problem.layout` says."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Fused.apply(logits, problem)  # type: ignore[no-untyped-call,no-any-return]
    return _loss(logits, problem, None)[0]


def clear_gradient(clear: Callable[[Tensor], Tensor], logits: Tensor, upstream: Tensor) -> Tensor:
    """The gradient by the clear formulation; itself differentiable, if that is asked for."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        variable = logits if create_graph else logits.detach().requires_grad_()
        return torch.autograd.grad(clear(variable), variable, upstream, create_graph=create_graph)[0]


class _Fused(torch.autograd.Function):
    """Keeps the gradient for the first backward pass, which gives it away; another one makes it anew."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem) -> Tensor:
        ctx.problem = problem
        constants = (*problem.target, *problem.weights)
        # All are saved for torch to notice where one of them was changed in place before the gradient is made.
        ctx.save_for_backward(logits, *(value for value in constants if isinstance(value, Tensor)))
        at_once = problem.reduction != "none" and not problem.consume and _is_early(logits)
        ctx.gradient = torch.empty_like(logits) if at_once else None
        loss, ctx.careful = _loss(logits, problem, ctx.gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():
            return clear_gradient(ctx.problem.clear, ctx.saved_tensors[0], upstream), None
        if gradient is not None and may_read(upstream) and upstream.item() == 1:
            return gradient, None
        if gradient is not None and _is_wide(gradient):
            by_kernel = triton_rows.takes(gradient)
            return triton_rows.multiply(gradient, upstream) if by_kernel else gradient.mul_(upstream), None
        if gradient is not None and triton_rows.takes(gradient):
            return _times(gradient, ctx.saved_tensors[0], ctx.problem, upstream), None
        # A narrow gradient that has a factor was rounded too early, maybe to 0.
        return _gradient(ctx.saved_tensors[0], ctx.problem, upstream, ctx.careful), None


def _is_wide(values: Tensor) -> bool:
    return values.dtype == compute_dtype(values)


def _is_early(logits: Tensor) -> bool:
    """Whether the gradient made in the forward pass will do: float16's has a scaler's factor yet to come."""
    return _is_wide(logits) or may_read(logits) or (triton_rows.takes(logits) and logits.dtype != torch.float16)


def _loss(logits: Tensor, problem: Problem, gradient: Tensor | None) -> tuple[Tensor, bool]:
    """Return the loss, and whether it had to be computed with care; write the gradient."""
    layout, target, weights, reduction, *_ = problem
    slope, dtype, add = weights.slope(reduction), compute_dtype(logits), reduction != "none"
    z, out = arrange(logits, layout), None if gradient is None else arrange(gradient, layout)
    careful = not may_read(logits)
    if not careful:
        loss = smoothed_rows(z, target, dtype, False, _arranged(slope, layout), out, add, problem.statistics)
        careful = not math.isfinite((loss if add else loss.sum()).item())
    if careful:
        loss = smoothed_rows(z, target, dtype, True, _arranged(slope, layout), out, add, problem.statistics)
    return loss if add else weights.weigh(loss.view(weights.shape)), careful


def _gradient(logits: Tensor, problem: Problem, upstream: Tensor, careful: bool) -> Tensor:
    overwrites = problem.consume and 0 not in logits.stride()
    gradient = logits.detach() if overwrites else torch.empty_like(logits)
    slope = _arranged(problem.weights.slope(problem.reduction) * upstream, problem.layout)
    z, out = arrange(logits, problem.layout), arrange(gradient, problem.layout)
    smoothed_rows(z, problem.target, compute_dtype(logits), careful, slope, out, True)
    if overwrites:
        increment_version(gradient)  # torch does not see what is written in C
    return gradient


def _times(gradient: Tensor, logits: Tensor, problem: Problem, upstream: Tensor) -> Tensor:
    """The gradient times upstream, rounded once; the device looks whether that is 1."""
    layout, weights = problem.layout, problem.weights
    rest = (problem.target, compute_dtype(logits), _arranged(weights.slope(problem.reduction), layout))
    triton_rows.multiply_rows(arrange(gradient, layout), upstream, arrange(logits, layout), *rest)
    return gradient


def _arranged(slope: float | Tensor, layout: Layout) -> float | Tensor:
    return arrange_rows(slope, layout) if isinstance(slope, Tensor) and slope.ndim else slope
