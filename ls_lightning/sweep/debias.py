"""The debiased ECE, read off the bins of a reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence


def debiased_ece(counts: Sequence[float], confidence: Sequence[float], accuracy: Sequence[float]) -> float:
    r"""Twice the ECE minus the ECE expected if labels were drawn anew, as ``metrics=full`` measures it.

    .. math:: \sum_b \frac{n_b}{N} \big(2 |g_b| - E|\mathcal N(g_b, \sigma_b^2)|\big), \quad
        \sigma_b^2 = a_b (1 - a_b) / n_b

    Args:
        counts: samples n_b in each bin.
        confidence: their mean confidence; the gap g_b is that minus accuracy.
        accuracy: their accuracy a_b, in [0, 1].

    Returns:
        A share of 1, or NaN if there is no sample. Below 0 where noise explains more than there is.

    Example:
        >>> round(debiased_ece([100, 0], [0.7, math.nan], [0.6, math.nan]), 4)
        0.0993

    Source: Kumar et al. 2019, arXiv:1909.10155.
    """
    total = sum(counts)
    bins = [bin for bin in zip(counts, confidence, accuracy, strict=True) if bin[0] > 0]
    if not bins or not total > 0:
        return math.nan
    return sum(n * _debiased(claimed - reached, reached * (1 - reached) / n) for n, claimed, reached in bins) / total


def _debiased(gap: float, variance: float) -> float:
    """Twice the size of the gap minus the mean of the folded normal."""
    if not variance > 0:  # all right, or all wrong
        return abs(gap)
    noise = math.sqrt(variance)
    ratio = gap / noise
    folded = noise * math.sqrt(2 / math.pi) * math.exp(-ratio * ratio / 2) + gap * math.erf(ratio / math.sqrt(2))
    return 2 * abs(gap) - folded
