"""The search space: what Hydra's grammar says, as optuna's distributions, and back to overrides."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError

_WORD = re.compile(r"(?!(null|true|false|nan|inf)$)[a-z_][\w/.@-]*", re.IGNORECASE)
"""What Hydra's grammar reads as a string without quotes, which are lost within ``choice``."""


@dataclass(frozen=True)
class Dimension:
    """One key that is searched.

    Args:
        key: with its ``+`` where it is a new key.
        text: as typed.
        distribution: of its values.
        choices: for a categorical one, each value and how Hydra's grammar writes it.
    """

    key: str
    text: str
    distribution: BaseDistribution
    choices: tuple[tuple[Any, str], ...] = ()

    @property
    def name(self) -> str:
        """Of the parameter in the study."""
        return self.key.lstrip("+")

    def override(self, value: Any) -> str:
        """``key=value``; a float has all its digits."""
        text = next((text for choice, text in self.choices if choice == value), repr(value))
        return f"{self.key}={text}"

    def probe(self, k: int) -> Any:
        """A value to try the composition with; every choice comes in turn."""
        return self.choices[k % len(self.choices)][0] if self.choices else self.distribution.low  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Space:
    """What was typed, in its order: overrides that hold for every trial, and dimensions."""

    parts: tuple[str | Dimension, ...]

    @property
    def dimensions(self) -> list[Dimension]:
        """Those that are searched."""
        return [part for part in self.parts if isinstance(part, Dimension)]

    @property
    def fixed(self) -> list[str]:
        """The overrides of every trial."""
        return [part for part in self.parts if isinstance(part, str)]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """As ``study.ask`` takes them."""
        return {dimension.name: dimension.distribution for dimension in self.dimensions}

    def overrides(self, params: dict[str, Any]) -> list[str]:
        """Of one trial."""
        return [part if isinstance(part, str) else part.override(params[part.name]) for part in self.parts]

    def probes(self) -> list[list[str]]:
        """Overrides that must compose, with every choice among them."""
        count = max(len(dimension.choices) or 1 for dimension in self.dimensions)
        return [self.overrides({d.name: d.probe(k) for d in self.dimensions}) for k in range(count)]


def parse_space(arguments: Sequence[str], config_loader: ConfigLoader | None = None) -> Space:
    """Split overrides into those of every trial and those that are searched; of a key given twice the last counts.

    Args:
        arguments: e.g. ``["loss=ce,kl", "eps=interval(0,0.3)", "seed=1"]``.
        config_loader: of the app; needed for ``glob``.

    Raises:
        SweeperError: a dimension makes no sense, or there is none.

    Example:
        >>> space = parse_space(["loss=ce,kl", "eps=interval(0,0.3)", "+depth=int(interval(1,4))", "seed=1"])
        >>> space.overrides({"loss": "kl", "eps": 0.125, "depth": 3})
        ['loss=kl', 'eps=0.125', '+depth=3', 'seed=1']
    """
    parts: dict[str, str | Dimension] = {}
    for override in OverridesParser.create(config_loader=config_loader).parse_overrides(list(arguments)):
        key = override.get_key_element()
        parts.pop(key, None)
        parts[key] = _dimension(override) if override.is_sweep_override() else str(override.input_line)
    space = Space(tuple(parts.values()))
    if not space.dimensions:
        raise SweeperError("nothing is searched: give a key several values, e.g. 'eps=interval(0,0.3)' or loss=ce,kl.")
    return space


def _dimension(override: Override) -> Dimension:
    key, sweep, text = override.get_key_element(), override.value(), str(override.input_line)
    log = "log" in getattr(sweep, "tags", ())
    if getattr(sweep, "shuffle", False):
        raise SweeperError(f"the order of values means nothing to a search, got {text}. Leave shuffle away.")
    try:
        if isinstance(sweep, IntervalSweep):
            kind = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
            return Dimension(key, text, kind(sweep.start, sweep.end, log=log))  # type: ignore[arg-type]
        if log:
            raise ValueError("tag(log, ...) is for an interval")
        if isinstance(sweep, RangeSweep):
            return Dimension(key, text, _range(sweep))
        choices = tuple(_choices(override))
        if len({value for value, _ in choices}) < len(choices):
            raise ValueError("a value comes twice")
        return Dimension(key, text, CategoricalDistribution([value for value, _ in choices]), choices)
    except ValueError as error:
        raise SweeperError(f"{text} cannot be searched: {str(error).rstrip('.')}.") from error


def _range(sweep: RangeSweep) -> BaseDistribution:
    """Without its end, as Hydra has it; in decimals, where a sum of floats would pass the end."""
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ValueError("the range is empty")
    low, high = sorted((start, start + (count - 1) * step))
    if all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step)):
        return IntDistribution(int(low), int(high), step=int(abs(step)))
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def _choices(override: Override) -> Iterator[tuple[Any, str]]:
    """Each value as the study stores it, and as an override has it."""
    for value, text in zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True):
        plain = value.text if isinstance(value, QuotedString) else value
        if isinstance(plain, str) and not _WORD.fullmatch(plain):
            yield plain, QuotedString(plain, Quote.single).with_quotes()
        else:
            yield (plain if isinstance(plain, bool | int | float | str | None) else text), text
