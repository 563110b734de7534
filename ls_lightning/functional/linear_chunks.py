"""Losses and gradients of a linear layer with a smoothed cross-entropy, a chunk of the samples at a time.

The gradient of the logits is mass * softmax - true * onehot, less the outer product of rest and share; the latter
reaches the gradients of input and weight from the sums of its two factors, without a pass over the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.options import compute_dtype


@dataclass(frozen=True)
class Problem:
    """A linear layer, and what it should say of each sample.

    Attributes:
        input: `(N, H)`.
        weight: `(K, H)`.
        bias: `(K,)`; -inf masks a class.
        index: the true class `(N,)`; anything in range where a sample does not count.
        true: the target's mass on it `(N,)`, weights included; 0 where a sample does not count.
        rest: `(N,)`; `rest[n] * share` is the target's mass on all classes besides; 0 likewise.
        share: `(K,)`, 0 for a masked class.
        dtype: of the products of matrices. Everything else is in float32 or better.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    index: Tensor
    true: Tensor
    rest: Tensor
    share: Tensor
    dtype: torch.dtype

    @property
    def exact(self) -> torch.dtype:
        """float32, or float64 for float64 inputs."""
        return compute_dtype(self.input)

    @property
    def mass(self) -> Tensor:
        """All of the target's mass `(N,)`."""
        return self.true + self.rest * self.share.sum()

    def rows(self, part: slice) -> "Problem":
        """The same for some of the samples."""
        input, index, true, rest = (tensor[part] for tensor in (self.input, self.index, self.true, self.rest))
        return replace(self, input=input, index=index, true=true, rest=rest)


class Gradients(NamedTuple):
    """By input, weight and bias, in float32 or better; empty where not needed."""

    input: Tensor
    weight: Tensor
    bias: Tensor


def chunk_rows(num_classes: int, device: torch.device) -> int:
    """Samples in a chunk: so many that to read and write the weight's gradient takes less time than to compute it."""
    return max(256 if device.type == "cpu" else 1024, 2**23 // num_classes)


def losses_in_chunks(problem: Problem, needs: Sequence[bool]) -> tuple[Tensor, Gradients]:
    """Compute the losses `(N,)`, and of their sum the gradients by input, weight and bias that are needed."""
    device, (num_classes, _) = problem.input.device, problem.weight.shape
    with torch.autocast(device.type, enabled=False):
        losses, cast = torch.empty_like(problem.true), problem.weight.to(problem.dtype)
        total, mean, offset = _Total(problem, cast, needs), _mean_row(problem), _mean_bias(problem)
        # One buffer for all chunks: memory fresh from the system costs as much time as the softmax.
        rows = min(len(losses), chunk_rows(num_classes, device))
        buffer = torch.empty(rows, num_classes, dtype=problem.exact, device=device)
        product = buffer if problem.dtype == problem.exact else torch.empty_like(buffer, dtype=problem.dtype)
        for start in range(0, len(losses), max(rows, 1)):
            part = slice(start, start + rows)
            chunk = problem.rows(part)
            logits, narrow = buffer[: len(chunk.input)], product[: len(chunk.input)]
            torch.mm(chunk.input.to(problem.dtype), cast.t(), out=narrow)
            if narrow.dtype != logits.dtype:
                logits.copy_(narrow)
            smooth = chunk.rest * (chunk.input.to(problem.exact) @ mean + offset)
            losses[part] = _softmax(logits, chunk, any(needs)) - smooth
            if any(needs):
                total.add(part, chunk, logits)
        return losses, total.finish(mean)


def _softmax(logits: Tensor, chunk: Problem, slope: bool) -> Tensor:
    """Return mass * logsumexp - true * the true logit; in place of the products, its `slope` if that is needed."""
    # On a CPU a few rows at a time, which stay in its cache from one operation to the next.
    block = max(1, 2**18 // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    columns = (logits, chunk.index[:, None], chunk.true[:, None], chunk.mass[:, None])
    found = []
    for z, index, true, mass in zip(*(torch.split(column, block) for column in columns), strict=True):
        if chunk.bias is not None:
            z.add_(chunk.bias)
        picked = z.gather(1, index).masked_fill(true == 0, 0)
        top = z.amax(1, keepdim=True)
        total = z.sub_(top).exp_().sum(1, keepdim=True)
        found.append(mass * (top + total.log()) - true * picked)
        if slope:
            z.mul_(mass / total)
            z.scatter_(1, index, z.gather(1, index) - true)
    return torch.cat(found).squeeze(1)


def _mean_row(problem: Problem) -> Tensor:
    """`share @ weight` in float32 or better, without a wide copy of all of a narrow weight."""
    parts = zip(torch.split(problem.share, 4096), torch.split(problem.weight, 4096), strict=True)
    return torch.stack([share @ weight.to(problem.exact) for share, weight in parts]).sum(0)


def _mean_bias(problem: Problem) -> Tensor | float:
    bias = problem.bias
    return 0.0 if bias is None else (problem.share * bias.masked_fill(bias == -torch.inf, 0)).sum()


class _Total:
    """The gradients by input, weight and bias, summed as the chunks come.

    Args:
        problem: of all samples.
        cast: its weight in the dtype of the products.
        needs: which of the three are needed.
    """

    def __init__(self, problem: Problem, cast: Tensor, needs: Sequence[bool]) -> None:
        self._problem, self._needs = problem, tuple(needs)
        shapes = (problem.input.shape, problem.weight.shape, problem.share.shape)
        empty = (problem.true.new_zeros(shapes[k] if needed else (0,)) for k, needed in enumerate(needs))
        self._sums = Gradients(*empty)
        self._smooth = problem.true.new_zeros(problem.input.shape[1])
        # float16 has no room for the probabilities of many classes.
        wide = problem.dtype == torch.float16
        self._dtype = problem.exact if wide else problem.dtype
        self._weight = problem.weight.to(self._dtype) if wide and self._needs[0] else cast

    def add(self, part: slice, chunk: Problem, slope: Tensor) -> None:
        """Take in a chunk: `slope` is the gradient of its logits, but for what is smoothed."""
        narrow = slope.to(self._dtype)
        self._smooth += chunk.rest @ chunk.input.to(slope.dtype)
        if self._needs[0]:
            _add_product(self._sums.input[part], narrow, self._weight)
        if self._needs[1]:
            _add_product(self._sums.weight, narrow.t(), chunk.input.to(self._dtype))
        if self._needs[2]:
            self._sums.bias.add_(slope.sum(0))

    def finish(self, mean: Tensor) -> Gradients:
        """Take off what is smoothed, of all chunks at once; `mean` is the average row of the weight by share."""
        rest, share = self._problem.rest, self._problem.share
        if self._needs[0]:
            self._sums.input.addr_(rest, mean, alpha=-1)
        if self._needs[1]:
            self._sums.weight.addr_(share, self._smooth, alpha=-1)
        if self._needs[2]:
            self._sums.bias.sub_(share * rest.sum())
        return self._sums


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
