"""What one sample says about calibration, by arithmetic that does not depend on its neighbours.

A vectorised float sum rounds differently for another batch size, memory layout or number of threads. So the
sums over classes are taken on a grid on which float64 additions are exact, and all else is elementwise.
"""

import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Spec

PROBABILITY_TOLERANCE = 1e-2
"""How far rows given as probabilities may leave [0, 1] or a sum of 1: what rounding to bfloat16 does."""


_BLOCK = 32


class Samples(NamedTuple):
    """Per sample, each `(S,)`: float64 numbers, then bools. Where not `counted` the others mean nothing."""

    confidence: Tensor
    nll: Tensor
    brier: Tensor
    entropy: Tensor
    hit: Tensor
    correct: Tensor
    counted: Tensor
    invalid: Tensor
    out_of_range: Tensor


class _Row(NamedTuple):
    valid: Tensor
    predicted: Tensor
    top: Tensor
    true: Tensor
    positive: Tensor
    nll: Tensor
    squares: Tensor
    entropy: Tensor


def measure(scores: Tensor, target: Tensor, spec: Spec) -> Samples:
    """Read each sample: its confidence, whether it is right, its log-likelihood, Brier score and entropy.

    Args:
        scores: `(S, K)` for multiclass, else `(S,)`.
        target: `(S,)`.
        spec: how to read them.
    """
    ignored, in_range, label = read_target(target, scores.shape[-1] if scores.ndim == 2 else 2, spec)
    rows = scores if scores.ndim == 2 else _two_columns(scores.double(), spec)
    read = _from_logits if spec.input == "logits" else _from_probabilities
    # A chunk that stays in a processor's cache is several times faster; on a GPU launches cost more.
    size = max(1, 2 ** (16 if rows.device.type == "cpu" else 22) // rows.shape[1])
    chunks = [read(*chunk) for chunk in zip(torch.split(rows, size), torch.split(label, size), strict=True)]
    row = chunks[0] if len(chunks) == 1 else _Row(*(torch.cat(column) for column in zip(*chunks, strict=True)))
    correct = row.predicted == label
    positive = spec.confidence == "positive"
    brier = (row.squares - 2 * row.true + 1).clamp(min=0)
    readable = row.valid & ~ignored
    return Samples(
        confidence=(row.positive if positive else row.top).clamp(max=1),
        nll=row.nll,
        brier=brier if spec.task == "multiclass" else brier / 2,
        entropy=row.entropy.clamp(min=0),
        hit=label.bool() if positive else correct,
        correct=correct,
        counted=readable & in_range,
        invalid=~(row.valid | ignored),
        out_of_range=readable & ~in_range,
    )


def probabilities(scores: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Return float64 probabilities `(S, K)`, and which are valid: samples `(S,)` if multiclass, else each `(S, K)`."""
    rows = scores.double().contiguous()
    if spec.task != "multiclass":
        rows = _two_columns(rows, spec)
    if spec.input == "probs":
        p, valid = rows.clamp(0, 1), are_probabilities(rows)
    else:
        relative = (rows - rows.amax(-1, keepdim=True)).exp()
        p, valid = relative / exact_sum(relative)[..., None], are_logits(rows)
    return (p if spec.task == "multiclass" else p[..., 1]), valid


def exact_sum(values: Tensor, dim: int = -1) -> Tensor:
    """Sum values of size at most 1, to 2**-52 K each, identically in any order; a NaN gives any number.

    A number added to 1.5 * 2**t is rounded to multiples of 2**(t-52), and of such sums the bits, as integers, are as
    far apart as the numbers; sums of integers do not round, and may overflow on the way.
    """
    size = values.shape[dim]
    bits = size.bit_length()
    zero = math.ldexp(1.5, bits)
    (zero_bits,) = struct.unpack("<q", struct.pack("<d", zero))
    offset = (size * int(zero_bits) + 2**63) % 2**64 - 2**63
    total: Tensor = (values + zero).view(torch.int64).sum(dim) - offset
    return total.double() * math.ldexp(1, bits - 52)


def read_target(target: Tensor, num_classes: int, spec: Spec) -> tuple[Tensor, Tensor, Tensor]:
    """Tell which targets are ignored and which are in range, and make all of them indices."""
    # A uint8 tensor equals -100 where it is 156.
    target = target.double() if target.is_floating_point() else target.long()
    ignored = torch.zeros_like(target, dtype=torch.bool)
    if spec.ignore_index is not None:
        ignored = target == spec.ignore_index
    in_range = (target >= 0) & (target < num_classes)
    if spec.task != "multiclass":
        in_range = (target == 0) | (target == 1)
    return ignored, in_range, torch.where(in_range, target, 0).long()


def _two_columns(scores: Tensor, spec: Spec) -> Tensor:
    """Classes 0 and 1 of one score a sample; a logit of either infinity is a sure answer."""
    if spec.input == "probs":
        return torch.stack([1 - scores, scores], -1)
    return torch.stack([-scores.clamp(min=0), scores.clamp(max=0)], -1)


def are_logits(rows: Tensor) -> Tensor:
    """Tell rows `(..., K)` without NaN or +inf; -inf is a masked class, but one class has to be left."""
    return rows.amax(-1).isfinite()


def are_probabilities(rows: Tensor) -> Tensor:
    """Tell rows `(..., K)` that are probabilities but for rounding."""
    inside = (rows - 0.5).abs().amax(-1) <= 0.5 + PROBABILITY_TOLERANCE
    total = exact_sum(torch.where(inside[..., None], rows, 0))
    return inside & ((total - 1).abs() <= PROBABILITY_TOLERANCE)


def _from_logits(rows: Tensor, label: Tensor) -> _Row:
    peak, predicted = _first_max(rows)
    # Sums over a few classes are fast along columns, over many along rows.
    dim = 1 if rows.shape[1] >= 2 * _BLOCK else 0
    below = rows if dim else rows.t()
    below = below.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    peak, label = peak.double().unsqueeze(dim), label.unsqueeze(dim)
    relative = below.sub_(peak).exp()
    total = exact_sum(relative, dim)
    log_total, peak = total.log(), peak.squeeze(dim)
    nll = log_total - below.gather(dim, label).squeeze(dim)
    # 0 * -inf would be nan; exp(-1000) is 0 as well.
    weighted = exact_sum(below.clamp_(min=-1e3).mul_(relative), dim)
    true, positive = relative.gather(dim, label).squeeze(dim), relative.select(dim, 1) / total
    squares = exact_sum(relative.square_(), dim) / (total * total)
    return _Row(
        valid=peak - peak == 0,
        predicted=predicted,
        top=1 / total,
        true=true / total,
        positive=positive,
        nll=nll,
        squares=squares,
        entropy=log_total - weighted / total,
    )


def _first_max(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value of each row, and where it stands first; NaN if there is one.

    Looking for the place among the maxima of blocks, and then in one block, is four times faster.
    """
    num_classes = rows.shape[1]
    if num_classes < 8 * _BLOCK:
        peak, index = rows.max(1)
        return peak, index
    blocks = num_classes // _BLOCK
    peaks = torch.unflatten(rows[:, : blocks * _BLOCK], 1, (blocks, _BLOCK)).amax(2)
    if blocks * _BLOCK < num_classes:
        peaks = torch.cat([peaks, rows[:, blocks * _BLOCK :].amax(1, keepdim=True)], 1)
    start = (peaks.argmax(1, keepdim=True) * _BLOCK).clamp(max=num_classes - _BLOCK)
    peak, index = rows.gather(1, start + torch.arange(_BLOCK, device=rows.device)).max(1)
    return peak, index + start.squeeze(1)


def _from_probabilities(rows: Tensor, label: Tensor) -> _Row:
    rows = rows.double()
    valid = are_probabilities(rows)
    rows = torch.where(valid[:, None], rows, 1 / rows.shape[1]).clamp(0, 1)
    top, predicted = rows.max(1)
    true = rows.gather(1, label[:, None]).squeeze(1)
    return _Row(
        valid=valid,
        predicted=predicted,
        top=top,
        true=true,
        positive=rows[:, 1],
        nll=-true.log(),
        squares=exact_sum(rows * rows),
        entropy=-exact_sum(torch.xlogy(rows, rows)),
    )
