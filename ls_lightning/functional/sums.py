"""The accumulator: what a data set says about calibration, as one integer tensor that is only ever added.

Every entry is a number in two int64: its whole part, and the rest in units of 2**-32. Integer addition is
associative, so the sums of any batches, in any order, on any number of ranks, are the same bits; and nothing
overflows before 2**32 samples of the largest loss, or 2**62 of a usual one. The layout is
`(num_bins + 1, 8, 2)`: a row of `BinSums` for each bin, padded with a 0, then one of `Totals`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import offset, to_integers
from ls_lightning.functional.native.measure import add_rows
from ls_lightning.functional.outputs import Closed, Spec, as_rows
from ls_lightning.functional.samples import Samples, measure
from ls_lightning.functional.waiting import are_all

_UNITS = 32
_LARGEST = 2.0**31
ROWS = 2**16
"""How many samples are read at a time."""


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
    sums = empty_sums(spec.num_bins)
    return add_batch(sums if logits.device.type == "cpu" else sums.to(logits.device), logits, target, spec)


@torch.no_grad()
def add_batch(sums: Tensor, logits: Tensor, target: Tensor, spec: Spec) -> Tensor:
    """Return `sums` with a batch added; see `calibration_sums`."""
    scores, labels = as_rows(logits, target, spec)
    total = sums.clone()
    if add_rows(scores, labels, spec, sums=total):
        return total
    if scores.device.type == "mps":  # has no float64
        scores, labels, total = scores.cpu(), labels.cpu(), total.cpu()
    for start in range(0, len(labels), ROWS):
        chunk = slice(start, start + ROWS)
        total = add_sums(total, sum_samples(measure(scores[chunk], labels[chunk], spec), spec))
    return total.to(sums.device)


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
    # The product is moved by less than what is between float32 numbers and by more than float64's rounding.
    if closed == "right":
        return (p.double() * (num_bins * (1 - 2.0**-50))).ceil_().sub_(1).clamp_(min=0).long()
    return (p.double() * (num_bins * (1 + 2.0**-50))).floor_().clamp_(max=num_bins - 1).long()


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


def sum_samples(samples: Samples, spec: Spec) -> Tensor:
    """Sum up samples as `calibration_sums` does."""
    sums = empty_sums(spec.num_bins).to(samples.counted.device)
    counted, finite, entropy = samples.counted, samples.nll < _LARGEST, samples.entropy
    every, totals = are_all(counted), Totals(*sums[-1])
    _sum_bins(sums[:-1, :-1, 1], samples, spec, every)
    if every and are_all(finite):
        totals.n[0] = len(counted)
        _sum_up(totals, samples.nll, samples.brier, entropy)
        return sums
    flags = [counted, samples.out_of_range, counted & ~finite, samples.invalid]
    totals.n[0], totals.out_of_range[0], totals.infinite[0], invalid = torch.stack(flags).sum(1)
    (totals.omitted if spec.nan_policy == "omit" else totals.invalid)[0] = invalid
    nll, brier = samples.nll.where(counted & finite, 0), samples.brier.where(counted, 0)
    _sum_up(totals, nll, brier, None if entropy is None else entropy.where(counted, 0))
    return sums


def _sum_up(totals: Totals, nll: Tensor, brier: Tensor, entropy: Tensor | None) -> None:
    """Fill in the sums of numbers, all of them finite."""
    whole = nll.floor()
    totals.nll[0] = to_integers(whole, 0).sum() - offset(0, len(whole))
    for total, rest in ((totals.nll, nll - whole), (totals.brier, brier), (totals.entropy, entropy)):
        if rest is not None:
            total[1] = to_integers(rest, _UNITS).sum() - offset(_UNITS, len(rest))
    if entropy is None:  # below 0, no sum of entropies can be: it says that there is none
        totals.entropy[0] -= totals.n[0]


def _sum_bins(sums: Tensor, samples: Samples, spec: Spec, every: bool) -> None:
    """Fill in the `BinSums` `(num_bins, 7)`, in units of 2**-32."""
    p, bins = samples.confidence, spec.num_bins
    # All sums follow from those of n, p and p*p for each bin, correct or not, hit or not.
    cell = bin_index(p, bins, spec.closed)
    if samples.hit is samples.correct:
        cell.add_(samples.hit, alpha=3 * bins)
    else:
        cell.add_(samples.correct, alpha=2 * bins).add_(samples.hit, alpha=bins)
    if not every:
        cell = cell.where(samples.counted, 4 * bins)
    n, p, squares = (
        torch.zeros(4 * bins + 1, dtype=torch.int64, device=p.device).index_add_(0, cell, numbers)
        for numbers in (torch.ones_like(cell), to_integers(p, _UNITS), to_integers(p * p, _UNITS))
    )
    excess = n * offset(_UNITS)
    n <<= _UNITS
    cells = torch.stack([n, p - excess, squares - excess])[:, :-1].view(3, 2, 2, bins)
    n, p, squares = cells.sum((1, 2))
    hits, p_hits, _ = cells[:, :, 1].sum(1)
    correct = cells[0, 1].sum(0)
    torch.stack([n, hits, p, squares, p_hits, squares - 2 * p_hits + hits, correct], 1, out=sums)
