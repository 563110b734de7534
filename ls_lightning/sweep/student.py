"""Student's t distribution and the number of seeds that a paired comparison needs; standard library only."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

MOST_SEEDS = 1000
"""Differences that need more seeds than this are called too small to be found."""


def t_cdf(t: float, df: int) -> float:
    r"""Share of Student's t distribution below ``t``, in closed form for whole degrees of freedom.

    With :math:`\theta = \arctan(t / \sqrt{df})`, the share within ``±t`` is a finite sum of powers of
    :math:`\cos\theta`.

    Args:
        t: any number.
        df: degrees of freedom, at least 1.

    Example:
        >>> round(t_cdf(2.776445, 4), 6)
        0.975

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    theta = math.atan2(t, math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    term = total = math.cos(theta) if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cos2 * (k - 1) / k
        total += term
    if df == 1:
        total = 0.0
    within = 2 / math.pi * (theta + math.sin(theta) * total) if df % 2 else math.sin(theta) * total
    return 0.5 + within / 2


@lru_cache(maxsize=1024)
def t_quantile(share: float, df: int) -> float:
    """The ``t`` below which ``share`` of Student's t distribution lies.

    Args:
        share: in (0, 1).
        df: degrees of freedom, at least 1.

    Raises:
        ValueError: ``share`` or ``df`` is out of range.

    Example:
        >>> round(t_quantile(0.975, 4), 3)
        2.776
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}.")
    if df < 1:
        raise ValueError(f"df must be at least 1, got {df}. An interval needs two values.")
    if share < 0.5:
        return -t_quantile(1 - share, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < share and high < 1e300:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if t_cdf(middle, df) < share else (low, middle)
    return high


def seeds_needed(mean: float, sd: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    r"""Paired seeds with which a difference like this one would be found.

    The smallest n of at least 2 with

    .. math:: n \ge \left(t_{1-\alpha/2,\,n-1} + t_{power,\,n-1}\right)^2 sd^2 / mean^2

    Args:
        mean: of the paired differences; taken for the true one, which it is not.
        sd: their standard deviation, at least 0.
        alpha: chance of finding a difference where there is none, in (0, 1); two-sided.
        power: chance of finding the one that is there, in [0.5, 1).

    Returns:
        The number of seeds, or None if it is above ``MOST_SEEDS``.

    Example:
        >>> seeds_needed(mean=1.0, sd=1.0), seeds_needed(mean=0.0, sd=1.0)
        (10, None)

    Source: Cohen 1988, Statistical Power Analysis, section 2.4, with t for the normal quantiles.
    """
    if not (0 < alpha < 1 and 0.5 <= power < 1 and sd >= 0):
        raise ValueError(f"needed: 0 < alpha < 1, 0.5 <= power < 1, sd >= 0; got {alpha=}, {power=}, {sd=}.")
    if mean == 0 or not _enough(MOST_SEEDS, mean, sd, alpha, power):
        return None
    few, many = 1, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _enough(middle, mean, sd, alpha, power) else (middle, many)
    return many


def _enough(n: int, mean: float, sd: float, alpha: float, power: float) -> bool:
    if n < NormalDist().inv_cdf(1 - alpha / 2) ** 2 * (sd / mean) ** 2:
        return False  # t quantiles are larger than normal ones: no need to compute them
    needed = t_quantile(1 - alpha / 2, n - 1) + t_quantile(power, n - 1)
    return n >= (needed * sd / mean) ** 2
