"""The sketch: what a data set of any size says about the order of its samples, as one integer tensor of fixed size.

A sample falls in the cell of the top 16 bits of its odds of being wrong, `(1 - p) / p`, as a float32: 128 cells to each
doubling, from 1e-38 on. The layout is `(num_cells + 1, 3)`: a row `(n, wrong, sum of p in units of 2**-32)` for
each cell, then one `(0, invalid, out of range)`. Sums of any batches, in any order, on any number of ranks, are the
same bits. A cell holds 2**31 samples.

Nothing is known about the order within a cell, so metrics have certified bounds: all of its errors first, or last.
"""

from functools import cache

import torch
from torch import Tensor

from ls_lightning.functional.levels import Levels, check_samples
from ls_lightning.functional.native.measure import add_rows
from ls_lightning.functional.outputs import NanPolicy, as_rows
from ls_lightning.functional.ranking import Ranked, Ranking, rank_chunks
from ls_lightning.functional.waiting import are_all

_UNITS = 2.0**32
_ROUNDING = 2.0**-22


def empty_sketch(ranking: Ranking) -> Tensor:
    """Return the sketch of no sample: int64 zeros `(num_cells + 1, 3)`."""
    return torch.zeros(ranking.num_cells + 1, 3, dtype=torch.int64)


def sketch(logits: Tensor, target: Tensor, ranking: Ranking) -> Tensor:
    """Sum up a batch; plain addition merges two of them.

    Args:
        logits: as `ranking.outputs` says: `(N, K, d1, ...)`, `(N,)`, `(N, 1)` or `(N, L, ...)`.
        target: class indices `(N, d1, ...)`, or 0 and 1 for binary and multilabel.
        ranking: how to read and rank them.

    Returns:
        int64 `(num_cells + 1, 3)` on the device of the logits. Nothing waits for the device: samples that are no
        numbers or whose target is out of range are counted apart, and `read_sketch` raises for them.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.

    Example:
        >>> sums = sketch(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), Ranking())
        >>> read_sketch(sums).wrong
        tensor([0., 1.], dtype=torch.float64)
    """
    return add_to_sketch(empty_sketch(ranking).to(logits.device), logits, target, ranking)


@torch.no_grad()
def add_to_sketch(sums: Tensor, logits: Tensor, target: Tensor, ranking: Ranking) -> Tensor:
    """Return `sums` with a batch added; see `sketch`."""
    total = sums.clone() if sums.device.type != "mps" else sums.cpu()
    if ranking.by_confidence and add_rows(*as_rows(logits, target, ranking.outputs), ranking.outputs, sketch=total):
        return total
    for ranked in rank_chunks(logits, target, ranking):
        sketch_samples(total, ranked)
    return total.to(sums.device)


def sketch_samples(sums: Tensor, ranked: Ranked) -> None:
    """Add samples to a sketch, in place."""
    num_cells, flat = len(sums) - 1, sums.view(-1)
    odds = ranked.log_odds.exp() if ranked.odds is None else ranked.odds
    first = cell_of(odds, num_cells).long() * 3
    p = (odds + 1).reciprocal_().mul_(_UNITS).round_().long()
    n, wrong = torch.ones_like(p), ranked.wrong
    if not are_all(ranked.counted):
        first, n = first.where(ranked.counted, 3 * num_cells), ranked.counted.long()
        wrong, p = wrong.where(ranked.counted, ranked.invalid), p.where(ranked.counted, ranked.out_of_range)
    # One column after the other takes a quarter of the time of three at once.
    for place, numbers in enumerate([n, wrong.long(), p]):
        flat[place:].index_add_(0, first, numbers)


def cell_of(odds: Tensor, num_cells: int) -> Tensor:
    """Find the cell, an int32, of each sample by its odds of being wrong."""
    return (odds.float().view(torch.int32) >> 16).clamp_(max=num_cells - 1)


def read_sketch(sums: Tensor, nan_policy: NanPolicy = "raise") -> Levels:
    """Turn the integers into levels, one for each non-empty cell.

    Raises:
        ValueError: some sample was not a number or its target out of range.
    """
    sums = sums.detach().cpu()
    check_samples(int(sums[:-1, 0].sum()), int(sums[-1, 1]), int(sums[-1, 2]), nan_policy)
    used = sums[:-1, 0] > 0
    n, wrong, p = sums[:-1][used].double().unbind(-1)
    return Levels(n, wrong, p / _UNITS, _widths(len(sums) - 1)[used])


def num_sketched(sums: Tensor) -> int:
    """How many samples were counted."""
    return int(sums[:-1, 0].sum())


@cache
def _widths(num_cells: int) -> Tensor:
    """Difference of the confidences at a cell's borders, and a little for the rounding to float32."""
    edges = (torch.arange(num_cells + 1, dtype=torch.int32) << 16).view(torch.float32).double()
    edges[-1] = torch.inf
    p = 1 / (1 + edges)
    return p[:-1] - p[1:] + _ROUNDING * p[:-1] * (1 - p[1:])
