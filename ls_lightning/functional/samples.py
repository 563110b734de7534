"""What one sample says about calibration, by arithmetic that does not depend on its neighbours.

A vectorised float sum rounds differently for another batch size, memory layout or number of threads. So the
sums over classes are taken on a grid on which float64 additions are exact, and all else is elementwise.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Spec

PROBABILITY_TOLERANCE = 1e-2
"""How far rows given as probabilities may leave [0, 1] or a sum of 1: what rounding to bfloat16 does."""


class Samples(NamedTuple):
    """Per sample, each `(S,)`: float64 numbers, and bools. Where not `counted` the numbers mean nothing."""

    confidence: Tensor
    hit: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor
    entropy: Tensor
    counted: Tensor
    invalid: Tensor
    out_of_range: Tensor


class _Row(NamedTuple):
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
    rows = scores.double().contiguous()
    if rows.ndim == 1:
        rows = _two_columns(rows, spec)
    valid = are_logits(rows) if spec.input == "logits" else are_probabilities(rows)
    rows = torch.where(valid[:, None], rows, 1 / rows.shape[1])
    row = _from_logits(rows, label) if spec.input == "logits" else _from_probabilities(rows, label)
    correct = row.predicted == label
    positive = spec.confidence == "positive"
    brier = (row.squares - 2 * row.true + 1).clamp(min=0)
    return Samples(
        confidence=(row.positive if positive else row.top).clamp(max=1),
        hit=(label if positive else correct).double(),
        correct=correct.double(),
        nll=row.nll,
        brier=brier if spec.task == "multiclass" else brier / 2,
        entropy=row.entropy.clamp(min=0),
        counted=~ignored & in_range & valid,
        invalid=~ignored & ~valid,
        out_of_range=~ignored & valid & ~in_range,
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


def exact_sum(values: Tensor) -> Tensor:
    """Sum values of size at most 1 over the last dimension, to 2**-52 K each, identically in any order.

    On multiples of `2**-t` with `K 2**t <= 2**52` float64 additions do not round.
    """
    scale = 2.0 ** (52 - values.shape[-1].bit_length())
    return (values * scale).round_().sum(-1) / scale


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
    peak, predicted = rows.max(-1)
    below = rows - peak[:, None]
    relative = below.exp()
    total = exact_sum(relative)
    log_total = total.log()
    # 0 * -inf would be nan; exp(-1000) is 0 as well.
    weighted = exact_sum(relative * below.clamp(min=-1e3))
    return _Row(
        predicted=predicted,
        top=1 / total,
        true=_pick(relative, label) / total,
        positive=relative[:, 1] / total,
        nll=log_total - _pick(below, label),
        squares=exact_sum(relative * relative) / (total * total),
        entropy=log_total - weighted / total,
    )


def _from_probabilities(rows: Tensor, label: Tensor) -> _Row:
    rows = rows.clamp(0, 1)
    top, predicted = rows.max(-1)
    true = _pick(rows, label)
    return _Row(
        predicted=predicted,
        top=top,
        true=true,
        positive=rows[:, 1],
        nll=-true.log(),
        squares=exact_sum(rows * rows),
        entropy=-exact_sum(torch.xlogy(rows, rows)),
    )


def _pick(rows: Tensor, label: Tensor) -> Tensor:
    return rows.gather(-1, label[:, None]).squeeze(-1)
