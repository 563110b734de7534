"""The smoothed loss of a call in which nothing differs from row to row: one look at the call, and one pass in C."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ls_lightning.functional.eps import EPS
from ls_lightning.functional.fused_ce import clear_gradient
from ls_lightning.functional.fused_layout import sizes_and_steps
from ls_lightning.functional.fused_rows import may_read
from ls_lightning.functional.native.loss import can_read, run_loop
from ls_lightning.functional.options import Reduction
from ls_lightning.functional.targets import explain_index_error

Clear = Callable[[Tensor], Tensor]
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # also by a transform that is over


class Express(NamedTuple):
    """What the sum or the mean of the losses depends on besides logits and class indices.

    Attributes:
        eps: one for all.
        ignore_index: a class index that is left out.
        others: whether the true class has no part of eps.
        divergence: whether the entropy of the target is taken from the loss.
        reduction: any but `"none"`.
        consume: whether the backward pass may overwrite the logits with their gradient.
        clear: the same loss of logits by operations that torch can differentiate twice.
    """

    eps: float
    ignore_index: int
    others: bool
    divergence: bool
    reduction: Reduction
    consume: bool
    clear: Clear

    def run(
        self,
        logits: Tensor,
        target: Tensor,
        factor: float,
        gradient: Tensor | None,
        loss: Tensor | None,
        statistics: Tensor | None = None,
    ) -> None:
        """Write the loss, the gradient of `factor` times that, and statistics of the rows."""
        run_loop(
            logits,
            *sizes_and_steps(logits),
            gradient,
            None if gradient is None else sizes_and_steps(gradient)[1],
            target,
            None,
            self.ignore_index,
            self.eps,
            factor / logits.shape[0] if self.reduction == "batchmean" else factor,
            self.others,
            self.divergence,
            self.reduction == "mean",
            None,
            loss,
            statistics,
        )

    def gradient(self, logits: Tensor, target: Tensor, known: Tensor | None, upstream: Tensor) -> Tensor:
        """Return the gradient, `known` for 1 or None, times `upstream`; `known` is not to be used again."""
        if torch.is_grad_enabled() or not may_read(upstream):
            return clear_gradient(self.clear, logits, upstream)
        factor = upstream.item()
        if known is not None and (factor == 1 or known.dtype == torch.float32):
            return known if factor == 1 else known.mul_(factor)
        # A narrow gradient that has a factor was rounded too early, maybe to 0.
        overwrites = self.consume and 0 not in logits.stride()
        gradient = logits.detach() if overwrites else torch.empty_like(logits)
        self.run(logits, target, factor, gradient, None)
        if overwrites:
            increment_version(gradient)  # torch does not see what is written in C
        return gradient


def express_loss(
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor,
    ignore_index: int,
    others: bool,
    divergence: bool,
    reduction: Reduction,
    consume: bool,
    clear: Clear,
    statistics: Tensor | None,
) -> Tensor | None:
    """Return the loss; None where another way has to be taken, or has to say what does not fit."""
    shape = logits.shape
    if reduction == "none" or target.dtype != torch.int64 or not (can_read(logits) and may_read(target)):
        return None
    if shape[0] != target.shape[0] or shape[2:] != target.shape[1:] or shape[1] < 2:
        return None
    if (len(shape) > 2 and not logits.is_contiguous()) or _is_wrapped(logits) or _is_wrapped(target):
        return None
    if isinstance(eps, Tensor):
        if eps.ndim or not eps.is_floating_point() or not may_read(eps):
            return None
        eps = eps.item()
    elif not isinstance(eps, (float, int)) or not EPS.holds(eps):
        return None
    express = Express(eps, ignore_index, others, divergence, reduction, consume, clear)
    try:
        if logits.requires_grad and torch.is_grad_enabled():
            return _apply(logits, target, express, statistics)  # type: ignore[no-untyped-call,no-any-return]
        loss = logits.new_empty((), dtype=torch.float32)
        express.run(logits, target, 1.0, None, loss, statistics)
    except RuntimeError as error:
        index = target.masked_fill(target == ignore_index, 0)
        raise explain_index_error(index, shape[1], error) from None
    return loss


class _Express(torch.autograd.Function):
    """Keeps the gradient for the first backward pass, which gives it away; another one makes it anew."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, express: Express, statistics: Tensor | None) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.express, ctx.gradient = express, None if express.consume else torch.empty_like(logits)
        loss = logits.new_empty((), dtype=torch.float32)
        express.run(logits, target, 1.0, ctx.gradient, loss, statistics)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (logits, target), known, ctx.gradient = ctx.saved_tensors, ctx.gradient, None
        return ctx.express.gradient(logits, target, known, upstream), None, None, None


_apply = super(torch.autograd.Function, _Express).apply
"""Without what `Function.apply` does first for transforms, which takes as long as the loop does for a small batch."""
