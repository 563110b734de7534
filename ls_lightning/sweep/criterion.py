"""What the choice of eps minimises on validation: one metric, or a weighted sum of several."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from ls_lightning.errors import ConfigError
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.measures import MEASURES, Measure

_ALIASES = {"accuracy": "acc"}
_SCALED = "_scaled"


@dataclass(frozen=True)
class Criterion:
    r"""A weighted sum of metrics, each turned so that lower is better.

    .. math:: \sum_i w_i\, c_i, \quad c_i = 1 - m_i \text{ for accuracy},\ |m_i| \text{ for the gap},\ m_i \text{ else}

    Args:
        text: as the user wrote it.
        terms: weights and keys, e.g. ``((1.0, "nll"), (0.5, "ece"))``.
    """

    text: str
    terms: tuple[tuple[float, str], ...]

    def columns(self, stage: str) -> list[str]:
        """What a job must have, e.g. ``["val/nll"]``; ``nll_scaled`` is that after temperature scaling."""
        return [_column(stage, key) for _, key in self.terms]

    def cost(self, job: Job, stage: str) -> float:
        """The criterion of a job on ``val`` or ``test``; NaN if a metric is missing."""
        found = [job.values.get(column, math.nan) for column in self.columns(stage)]
        return sum(weight * _measure(key).cost(value) for (weight, key), value in zip(self.terms, found, strict=True))

    @property
    def label(self) -> str:
        """In words, e.g. ``"NLL + 0.5 ECE"``."""
        words = [(weight, _words(key)) for weight, key in self.terms]
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for weight, name in words)


def parse_criterion(text: str) -> Criterion:
    """Read ``select=``.

    Args:
        text: ``"nll"``, ``"accuracy"``, ``"nll+0.5*ece"``; any metric with a better side, and with ``_scaled`` behind
            it what temperature scaling leaves of it on validation.

    Raises:
        ConfigError: it names no metric, one without a better side, or a weight that is not above 0.

    Example:
        >>> parse_criterion("nll+0.5*ece").label
        'NLL + 0.5 ECE'
    """
    terms = []
    for term in text.replace(" ", "").split("+"):
        found = re.fullmatch(r"(?:(\d+\.?\d*|\.\d+)\*?)?([a-z_]\w*)", term)
        if found is None or float(found[1] or 1) <= 0:
            raise ConfigError(
                f"select must be a metric or a weighted sum such as nll+0.5*ece, got {text!r}. "
                "Every metric is turned so that lower is better; weights are above 0."
            )
        key = _ALIASES.get(found[2], found[2])
        name = key.removesuffix(_SCALED)
        if name not in MEASURES or MEASURES[name].best is None:
            options = [known for known, measure in MEASURES.items() if measure.best is not None]
            close = difflib.get_close_matches(name, [*options, *_ALIASES], n=1)
            raise ConfigError(
                f"select must name a metric ({', '.join(options[:8])}, ...), got {found[2]!r}."
                + (f" Did you mean {close[0]}?" if close else "")
            )
        terms.append((float(found[1] or 1), key))
    return Criterion(text, tuple(terms))


def _column(stage: str, key: str) -> str:
    return f"{stage}_scaled/{key.removesuffix(_SCALED)}" if key.endswith(_SCALED) else f"{stage}/{key}"


def _measure(key: str) -> Measure:
    return MEASURES[key.removesuffix(_SCALED)]


def _words(key: str) -> str:
    measure = _measure(key)
    name = {"high": "error rate", "zero": f"|{measure.label}|"}.get(measure.best or "", measure.label)
    return f"{name} after temperature scaling" if key.endswith(_SCALED) else name
