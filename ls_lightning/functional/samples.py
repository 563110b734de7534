"""What one sample says about calibration, whatever the task."""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.rows import Row, are_logits, are_probabilities, read_logits, read_probabilities
from ls_lightning.functional.waiting import is_ready


class Samples(NamedTuple):
    """Per sample, each `(S,)`: float64 numbers, then bools. Where not `counted` the others mean nothing.

    `odds` are those of `correct` being false, whatever the `confidence`; `entropy` is None if nobody asked for it.
    """

    confidence: Tensor
    odds: Tensor
    log_odds: Tensor
    nll: Tensor
    brier: Tensor
    entropy: Tensor | None
    hit: Tensor
    correct: Tensor
    counted: Tensor
    invalid: Tensor
    out_of_range: Tensor


def measure(scores: Tensor, target: Tensor, spec: Spec) -> Samples:
    """Read each sample: its confidence, whether it is right, its log-likelihood, Brier score and perhaps entropy.

    Args:
        scores: `(S, K)` for multiclass, else `(S,)`.
        target: `(S,)`.
        spec: how to read them.
    """
    num_classes = scores.shape[-1] if scores.ndim == 2 else 2
    rows = scores if scores.ndim == 2 else _two_columns(scores.double(), spec)
    read = read_logits if spec.input == "logits" else read_probabilities
    if _are_classes(target, num_classes, spec):
        row = read(rows, target, spec.entropy)
        return _samples(row, target, row.valid, ~row.valid, torch.zeros_like(row.valid), spec)
    ignored, in_range, label = read_target(target, num_classes, spec)
    row = read(rows, label, spec.entropy)
    readable = row.valid & ~ignored
    return _samples(row, label, readable & in_range, ~(row.valid | ignored), readable & ~in_range, spec)


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


def _are_classes(target: Tensor, num_classes: int, spec: Spec) -> bool:
    """Tell whether every target is a class, and none is ignored; False where that is not known yet."""
    if not (is_ready(target) and target.dtype == torch.int64 and target.numel()):
        return False
    least, most = (int(value) for value in target.aminmax())
    ignored = spec.ignore_index is not None and least <= spec.ignore_index <= most
    return least >= 0 and most < num_classes and not ignored


def _samples(row: Row, label: Tensor, counted: Tensor, invalid: Tensor, out_of_range: Tensor, spec: Spec) -> Samples:
    confidence, hit = row.top, row.correct
    if spec.confidence == "positive":
        hit = label.bool()
        confidence = confidence.where(hit == row.correct, 1 - confidence)
    brier = row.squares.sub_(row.true, alpha=2).add_(1)
    return Samples(
        confidence=confidence,
        odds=row.odds,
        log_odds=row.log_odds,
        nll=row.nll,
        brier=brier if spec.task == "multiclass" else brier / 2,
        entropy=None if row.entropy is None else row.entropy.clamp(min=0),
        hit=hit,
        correct=row.correct,
        counted=counted,
        invalid=invalid,
        out_of_range=out_of_range,
    )
