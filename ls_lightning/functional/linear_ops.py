"""The fused linear loss as operators of torch, with their derivatives: autograd and torch.compile take them whole."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional.linear_chunks import Problem, losses_in_chunks
from ls_lightning.functional.options import compute_dtype

Found = tuple[Tensor | None, ...]

# Written out: torch 2.6 reads other annotations than later versions.
_ARGUMENTS = (
    "Tensor input, Tensor weight, Tensor? bias, Tensor index, Tensor true, Tensor rest, Tensor share, ScalarType dtype"
)
_FOUR = "(Tensor, Tensor, Tensor, Tensor)"


@torch.library.custom_op(
    "ls_lightning::linear_smoothed_sum", mutates_args=(), schema=f"({_ARGUMENTS}, bool[] needs) -> {_FOUR}"
)
def linear_smoothed_sum(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    true: Tensor,
    rest: Tensor,
    share: Tensor,
    dtype: torch.dtype,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of the losses, and its gradients already, since they only want to be scaled in the backward."""
    losses, gradients = losses_in_chunks(Problem(input, weight, bias, index, true, rest, share, dtype), needs)
    return losses.sum(), *gradients


@torch.library.custom_op("ls_lightning::linear_smoothed_each", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def linear_smoothed_each(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    true: Tensor,
    rest: Tensor,
    share: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The losses; how they are weighted is known in the backward, which computes the logits again."""
    return losses_in_chunks(Problem(input, weight, bias, index, true, rest, share, dtype), (False,) * 3)[0]


def clear_losses(problem: Problem) -> Tensor:
    """The losses by way of all the logits: for second derivatives and function transforms."""
    dtype, exact = problem.dtype, problem.exact
    with torch.autocast(problem.input.device.type, enabled=False):
        logits = F.linear(problem.input.to(dtype), problem.weight.to(dtype)).to(exact)
        if problem.bias is not None:
            logits = logits + problem.bias
        log_probs = logits.log_softmax(1)
        picked = log_probs.gather(1, problem.index[:, None]).squeeze(1).masked_fill(problem.true == 0, 0)
        everywhere = log_probs.masked_fill(log_probs == -torch.inf, 0) @ problem.share
        return -problem.true * picked - problem.rest * everywhere


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    gradients = () if isinstance(output, Tensor) else output[1:]
    ctx.dtype = inputs[7]
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)  # they would be zeros of the weight's size
    ctx.save_for_backward(*inputs[:7], *gradients)


def _sum_backward(ctx: Any, grad: Tensor | None, *_: None) -> Found:
    if grad is None:
        return (None,) * 9
    *inputs, for_input, for_weight, for_bias = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *_clear_gradients(ctx, inputs, grad.expand(inputs[0].shape[:1])), None
    return *_needed(ctx, inputs, [gradient * grad for gradient in (for_input, for_weight, for_bias)]), None


def _each_backward(ctx: Any, grad: Tensor | None) -> Found:
    if grad is None:
        return (None,) * 8
    inputs = ctx.saved_tensors
    if torch.is_grad_enabled():
        return _clear_gradients(ctx, inputs, grad)
    input, weight, bias, index, true, rest, share = inputs
    weighted = (index, true * grad, rest * grad, share, ctx.dtype, ctx.needs_input_grad[:3])
    return _needed(ctx, inputs, linear_smoothed_sum(input, weight, bias, *weighted)[1:])


def _needed(ctx: Any, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Found:
    by = zip(gradients, inputs[:3], ctx.needs_input_grad[:3], strict=True)
    return (*(gradient.to(tensor.dtype) if needed else None for gradient, tensor, needed in by), *(None,) * 5)


def _clear_gradients(ctx: Any, inputs: Any, grad: Tensor) -> Found:
    """Gradients that can be differentiated again."""
    input, weight, bias, index, true, rest, share = inputs
    losses = clear_losses(Problem(input, weight, bias, index, true, rest, share, ctx.dtype))
    needs = ctx.needs_input_grad[:3]
    wanted = [tensor for tensor, needed in zip((input, weight, bias), needs, strict=True) if needed]
    found = iter(torch.autograd.grad(losses, wanted, grad, create_graph=True))
    return (*(next(found) if needed else None for needed in needs), *(None,) * 5)


@linear_smoothed_sum.register_fake
def _sum_fake(input: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    exact, needs = compute_dtype(input), others[-1]
    shapes = (input.shape, weight.shape, weight.shape[:1])
    empty = (input.new_empty(shapes[k] if needs[k] else (0,), dtype=exact) for k in range(3))
    return input.new_empty((), dtype=exact), *empty


@linear_smoothed_each.register_fake
def _each_fake(input: Tensor, *rest: Any) -> Tensor:
    return input.new_empty(input.shape[:1], dtype=compute_dtype(input))


linear_smoothed_sum.register_autograd(_sum_backward, setup_context=_save)
linear_smoothed_each.register_autograd(_each_backward, setup_context=_save)
