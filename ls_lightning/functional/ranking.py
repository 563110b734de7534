"""How sure a model is of each sample, on a scale on which nothing saturates: the log-odds of being wrong.

For the maximum softmax probability p this is `log((1 - p) / p) = logsumexp(other logits) - largest logit`: the order of
p, but a float32 p is exactly 1.0 from a gap of 17 on, where half of a network's samples may tie.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.options import quoted
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.rows import are_logits, are_probabilities, log_odds
from ls_lightning.functional.samples import Samples, measure, read_target
from ls_lightning.functional.split import chunk_size

_ROWS = 2**16

Score = Literal["msp", "max_logit", "pnorm"]


@dataclass(frozen=True)
class Ranking:
    """By what samples are ranked; checked once, when it is made.

    Args:
        outputs: how logits and targets are read; its bins play no part.
        score: `"msp"`, the maximum softmax probability; `"max_logit"`, max z; or `"pnorm"`, max z / ||z||_p.
        p: of `"pnorm"`, positive and finite; chosen on validation data.

    Raises:
        TypeError, ValueError: an argument is not one of these, or they do not go together.

    Example:
        >>> Ranking(score="pnorm", p=4.0).num_cells
        17408
    """

    outputs: Spec = field(default_factory=Spec)
    score: Score = "msp"
    p: float | None = None

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise ValueError(f"score must be one of {quoted(get_args(Score))}, got {self.score!r}.")
        if self.score != "msp" and (self.outputs.task, self.outputs.input) != ("multiclass", "logits"):
            raise ValueError(
                f"score={self.score!r} needs task='multiclass' and input='logits', got "
                f"task={self.outputs.task!r} and input={self.outputs.input!r}."
            )
        if self.score != "pnorm" and self.p is not None:
            raise ValueError(f"p={self.p!r} belongs to score='pnorm', got score={self.score!r}.")
        if self.score == "pnorm" and (self.p is None or not 0 < self.p < inf):
            raise ValueError(
                f"score='pnorm' needs p, positive and finite and chosen on validation data, got {self.p!r}."
            )

    @property
    def num_cells(self) -> int:
        """Cells of the sketch: up to odds of 2**9 where a sample is a best guess, up to infinity elsewhere."""
        everywhere = self.score == "max_logit" or self.outputs.confidence == "positive"
        return 128 * (255 if everywhere else 136)

    @property
    def by_confidence(self) -> bool:
        """Whether samples are ranked by the probability of the most probable class."""
        return self.score == "msp" and self.outputs.confidence == "top"

    @property
    def key(self) -> str:
        """A name, without dots, that two rankings share if they read all samples alike."""
        read = self.outputs
        return f"{read.task}_{read.input}_{read.ignore_index}_{read.confidence}_{self.score}_{self.p}".replace(".", "_")


class Ranked(NamedTuple):
    """Per sample, each `(S,)`; where not `counted` the rest means nothing.

    Attributes:
        log_odds: float64; the lower, the surer. Of being wrong for `"msp"`; minus the logit for `"max_logit"`;
            `log((1 - s) / (1 + s))` for the `"pnorm"` score s.
        wrong: bool; not y=1 with `confidence="positive"`.
        counted: bool.
        invalid: bool; not a number.
        out_of_range: bool; the target is no class.
        odds: what `log_odds` are the logarithm of; None where nobody has computed them.
    """

    log_odds: Tensor
    wrong: Tensor
    counted: Tensor
    invalid: Tensor
    out_of_range: Tensor
    odds: Tensor | None = None


def rank_chunks(logits: Tensor, target: Tensor, ranking: Ranking) -> Iterator[Ranked]:
    """Check a batch of any task and read its samples, some thousand at a time.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.
    """
    scores, labels = as_rows(logits, target, ranking.outputs)
    if scores.device.type == "mps":  # has no float64
        scores, labels = scores.cpu(), labels.cpu()
    size = _ROWS
    if ranking.score != "msp":
        size = chunk_size(scores)
    for start in range(0, max(1, len(labels)), size):
        chunk = slice(start, start + size)
        yield rank(scores[chunk], labels[chunk], ranking)


def rank(scores: Tensor, target: Tensor, ranking: Ranking) -> Ranked:
    """Read each sample: how sure the model is of it, and whether it is wrong.

    Args:
        scores: `(S, K)` for multiclass, else `(S,)`, as `as_rows` returns them.
        target: `(S,)`.
        ranking: how to read them.
    """
    spec = ranking.outputs
    if scores.ndim == 2 and ranking.score == "msp":
        return as_ranked(measure(scores, target, spec))
    ignored, in_range, label = read_target(target, scores.shape[-1] if scores.ndim == 2 else 2, spec)
    scores = scores.double().contiguous()
    valid = _are_valid(scores, spec)
    if scores.ndim == 2:
        odds, predicted = _rank_classes(scores, ranking)
    else:
        odds, predicted = _rank_positive(scores, spec)
    wrong = label == 0 if spec.confidence == "positive" else label != predicted
    return Ranked(odds, wrong, ~ignored & in_range & valid, ~ignored & ~valid, ~ignored & valid & ~in_range)


def as_ranked(samples: Samples) -> Ranked:
    """Rank samples by the probability of the predicted class."""
    wrong = ~samples.correct
    return Ranked(samples.log_odds, wrong, samples.counted, samples.invalid, samples.out_of_range, samples.odds)


def _are_valid(scores: Tensor, spec: Spec) -> Tensor:
    if spec.input == "probs":
        return are_probabilities(scores if scores.ndim == 2 else torch.stack([1 - scores, scores], -1))
    return are_logits(scores) if scores.ndim == 2 else ~scores.isnan()


def _rank_classes(rows: Tensor, ranking: Ranking) -> tuple[Tensor, Tensor]:
    peak, predicted = rows.max(-1)
    return (-peak if ranking.p is None else _pnorm_log_odds(rows, peak, ranking.p)), predicted


def _rank_positive(scores: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    positive = spec.confidence == "positive"
    if spec.input == "probs":
        top = scores if positive else torch.maximum(scores, 1 - scores)
        return log_odds(top), (scores > 0.5).long()
    return -scores if positive else -scores.abs(), (scores > 0).long()


def _pnorm_log_odds(rows: Tensor, peak: Tensor, p: float) -> Tensor:
    """Take 0 as the score of a row without any logit but 0; masked classes add nothing to the norm."""
    size = torch.where(rows == -inf, 0, rows).abs()
    largest = size.amax(-1)
    largest = torch.where(largest == 0, 1, largest)
    total = exact_sum(((size / largest[:, None]).log() * p).exp()).clamp(min=1)
    score = (peak / largest * (total.log() / -p).exp()).clamp(-1, 1)
    return torch.log1p(-score) - torch.log1p(score)
