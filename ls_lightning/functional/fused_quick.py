"""The smoothed loss of a small batch, by as few calls as can be once a batch of its form was seen.

A step of training leaves nothing of this in the processor's caches, so that each function on the way takes as long as
ten rows do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from ls_lightning.functional.class_loss import Terms, class_loss
from ls_lightning.functional.fused_express import Express
from ls_lightning.functional.fused_layout import sizes_and_steps
from ls_lightning.functional.native.loss import FEW, as_form, can_read, run_form
from ls_lightning.functional.options import CHOICES, Reduction, Spread, WeightMode
from ls_lightning.functional.row_statistics import LINES
from ls_lightning.functional.targets import explain_index_error

_MOST = 256  # forms that are kept
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


class Form(NamedTuple):
    """What calls have in common whose options are the same, and whose tensors have the same shapes and dtypes.

    Attributes:
        call: as C is told of it.
        scale: of the losses in their sum.
        total: as the loss is, to make others like it: what made the gradient has just been in the caches.
        statistics: the shape of those.
        per_sample: the same loss of [`Terms`].
        weight_mode: as it was given.
        ignore_index: a class index that is left out.
        spread: over which classes.
        divergence: whether the entropy of the target is taken from the loss.
        reduction: any but `"none"`.
    """

    call: bytes
    scale: float
    total: Tensor
    statistics: tuple[int, int]
    per_sample: Callable[[Terms], Tensor]
    weight_mode: WeightMode
    ignore_index: int
    spread: Spread
    divergence: bool
    reduction: Reduction

    def express(self, target: Tensor, eps: float) -> Express:
        """Another way to the same loss, for what is not usual in a backward pass."""

        def clear(logits: Tensor) -> Tensor:
            options = self.weight_mode, self.ignore_index, self.reduction, self.spread
            return class_loss(self.per_sample, logits, target, eps, None, *options, "logits")

        others = self.spread == "others"
        return Express(eps, self.ignore_index, others, self.divergence, self.reduction, False, clear)


_FORMS: dict[object, Form | None] = {}


def quick_loss(
    per_sample: Callable[[Terms], Tensor],
    divergence: bool,
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor,
    weight_mode: WeightMode,
    ignore_index: int,
    reduction: Reduction,
    spread: Spread,
    statistics: Tensor | None,
) -> Tensor | None:
    """Return the loss; None where another way has to be taken, or has to say what does not fit."""
    if type(logits) is not Tensor or type(target) is not Tensor or is_dynamo_compiling():
        return None
    # Before anything is asked of them that a tensor of a transform would not answer.
    if _len_torch_dispatch_stack() or _are_functorch_transforms_active() or _get_tracing_state() is not None:
        return None
    if _is_wrapped(logits) or _is_wrapped(target) or forward_ad._current_level >= 0:
        return None
    if not (logits.requires_grad and logits.is_cpu and target.is_cpu and torch.is_grad_enabled()) or logits.is_neg():
        return None
    if type(eps) is not float or not 0 <= eps < 1:
        return None
    key = (
        logits.shape,
        target.shape,
        logits.dtype,
        target.dtype,
        divergence,
        weight_mode,
        ignore_index,
        reduction,
        spread,
    )
    form = _FORMS.get(key) or _remember(key, per_sample, logits, target)
    if form is None or not (logits.is_contiguous() and target.is_contiguous()):
        return None
    if statistics is not None and not _fits(statistics, form):
        return None
    try:
        return _apply(logits, (target, eps, form, statistics))  # type: ignore[no-untyped-call,no-any-return]
    except RuntimeError as error:
        index = target.masked_fill(target == ignore_index, 0)
        raise explain_index_error(index, logits.shape[1], error) from None


def _remember(key: Any, per_sample: Callable[[Terms], Tensor], logits: Tensor, target: Tensor) -> Form | None:
    """The form of a first call, which goes the way of those that have none if it has to."""
    if key in _FORMS:
        return None
    if len(_FORMS) >= _MOST:
        _FORMS.clear()
    *_, divergence, weight_mode, ignore_index, reduction, spread = key
    _FORMS[key] = form = None
    shape = logits.shape
    if reduction not in ("mean", "sum", "batchmean") or spread not in CHOICES["spread"]:
        return None
    if weight_mode not in CHOICES["weight_mode"] or target.dtype != torch.int64 or not can_read(logits):
        return None
    if len(shape) < 2 or shape[1] < 2 or target.shape != (shape[0], *shape[2:]) or not 0 < logits.numel() < FEW:
        return None
    if not logits.is_contiguous():
        del _FORMS[key]  # the next one may be
        return None
    sizes, steps = sizes_and_steps(logits)
    others, mean = spread == "others", reduction == "mean"
    _FORMS[key] = form = Form(
        as_form(sizes, steps, logits.dtype, ignore_index, others, divergence, mean),
        1 / shape[0] if reduction == "batchmean" else 1.0,
        torch.empty((), dtype=torch.float32, device="cpu"),
        (LINES, target.numel()),
        per_sample,
        weight_mode,
        ignore_index,
        spread,
        divergence,
        reduction,
    )
    return form


def _fits(statistics: Tensor, form: Form) -> bool:
    is_plain = type(statistics) is Tensor and statistics.is_cpu and not statistics.requires_grad
    fits = statistics.dtype == torch.float32 and statistics.shape == form.statistics
    return is_plain and fits and statistics.is_contiguous()


class _Quick(torch.autograd.Function):
    """Keeps the gradient for the first backward pass, which gives it away. Each argument of `apply` takes its time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, others: tuple[Tensor, float, Form, Tensor | None]) -> Tensor:
        target, eps, form, statistics = others
        gradient, loss = torch.empty_like(logits), torch.empty_like(form.total)
        run_form(form.call, logits, gradient, loss, statistics, target, eps, form.scale)
        ctx.to_save = logits, target  # what save_for_backward does
        ctx.known = gradient, eps, form
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient, eps, form = ctx.known
        ctx.known = None, eps, form
        usual = gradient is not None and upstream.is_cpu and not torch.is_grad_enabled()
        if not usual or _len_torch_dispatch_stack() or upstream.item() != 1:
            logits, target = ctx.saved_tensors
            gradient = form.express(target, eps).gradient(logits, target, gradient, upstream)
        return gradient, None


_apply = super(torch.autograd.Function, _Quick).apply
"""Without what `Function.apply` does first for transforms."""
