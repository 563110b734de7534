"""The Brier score of a bin's probability, taken apart exactly."""

from typing import NamedTuple

from torch import Tensor

from ls_lightning.functional.sums import read_sums


class BrierDecomposition(NamedTuple):
    r"""`brier = reliability - resolution + uncertainty + within_bin_variance - within_bin_covariance`.

    Each 0-d float64, with mean probability c_b and frequency a_b of a bin, and the frequency a of all samples:

    Attributes:
        brier: :math:`\frac1N \sum_i (p_i - a_i)^2`, of the binned probability.
        reliability: :math:`\sum_b w_b (c_b - a_b)^2`: the squared RMS calibration error; 0 is calibrated.
        resolution: :math:`\sum_b w_b (a_b - a)^2`: how far apart the bins are; more is better.
        uncertainty: :math:`a (1 - a)`, which no model changes while its accuracy is the same.
        within_bin_variance: :math:`\frac1N \sum_b \sum_{i \in b} (p_i - c_b)^2`.
        within_bin_covariance: :math:`\frac2N \sum_b \sum_{i \in b} (p_i - c_b)(a_i - a_b)`.
    """

    brier: Tensor
    reliability: Tensor
    resolution: Tensor
    uncertainty: Tensor
    within_bin_variance: Tensor
    within_bin_covariance: Tensor


def brier_decomposition(sums: Tensor) -> BrierDecomposition:
    """Take apart the Brier score of the binned probability: of the top label, or of y=1 if that is binned."""
    bins, totals = read_sums(sums)
    counts, n = bins.n.clamp(min=1), totals.n
    mean, frequency = bins.p / counts, bins.hits / counts
    base = bins.hits.sum() / n
    return BrierDecomposition(
        brier=bins.squared_residuals.sum() / n,
        reliability=(bins.n * (mean - frequency).square()).sum() / n,
        resolution=(bins.n * (frequency - base).square()).sum() / n,
        uncertainty=base * (1 - base),
        within_bin_variance=(bins.p_squared - bins.n * mean.square()).sum() / n,
        within_bin_covariance=2 * (bins.p_hits - bins.n * mean * frequency).sum() / n,
    )
