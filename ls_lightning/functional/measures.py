"""Metrics as functions of the sums of `calibration_sums`: each a 0-d float64, NaN if nothing was counted.

Of several data sets side by side, whose sums have been read to `BinSums` `(..., num_bins)` and `Totals` `(...)`, each
is a float64 `(...)`; only the debiased errors are of one.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ls_lightning.functional.debias import debiased_l1, debiased_l2
from ls_lightning.functional.options import quoted
from ls_lightning.functional.sums import BinSums, Totals, read_sums

Norm = Literal["l1", "l2", "max"]
Sums = Tensor | tuple[BinSums, Totals]


class ReliabilityBins(NamedTuple):
    """What a reliability diagram shows, each float64 `(num_bins,)`; NaN in empty bins (`counts` 0)."""

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor


def reliability_bins(sums: Tensor) -> ReliabilityBins:
    """Count, mean confidence and accuracy (share of y=1 with `confidence="positive"`) of each bin."""
    bins, _ = read_sums(sums)
    return ReliabilityBins(bins.n, bins.p / bins.n, bins.hits / bins.n)


def num_samples(sums: Tensor) -> int:
    """How many samples were counted."""
    return int(read_sums(sums)[1].n)


def num_omitted(sums: Tensor) -> int:
    """How many samples were no numbers and left out, as `nan_policy="omit"` asks."""
    return int(read_sums(sums)[1].omitted)


def check_norm(norm: str, debias: bool = False) -> None:
    """Raise a ValueError for an unknown norm, or one without an estimate of its bias."""
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {quoted(get_args(Norm))}, got {norm!r}.")
    if debias and norm == "max":
        raise ValueError("debias=True needs norm='l1' or 'l2', got norm='max'.")


def calibration_error(sums: Sums, norm: Norm = "l1", debias: bool = False) -> Tensor:
    """Bin-weighted mean (`l1`), root mean square (`l2`) or maximum (`max`) of `|conf - acc|`."""
    check_norm(norm, debias)
    bins, totals = _read(sums)
    if debias:
        total = debiased_l1(bins) if norm == "l1" else debiased_l2(bins)
        return total / totals.n if norm == "l1" else (total / totals.n).clamp(min=0).sqrt()
    gaps = (bins.p - bins.hits).abs()
    if norm == "l1":
        return gaps.sum(-1) / totals.n
    # Empty bins have gap 0 here and count as 1 only to keep 0/0 away.
    counts = bins.n.clamp(min=1)
    if norm == "l2":
        return ((gaps**2 / counts).sum(-1) / totals.n).sqrt()
    return (gaps / counts).amax(-1).where(totals.n > 0, torch.nan)


def calibration_gap(sums: Sums) -> Tensor:
    """Mean confidence minus accuracy."""
    bins, totals = _read(sums)
    return (bins.p.sum(-1) - bins.hits.sum(-1)) / totals.n


def overconfidence_part(sums: Sums) -> Tensor:
    """`sum_b n_b/N max(conf_b - acc_b, 0)`."""
    bins, totals = _read(sums)
    return (bins.p - bins.hits).clamp(min=0).sum(-1) / totals.n


def underconfidence_part(sums: Sums) -> Tensor:
    """`sum_b n_b/N max(acc_b - conf_b, 0)`."""
    bins, totals = _read(sums)
    return (bins.hits - bins.p).clamp(min=0).sum(-1) / totals.n


def overconfidence_error(sums: Sums) -> Tensor:
    """`sum_b n_b/N conf_b max(conf_b - acc_b, 0)`."""
    return _weighted_excess(sums, sign=1)


def underconfidence_error(sums: Sums) -> Tensor:
    """`sum_b n_b/N conf_b max(acc_b - conf_b, 0)`."""
    return _weighted_excess(sums, sign=-1)


def accuracy(sums: Sums) -> Tensor:
    """Share of samples whose predicted class is the target."""
    bins, totals = _read(sums)
    return bins.correct.sum(-1) / totals.n


def negative_log_likelihood(sums: Sums) -> Tensor:
    """Mean negative log-probability of the target; inf where some target has probability 0."""
    _, totals = _read(sums)
    return (totals.nll / totals.n).where(totals.infinite == 0, torch.inf)


def brier_score(sums: Sums) -> Tensor:
    """Mean squared distance of the probabilities from the one-hot target."""
    _, totals = _read(sums)
    return totals.brier / totals.n


def mean_entropy(sums: Sums) -> Tensor:
    """Mean entropy of the predicted probabilities, in nats; NaN if it was not summed up (`Spec(entropy=True)`)."""
    _, totals = _read(sums)
    return (totals.entropy / totals.n).where(totals.entropy >= 0, torch.nan)


def _weighted_excess(sums: Sums, sign: int) -> Tensor:
    bins, totals = _read(sums)
    confidence = bins.p / bins.n.clamp(min=1)
    return (confidence * (sign * (bins.p - bins.hits)).clamp(min=0)).sum(-1) / totals.n


def _read(sums: Sums) -> tuple[BinSums, Totals]:
    return read_sums(sums) if isinstance(sums, Tensor) else sums
