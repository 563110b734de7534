"""What a model puts out, and how calibration reads it: one row of class scores and one target a sample."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ls_lightning.functional.options import quoted

Task = Literal["multiclass", "binary", "multilabel"]
Closed = Literal["right", "left"]
Scores = Literal["logits", "probs"]
Confidence = Literal["top", "positive"]
NanPolicy = Literal["raise", "omit"]


@dataclass(frozen=True)
class Spec:
    """How outputs are read and binned; checked once, when it is made.

    Args:
        task: `"multiclass"` (K scores a sample), `"binary"` (one), `"multilabel"` (L, each a sample).
        num_classes: K, or L labels; None takes it from the scores. Binary: None, 1 or 2.
        num_bins: M >= 1 bins of equal width over [0, 1].
        closed: the side on which a bin includes its edge; 0 and 1 are in the first and last bin on either.
        input: `"logits"` or `"probs"`; never guessed from the values.
        ignore_index: targets of this value are not counted; None counts all.
        confidence: `"top"`, the probability of the predicted class against whether it is right; or, for
            binary and multilabel, `"positive"`: P(y=1) against y.
        nan_policy: `"raise"` when sums with a sample that is no number are read, or `"omit"` such samples.
        entropy: sum up the entropy too, which takes up to a quarter longer; else `mean_entropy` of the sums is NaN.

    Raises:
        TypeError, ValueError: an argument is not one of these.

    Example:
        >>> Spec(task="binary", num_bins=10).num_bins
        10
    """

    task: Task = "multiclass"
    num_classes: int | None = None
    num_bins: int = 15
    closed: Closed = "right"
    input: Scores = "logits"
    ignore_index: int | None = -100
    confidence: Confidence = "top"
    nan_policy: NanPolicy = "raise"
    entropy: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            given = getattr(self, name)
            if given not in choices:
                raise ValueError(f"{name} must be one of {quoted(choices)}, got {given!r}.")
        if not is_int(self.num_bins):
            raise TypeError(f"num_bins must be an int, got {self.num_bins!r}. 15 is usual.")
        if self.num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {self.num_bins}. 15 is usual.")
        if self.ignore_index is not None and not is_int(self.ignore_index):
            raise TypeError(f"ignore_index must be an int or None, got {self.ignore_index!r}.")
        if self.confidence == "positive" and self.task == "multiclass":
            raise ValueError("confidence='positive' needs task='binary' or 'multilabel', got task='multiclass'.")
        self._check_num_classes()

    def _check_num_classes(self) -> None:
        if self.num_classes is None:
            return
        if not is_int(self.num_classes):
            raise TypeError(f"num_classes must be an int or None, got {self.num_classes!r}.")
        if self.task == "binary" and self.num_classes not in (1, 2):
            raise ValueError(f"num_classes of task='binary' must be None, 1 or 2, got {self.num_classes}.")
        least = 2 if self.task == "multiclass" else 1
        if self.num_classes < least:
            raise ValueError(f"num_classes of task={self.task!r} must be at least {least}, got {self.num_classes}.")


_CHOICES = {
    "task": get_args(Task),
    "closed": get_args(Closed),
    "input": get_args(Scores),
    "confidence": get_args(Confidence),
    "nan_policy": get_args(NanPolicy),
}


def is_int(value: object) -> bool:
    """Tell an int from all else, True and False among it."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_rows(scores: Tensor, target: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Check scores and targets and flatten them to one sample a row.

    Args:
        scores: multiclass `(N, K, d1, ...)`; binary `(N, ...)` or `(N, 1, ...)`; multilabel `(N, L, ...)`.
        target: multiclass `(N, d1, ...)` class indices; else 0 and 1 in the shape of the scores.
        spec: says which.

    Returns:
        Scores `(S, K)` for multiclass, else `(S,)`, and targets `(S,)`; S = N d1 ... .

    Raises:
        TypeError: the scores are no floating point, or class indices no integers.
        ValueError: the shapes do not fit each other or `num_classes`.
    """
    if not scores.is_floating_point():
        raise TypeError(f"{spec.input} must be floating point, got {scores.dtype}, shape {tuple(scores.shape)}.")
    if spec.task == "multiclass":
        return _multiclass_rows(scores, target, spec)
    if spec.task == "binary":
        shapes = {tuple(_without_column(scores).shape), tuple(_without_column(target).shape)}
        if scores.ndim < 1 or len(shapes) > 1:
            raise ValueError(
                f"binary {spec.input} must be (N,) or (N, 1) with a target of that shape, got "
                f"{_shapes(scores, target, spec)}. Two scores a sample are task='multiclass'."
            )
    elif scores.ndim < 2 or scores.shape != target.shape:
        raise ValueError(
            f"multilabel {spec.input} must be (N, L) with a 0/1 target of that shape, got "
            f"{_shapes(scores, target, spec)}."
        )
    elif spec.num_classes not in (None, scores.shape[1]):
        raise ValueError(f"num_classes={spec.num_classes}, but there are {_shapes(scores, target, spec)}.")
    return scores.reshape(-1), target.reshape(-1)


def _multiclass_rows(scores: Tensor, target: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    shapes = _shapes(scores, target, spec)
    if scores.ndim < 2 or scores.shape[1] < 2:
        raise ValueError(
            f"multiclass {spec.input} must be (N, K, ...) with K >= 2, got {shapes}. "
            "One score a sample is task='binary'."
        )
    if spec.num_classes not in (None, scores.shape[1]):
        raise ValueError(f"num_classes={spec.num_classes}, but there are {shapes}.")
    batch, classes, *positions = scores.shape
    if tuple(target.shape) != (batch, *positions):
        raise ValueError(f"target must hold one class index a sample, {(batch, *positions)}, got {shapes}.")
    if target.is_floating_point() or target.is_complex():
        raise TypeError(f"target must hold class indices, got {target.dtype}: pass target.long().")
    return scores.movedim(1, -1).reshape(-1, classes), target.reshape(-1)


def _without_column(values: Tensor) -> Tensor:
    return values.squeeze(1) if values.ndim > 1 else values


def _shapes(scores: Tensor, target: Tensor, spec: Spec) -> str:
    return f"{spec.input} {tuple(scores.shape)} and target {tuple(target.shape)}"


def like(value: Tensor, logits: Tensor) -> Tensor:
    """Move a float64 number to the device of the logits, which on Apple's has no float64."""
    return value.float().to("mps") if logits.device.type == "mps" else value.to(logits.device)
