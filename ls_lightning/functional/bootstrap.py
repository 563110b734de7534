"""Intervals for calibration errors, drawn from the sums of the bins instead of from the samples."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ls_lightning.functional.options import quoted
from ls_lightning.functional.outputs import is_int
from ls_lightning.functional.sums import BinSums, read_sums

Measured = Literal["ece", "gap"]


class Interval(NamedTuple):
    """Two numbers with the wanted share of the bootstrap's values between them."""

    low: float
    high: float


def bootstrap_interval(
    sums: Tensor, of: Measured = "ece", *, level: float = 0.95, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Draw what other data sets of this size would give, and return the middle `level` of it.

    The counts of the bins are multinomial; given them, a bin's sum of confidence minus hits is normal with the
    mean and variance of its samples. This is the bootstrap over samples, at a cost that does not grow with them. The
    ECE of a resampled data set is larger on average than that of the data, and so is the interval.

    Returns:
        `(low, high)`, the same for the same sums and seed, whatever else draws random numbers; NaN without samples.
    """
    _check(of, level, num_samples, seed)
    bins, totals = read_sums(sums)
    if totals.n == 0:
        return Interval(torch.nan, torch.nan)
    bins = BinSums(*(values[bins.n > 0] for values in bins))
    random = torch.Generator().manual_seed(seed)
    counts = _multinomial(bins.n, num_samples, random)
    gap = (bins.p - bins.hits) / bins.n
    variance = (bins.squared_residuals / bins.n - gap.square()).clamp(min=0)
    normal = torch.randn(counts.shape, generator=random, dtype=torch.float64)
    excess = counts * gap + (counts * variance).sqrt() * normal
    drawn = (excess.abs() if of == "ece" else excess).sum(1) / totals.n
    low, high = drawn.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(low, high)


def _check(of: str, level: float, num_samples: int, seed: int) -> None:
    if of not in get_args(Measured):
        raise ValueError(f"of must be one of {quoted(get_args(Measured))}, got {of!r}.")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}. 0.95 is usual.")
    if not is_int(num_samples) or num_samples < 1:
        raise ValueError(f"num_samples must be an int of at least 1, got {num_samples!r}. 1000 is usual.")
    if not is_int(seed):
        raise TypeError(f"seed must be an int, got {seed!r}.")


def _multinomial(n: Tensor, num_samples: int, random: torch.Generator) -> Tensor:
    """Draw counts `(num_samples, M)` with the sum and the shares of `n` `(M,)`, one bin after the other."""
    left = n.sum().expand(num_samples)
    drawn = []
    for share in (n / n.flip(0).cumsum(0).flip(0)).tolist():
        drawn.append(torch.binomial(left, torch.full_like(left, share), generator=random))
        left = left - drawn[-1]
    return torch.stack(drawn, 1)
