"""The accumulator: what a data set says about calibration, as one integer tensor that is only ever added.

Every entry is a number in two int64: its whole part, and the rest in units of 2**-32. Integer addition is
associative, so the sums of any batches, in any order, on any number of ranks, are the same bits; and nothing
overflows before 2**32 samples of the largest loss, or 2**62 of a usual one. The layout is
`(num_bins + 1, 8, 2)`: a row of `BinSums` for each bin, padded with a 0, then one of `Totals`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Closed, Spec, as_rows
from ls_lightning.functional.samples import Samples, measure

_UNITS = 32
_LARGEST = 2.0**31


class BinSums(NamedTuple):
    """Sums per bin over the samples whose confidence p falls in it, each float64 `(num_bins,)`."""

    n: Tensor
    hits: Tensor
    p: Tensor
    p_squared: Tensor
    p_hits: Tensor
    squared_residuals: Tensor
    correct: Tensor


class Totals(NamedTuple):
    """Sums over all samples, each a 0-d float64.

    `infinite` counts those of infinite `nll`; samples that are no numbers are `invalid`, or, if `nan_policy` says
    so, `omitted`.
    """

    n: Tensor
    invalid: Tensor
    out_of_range: Tensor
    infinite: Tensor
    nll: Tensor
    brier: Tensor
    entropy: Tensor
    omitted: Tensor


def empty_sums(num_bins: int) -> Tensor:
    """Return the sums of no sample: int64 zeros `(num_bins + 1, 8, 2)`."""
    return torch.zeros(num_bins + 1, len(Totals._fields), 2, dtype=torch.int64)


@torch.no_grad()
def calibration_sums(logits: Tensor, target: Tensor, spec: Spec) -> Tensor:
    """Sum up a batch; all metrics are functions of this, and `add_sums` merges two of them.

    Args:
        logits: as `spec.task` and `spec.input` say: `(N, K, d1, ...)`, `(N,)`, `(N, 1)` or `(N, L, ...)`.
        target: class indices `(N, d1, ...)`, or 0 and 1 for binary and multilabel.
        spec: how to read and bin them.

    Returns:
        int64 `(num_bins + 1, 8, 2)` on the device of the logits. Nothing waits for the device: samples that
        are no numbers or whose target is out of range are counted apart, and `read_sums` raises for them.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0, 0.0], [0.2, 0.0, 0.1]]), torch.tensor([0, 2])
        >>> sums = calibration_sums(logits, target, Spec(num_bins=2))
        >>> read_sums(sums)[0].hits
        tensor([0., 1.], dtype=torch.float64)
    """
    scores, labels = as_rows(logits, target, spec)
    if scores.device.type == "mps":  # has no float64
        scores, labels = scores.cpu(), labels.cpu()
    per_sample = scores.shape[1] if scores.ndim == 2 else 2
    # A chunk that stays in a processor's cache is several times faster; on a GPU launches cost more.
    rows = max(1, 2 ** (16 if scores.device.type == "cpu" else 22) // per_sample)
    sums = empty_sums(spec.num_bins).to(scores.device)
    for start in range(0, len(labels), rows):
        chunk = slice(start, start + rows)
        sums = add_sums(sums, _sum_samples(measure(scores[chunk], labels[chunk], spec), spec))
    return sums.to(logits.device)


def add_sums(first: Tensor, second: Tensor) -> Tensor:
    """Merge two sums. Plain addition is as good, until the rests of 2**31 of them have not been carried."""
    total = first + second
    carry = total[..., 1] >> _UNITS
    return torch.stack([total[..., 0] + carry, total[..., 1] - (carry << _UNITS)], -1)


def bin_index(p: Tensor, num_bins: int, closed: Closed = "right") -> Tensor:
    """Find the bin of each probability: `ceil(p M) - 1` if closed on the right, `floor(p M)` if on the left.

    Exact for float32, whose product with M float64 holds; a float64 within its rounding of k/M counts as k/M.

    Example:
        >>> bin_index(torch.tensor([0.0, 0.25, 0.26, 1.0]), 4)
        tensor([0, 0, 1, 3])
        >>> bin_index(torch.tensor([0.0, 0.25, 0.26, 1.0]), 4, closed="left")
        tensor([0, 1, 1, 3])
    """
    position = p.double() * num_bins
    edge = position.round()
    position = torch.where((position - edge).abs() <= position * 2.0**-50, edge, position)
    index = position.ceil() - 1 if closed == "right" else position.floor()
    return index.clamp(0, num_bins - 1).long()


def read_sums(sums: Tensor) -> tuple[BinSums, Totals]:
    """Turn the integers into float64 numbers on the CPU, each rounded once.

    Raises:
        ValueError: some sample was not a number or its target out of range, so no metric would be true.
    """
    exact = sums.detach().cpu().double()
    values = exact[..., 0] + exact[..., 1] * 2.0**-_UNITS
    bins, totals = BinSums(*values[:-1, :-1].unbind(1)), Totals(*values[-1].unbind())
    seen = int(totals.n + totals.invalid + totals.out_of_range + totals.omitted)
    check_valid(int(totals.invalid), int(totals.out_of_range), f" of {seen}")
    return bins, totals


def check_valid(invalid: int, out_of_range: int, seen: str = "") -> None:
    """Raise a ValueError if some sample was not a number or its target out of range: no metric would be true."""
    if invalid > 0:
        raise ValueError(
            f"{invalid}{seen} samples cannot be measured: logits must not be NaN or +inf, nor all -inf; with "
            "input='probs', rows must lie in [0, 1] and sum to 1. nan_policy='omit' leaves them out."
        )
    if out_of_range > 0:
        raise ValueError(
            f"{out_of_range}{seen} targets are out of range: they must be classes from 0 to K-1 (0 or 1 for binary "
            "and multilabel), or ignore_index."
        )


def _sum_samples(samples: Samples, spec: Spec) -> Tensor:
    p, hit, counted = samples.confidence, samples.hit, samples.counted
    finite, none = samples.nll < _LARGEST, torch.zeros_like(counted)
    bins = BinSums(torch.ones_like(p), hit, p, p * p, p * hit, (p - hit) ** 2, samples.correct)
    totals = Totals(
        n=counted.double(),
        invalid=(samples.invalid if spec.nan_policy == "raise" else none).double(),
        out_of_range=samples.out_of_range.double(),
        infinite=(counted & ~finite).double(),
        nll=torch.where(counted & finite, samples.nll, 0),
        brier=torch.where(counted, samples.brier, 0),
        entropy=torch.where(counted, samples.entropy, 0),
        omitted=(samples.invalid if spec.nan_policy == "omit" else none).double(),
    )
    sums = empty_sums(spec.num_bins).to(p.device)
    numbers = torch.where(counted[:, None], torch.stack(bins, -1), 0)
    sums[:-1, :-1, 1].index_add_(0, bin_index(p, spec.num_bins, spec.closed), _units(numbers))
    numbers = torch.stack(totals, -1)
    whole = numbers.floor()
    sums[-1] = torch.stack([whole.long().sum(0), _units(numbers - whole).sum(0)], -1)
    return sums


def _units(numbers: Tensor) -> Tensor:
    return (numbers * 2.0**_UNITS).round().long()
