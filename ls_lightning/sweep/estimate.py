"""Means and differences over seeds, with t intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ls_lightning.sweep.student import t_quantile


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Args:
        mean: of the values.
        half: half the width of the interval; NaN where one value says nothing of the spread.
        sd: standard deviation of the values (of the differences, if they are paired); NaN for one value.
        n: number of values, or of pairs; of two unpaired samples the smaller.
        paired: whether it is a difference over matching seeds.
    """

    mean: float
    half: float
    sd: float
    n: int
    paired: bool = False

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half

    @property
    def se(self) -> float:
        """Standard error of a mean of ``n`` values or pairs."""
        return self.sd / math.sqrt(self.n)

    @property
    def separated(self) -> bool:
        """Whether the interval leaves 0 out; never so without a spread."""
        return abs(self.mean) > self.half


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    r"""Mean of the seeds and its t interval.

    .. math:: \bar x \pm t_{(1 + level)/2,\,n-1}\, s / \sqrt n

    Args:
        values: one a seed, at least one.
        level: of the interval, in (0, 1).

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> round(found.mean, 3), round(found.half, 3), found.n
        (2.0, 2.484, 3)
    """
    n = len(values)
    if n == 0:
        raise ValueError("values must hold at least one number, got none.")
    if n == 1:
        return Estimate(values[0], math.nan, math.nan, 1)
    sd = _sd(values)
    return Estimate(fmean(values), t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n), sd, n)


def difference(after: Mapping[int, float], before: Mapping[int, float], level: float = 0.95) -> Estimate:
    """Mean of ``after - before``, paired over the seeds that both have; Welch's interval if fewer than two match.

    Args:
        after: value by seed; neither may be empty.
        before: value by seed.
        level: of the interval, in (0, 1).

    Example:
        >>> found = difference({0: 1.0, 1: 2.5, 7: 9.0}, {0: 0.5, 1: 1.0})
        >>> found.mean, found.n, found.paired
        (1.0, 2, True)

    Source: Welch 1947 for seeds that do not match, degrees of freedom rounded down.
    """
    seeds = sorted(after.keys() & before.keys())
    if len(seeds) > 1 or len(seeds) == min(len(after), len(before)):
        found = mean_interval([after[seed] - before[seed] for seed in seeds], level)
        return Estimate(found.mean, found.half, found.sd, found.n, paired=True)
    return _welch(list(after.values()), list(before.values()), level)


def _welch(after: Sequence[float], before: Sequence[float], level: float) -> Estimate:
    mean, n = fmean(after) - fmean(before), min(len(after), len(before))
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    a, b = _sd(after) ** 2 / len(after), _sd(before) ** 2 / len(before)
    if a + b == 0:
        return Estimate(mean, 0.0, 0.0, n)
    df = (a + b) ** 2 / (a**2 / (len(after) - 1) + b**2 / (len(before) - 1))
    return Estimate(mean, t_quantile((1 + level) / 2, int(df)) * math.sqrt(a + b), math.sqrt((a + b) * n), n)


def _sd(values: Sequence[float]) -> float:
    """Standard deviation of two values or more, exactly 0 where all are equal; a fifth of the time of ``stdev``."""
    if min(values) == max(values):
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1))
