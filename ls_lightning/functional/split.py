"""The pass over all logits: of each row the largest, the second largest, and sums over all but the first.

Sums are relative to the second largest logit: that of the others is then at least 1, and keeps its digits however
sure the model is. A vectorised sum rounds differently for another batch size, memory layout or number of threads. So
over a few classes halves are added elementwise; over many, a processor adds up each contiguous row by itself, and a
GPU, or a row so long that threads may share it, adds on a grid on which additions are exact.
"""

import math
from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum

_FEW = 64
_BLOCK = 32
_SERIAL = 2**15
"""How many numbers torch adds up in one thread, in an order that only their number decides."""


class Split(NamedTuple):
    """Per row, each `(S,)` and float64. With z the second largest logit and e = exp(x - z):

    Attributes:
        peak: the largest logit.
        second: z, equal to `peak` if two share it; a finite number if all others are masked.
        total: sum of e over all classes but one of the largest: at least 1, or 0 if all others are masked.
        squares: sum of e^2.
        weighted: sum of e (x - z); None where nobody asked for it.
    """

    peak: Tensor
    second: Tensor
    total: Tensor
    squares: Tensor
    weighted: Tensor | None


def split_rows(rows: Tensor, weighted: bool = False) -> Split:
    """Read logits `(S, K)` of any floating type; a row with a NaN or +inf has a `peak` that is not finite."""
    samples, num_classes = rows.shape
    found = list(rows.new_empty((5 if weighted else 4, samples), dtype=torch.float64))
    size = 2 * chunk_size(rows)
    size = math.ceil(samples / max(1, round(samples / size))) or 1  # no small chunk at the end
    # Sums over a few classes are fast along columns, over many along rows.
    (_split_few if num_classes < _FEW else _split_many)(rows, size, *found)
    peak, second, total, squares, *spread = found
    return Split(peak, second, total, squares, spread[0] if spread else None)


def chunk_size(rows: Tensor) -> int:
    """How many rows stay in a processor's cache, where they are several times faster; on a GPU launches cost more."""
    size: int = max(1, 2 ** (16 if rows.device.type == "cpu" else 22) // rows.shape[1])
    return size


def _narrow(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _split_few(rows: Tensor, size: int, *found: Tensor) -> None:
    num_classes = rows.shape[1]
    below, relative = rows.new_empty((2, num_classes - 1, size), dtype=torch.float64)
    columns, others = rows.new_empty((2, num_classes, size), dtype=_narrow(rows))
    for chunk, (peak, second, *sums) in zip(torch.split(rows, size), _chunks(found, size), strict=True):
        if len(chunk) < size:
            columns, others, below, relative = (b[:, : len(chunk)] for b in (columns, others, below, relative))
        torch.add(chunk.t(), 0, out=columns)  # copy_ takes twice as long
        peak.copy_(_play_off(columns, others))
        # If all others are masked, -inf - -inf would be nan.
        second.copy_(others[1:].amax(0).clamp_(min=torch.finfo(others.dtype).min))
        torch.exp(below.copy_(others[1:]).sub_(second), out=relative)
        if len(sums) > 2:  # 0 * -inf would be nan; exp(-1000) is 0 as well
            sums[2].copy_(_add_up(below.clamp_(min=-1e3).mul_(relative)))
        torch.mul(relative, relative, out=below)
        sums[0].copy_(_add_up(relative))
        sums[1].copy_(_add_up(below))


def _split_many(rows: Tensor, size: int, *found: Tensor) -> None:
    num_classes = rows.shape[1]
    place = _two_of_many(rows, found[0], found[1])
    buffer = rows.new_empty((2 if len(found) > 4 else 1, size, num_classes), dtype=torch.float64)
    on_grid = num_classes >= _SERIAL or rows.device.type != "cpu"
    chunks = zip(torch.split(rows, size), torch.split(place, size), _chunks(found, size), strict=True)
    for chunk, where, (_, second, *sums) in chunks:
        below = buffer[0, : len(chunk)]
        second = second[:, None]
        below.copy_(chunk).scatter_(1, where, second).sub_(second)
        if len(sums) > 2:
            relative = torch.exp(below, out=buffer[1, : len(chunk)])
            sums[2].copy_(exact_sum(below.clamp_(min=-1e3).mul_(relative)))
        else:
            relative = below.exp_()
        if on_grid:
            sums[0].copy_(exact_sum(relative))
            sums[1].copy_(exact_sum(relative.mul_(relative)))
        else:
            torch.sum(relative, 1, out=sums[0])
            torch.linalg.vector_norm(relative, 2, 1, out=sums[1]).square_()
    found[2].sub_(1)  # what stands for the largest
    found[3].sub_(1)


def _chunks(values: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(value, size) for value in values), strict=True)


def _add_up(values: Tensor) -> Tensor:
    """Sum up columns, overwriting them: halves are added until one row is left, in an order that only K decides."""
    left = len(values)
    while left > 1:
        half = left // 2
        values[:half] += values[left - half : left]
        left -= half
    return values[0]


def _play_off(columns: Tensor, others: Tensor) -> Tensor:
    """Return the largest value of each column, and leave all of the column but it in `others[1:]`.

    Halves meet, the larger values go on, and the others stay where they are.
    """
    left = len(columns)
    while left > 1:
        half = left // 2
        one, other = columns[:half], columns[left - half : left]
        torch.minimum(one, other, out=others[left - half : left])
        torch.maximum(one, other, out=one)
        left -= half
    return columns[0]


def _two_of_many(rows: Tensor, peak: Tensor, second: Tensor) -> Tensor:
    """Fill in the two largest values of each row, and return a place `(S, 1)` of the largest.

    The largest are looked for among the maxima of blocks, and then in one block; over whole rows it takes longer.
    """
    samples, num_classes = rows.shape
    blocks = num_classes // _BLOCK
    whole = blocks * _BLOCK
    best = rows.new_full((samples, blocks + 1), -inf)
    torch.amax(torch.unflatten(rows[:, :whole], 1, (blocks, _BLOCK)), 2, out=best[:, :blocks])
    if whole < num_classes:
        torch.amax(rows[:, whole:], 1, out=best[:, blocks])
    value, block = best.max(1, keepdim=True)
    among = best.scatter_(1, block, -inf).amax(1)
    start = (block * _BLOCK).clamp_(max=num_classes - _BLOCK)
    members = rows.gather(1, start + torch.arange(_BLOCK, device=rows.device))
    inside = members.max(1, keepdim=True).indices
    within = members.scatter_(1, inside, -inf).amax(1)
    peak.copy_(value.squeeze(1))
    second.copy_(torch.maximum(among, within)).clamp_(min=torch.finfo(_narrow(rows)).min)
    return start + inside
