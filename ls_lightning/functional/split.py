"""The pass over all logits: of each row the largest, the second largest, and sums over all but the first.

Sums are relative to the second largest logit: that of the others is then at least 1, and keeps its digits however
sure the model is. They are taken on a grid on which additions are exact, so that neighbours, memory layout and number
of threads do not matter.
"""

import math
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import read_bits, zero_of

_BLOCK = 32
_FEW = 64


class Split(NamedTuple):
    """Per row, each `(S,)` and float64 but for `predicted`. With z the second largest logit and e = exp(x - z):

    Attributes:
        peak: the largest logit.
        predicted: int64, where it stands first.
        second: z; a finite number if all others are masked.
        total: sum of e over all but the predicted class: at least 1, or 0 if all others are masked.
        squares: sum of e^2.
        weighted: sum of e (x - z); None where nobody asked for it.
    """

    peak: Tensor
    predicted: Tensor
    second: Tensor
    total: Tensor
    squares: Tensor
    weighted: Tensor | None


def split_rows(rows: Tensor, weighted: bool = False) -> Split:
    """Read logits `(S, K)` of any floating type; a row with a NaN or +inf has a `peak` that is not finite."""
    samples, num_classes = rows.shape
    size = math.ceil(samples / max(1, round(samples / chunk_size(rows)))) or 1  # no small chunk at the end
    # Sums over a few classes are fast along columns, over many along rows.
    few = num_classes < _FEW
    dim = 0 if few else 1
    buffers = rows.new_empty((2, num_classes, size) if few else (2, size, num_classes), dtype=torch.float64)
    peak, second = rows.new_empty((2, samples), dtype=torch.float64)
    predicted = rows.new_empty(samples, dtype=torch.int64)
    bits = rows.new_empty((3 if weighted else 2, samples), dtype=torch.int64)
    if not few:
        _first_of_many(rows, peak, predicted)
    for start in range(0, samples, size):
        part = slice(start, start + size)
        chunk = rows[part].t() if few else rows[part]
        below, spare = buffers.narrow(2 - dim, 0, chunk.shape[1 - dim])
        below.copy_(chunk)
        if few:
            _first_of_few(below, spare, peak[part], predicted[part])
        _sum_others(below, spare, dim, predicted[part], second[part], bits[:, part])
    # Where the predicted class stood were exp(0) and its square.
    sums = read_bits(bits, num_classes)
    return Split(peak, predicted, second, sums[0] - 1, sums[1] - 1, sums[2] if weighted else None)


def chunk_size(rows: Tensor) -> int:
    """How many rows stay in a processor's cache, where they are several times faster; on a GPU launches cost more."""
    size: int = max(1, 2 ** (16 if rows.device.type == "cpu" else 22) // rows.shape[1])
    return size


def _sum_others(below: Tensor, spare: Tensor, dim: int, predicted: Tensor, second: Tensor, bits: Tensor) -> None:
    """Fill in `second` and `bits`, overwriting the logits `below`."""
    num_classes, predicted = below.shape[dim], predicted.unsqueeze(dim)
    torch.amax(below.scatter_(dim, predicted, -inf), dim, out=second)
    second.clamp_(min=torch.finfo(torch.float64).min)  # all others are masked, and -inf - -inf is nan
    # exp(-inf) is four times slower than exp(0).
    relative = torch.exp(below.sub_(second.unsqueeze(dim)).scatter_(dim, predicted, 0), out=spare)
    if len(bits) > 2:  # 0 * -inf would be nan; exp(-1000) is 0 as well
        torch.sum(below.clamp_(min=-1e3).mul_(relative).add_(zero_of(num_classes)).view(torch.int64), dim, out=bits[2])
    torch.sum(torch.add(relative, zero_of(num_classes), out=below).view(torch.int64), dim, out=bits[0])
    torch.sum(relative.mul_(relative).add_(zero_of(num_classes)).view(torch.int64), dim, out=bits[1])


def _first_of_few(columns: Tensor, spare: Tensor, peak: Tensor, predicted: Tensor) -> None:
    """Fill in the largest value of each column, and where it stands first; torch's `max` takes three times as long."""
    num_classes = len(columns)
    torch.amax(columns, 0, out=peak)
    backwards = torch.arange(num_classes, 0, -1, dtype=torch.float64, device=columns.device)[:, None]
    found = torch.eq(columns, peak, out=spare).mul_(backwards).amax(0)
    predicted.copy_((num_classes - found).clamp_(max=num_classes - 1))  # nothing equals NaN


def _first_of_many(rows: Tensor, peak: Tensor, predicted: Tensor) -> None:
    """Fill in the largest value of each row, and where it stands first; NaN if there is one.

    Looking for the place among the maxima of blocks, and then in one block, is four times faster.
    """
    num_classes = rows.shape[1]
    start, found = torch.zeros_like(predicted)[:, None], rows
    if num_classes >= 8 * _BLOCK:
        blocks = num_classes // _BLOCK
        peaks = torch.unflatten(rows[:, : blocks * _BLOCK], 1, (blocks, _BLOCK)).amax(2)
        if blocks * _BLOCK < num_classes:
            peaks = torch.cat([peaks, rows[:, blocks * _BLOCK :].amax(1, keepdim=True)], 1)
        start = (peaks.argmax(1, keepdim=True) * _BLOCK).clamp(max=num_classes - _BLOCK)
        found = rows.gather(1, start + torch.arange(_BLOCK, device=rows.device))
    value, index = found.max(1)
    peak.copy_(value)
    torch.add(index, start.squeeze(1), out=predicted)
