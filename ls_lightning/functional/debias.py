"""What a calibration error would be without the noise of the labels, which makes even perfect bins differ."""

import math

import torch
from torch import Tensor

from ls_lightning.functional.sums import BinSums


def debiased_l1(bins: BinSums) -> Tensor:
    r"""Twice the ECE minus the ECE expected if labels were drawn anew: the bias is subtracted once.

    .. math:: \sum_b n_b \big(2 |g_b| - E|\mathcal N(g_b, \sigma_b^2)|\big), \quad \sigma_b^2 = a_b (1 - a_b) / n_b

    with the gap g_b of a bin; the mean of the folded normal is in closed form. Below 0 where noise explains more
    than there is; about half of the bias stays where g_b is noise alone.
    Source: Kumar et al. 2019, arXiv:1909.10155, who average 1000 draws.
    """
    counts = bins.n.clamp(min=1)
    gap, accuracy = (bins.p - bins.hits) / counts, bins.hits / counts
    # Without noise (all right, or all wrong) the ratio is infinite, and the mean is |gap|.
    noise = (accuracy * (1 - accuracy) / counts).clamp(min=0).sqrt().clamp(min=1e-300)
    ratio = gap / noise
    folded = noise * math.sqrt(2 / math.pi) * torch.exp(-ratio.square() / 2) + gap * torch.erf(ratio / math.sqrt(2))
    return (bins.n * (2 * gap.abs() - folded)).sum()


def debiased_l2(bins: BinSums) -> Tensor:
    r"""Sum the unbiased estimate of each bin's squared error; a bin of one sample, which has none, gives 0.

    .. math:: \sum_b n_b \Big(g_b^2 - \frac{a_b (1 - a_b)}{n_b - 1}\Big)

    Source: Bröcker 2012; Kumar et al. 2019, arXiv:1909.10155.
    """
    counts = bins.n.clamp(min=1)
    gap, accuracy = (bins.p - bins.hits) / counts, bins.hits / counts
    noise = accuracy * (1 - accuracy) / (counts - 1).clamp(min=1)
    return (bins.n * (gap.square() - noise)).where(bins.n > 1, 0).sum()
