"""What the choice of eps minimises on validation: one metric, or a weighted sum of several."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from ls_lightning.errors import ConfigError, did_you_mean
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.measures import MEASURES, Measure, measure_of, metric_key, of_test

_SCALED = "_scaled"
_SIDES = {"min": "low", "max": "high"}
_TERM = re.compile(r"(?:(\d+\.?\d*|\.\d+)\*?)?([A-Za-z_][\w/.]*)(?::(min|max))?")


class Term(NamedTuple):
    """A weight and a metric, with ``scaled`` as temperature scaling leaves it."""

    weight: float
    measure: Measure
    scaled: bool = False

    def column(self, stage: str) -> str:
        """Where a job has it."""
        return f"{stage}{_SCALED * self.scaled}/{self.measure.key}"

    @property
    def label(self) -> str:
        """Of its cost, e.g. ``"error rate"`` for accuracy."""
        words = {"high": f"1 - {self.measure.label}", "zero": f"|{self.measure.label}|"}
        name = "error rate" if self.measure.key == "acc" else words.get(self.measure.best or "", self.measure.label)
        return f"{name} after temperature scaling" if self.scaled else name


@dataclass(frozen=True)
class Criterion:
    r"""A weighted sum of metrics, each turned so that lower is better.

    .. math:: \sum_i w_i\, c_i, \quad c_i = 1 - m_i \text{ for accuracy},\ |m_i| \text{ for the gap},\ m_i \text{ else}

    Args:
        text: as the user wrote it.
        terms: that are added up.
    """

    text: str
    terms: tuple[Term, ...]

    def columns(self, stage: str) -> list[str]:
        """What a job must have, e.g. ``["val/nll"]``; ``nll_scaled`` is that after temperature scaling."""
        return [term.column(stage) for term in self.terms]

    def cost(self, job: Job, stage: str) -> float:
        """The criterion of a job on ``val`` or ``test``; NaN if a metric is missing."""
        found = [job.values.get(column, math.nan) for column in self.columns(stage)]
        return sum(term.weight * term.measure.cost(value) for term, value in zip(self.terms, found, strict=True))

    @property
    def own(self) -> list[Measure]:
        """Metrics of the user's own among them."""
        return [term.measure for term in self.terms if term.measure.key not in MEASURES]

    @property
    def label(self) -> str:
        """In words, e.g. ``"NLL + 0.5 ECE"``."""
        return " + ".join(term.label if term.weight == 1 else f"{term.weight:g} {term.label}" for term in self.terms)


def parse_criterion(text: str) -> Criterion:
    """Read ``select=``.

    Args:
        text: ``"nll"``, ``"accuracy"``, ``"nll+0.5*ece"``; any metric with a better side, and with ``_scaled`` behind
            it what temperature scaling leaves of it on validation. One of the user's own has ``:min`` or ``:max``
            behind it, unless its name says which is better: ``"macro_f1"``, ``"val/score:max"``.

    Raises:
        ConfigError: it names no metric, one without a better side, or a weight that is not above 0.

    Example:
        >>> parse_criterion("nll+0.5*ece").label, parse_criterion("score:max").label
        ('NLL + 0.5 ECE', '1 - score')
    """
    return Criterion(text, tuple(_term(term, text) for term in text.replace(" ", "").split("+")))


def _term(term: str, text: str) -> Term:
    found = _TERM.fullmatch(term)
    if found is None or float(found[1] or 1) <= 0:
        raise ConfigError(
            f"select must be a metric or a weighted sum such as nll+0.5*ece, got {text!r}. "
            "Every metric is turned so that lower is better; weights are above 0."
        )
    name, side = found[2], found[3]
    if of_test(name):
        raise ConfigError(f"select is of validation data, got {name!r}: what is chosen on test data flatters itself.")
    key = metric_key(name.removesuffix(_SCALED))
    measure = measure_of(key, _SIDES.get(side))
    if measure.best is None:
        options = [known for known, one in MEASURES.items() if one.best is not None]
        raise ConfigError(
            f"select must name a metric ({', '.join(options[:8])}, ...), got {name!r}."
            f"{did_you_mean(key, [*options, 'accuracy'])} For one of your own say which side is better: {name}:max or "
            f"{name}:min."
        )
    if side is not None and measure.best != _SIDES[side]:
        better = {"high": "higher", "low": "lower", "zero": "nearer to 0"}[measure.best]
        raise ConfigError(f"{key} is better {better}, so {term} would choose the worst. Leave :{side} away.")
    return Term(float(found[1] or 1), measure, name.endswith(_SCALED))
