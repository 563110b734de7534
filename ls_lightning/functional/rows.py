"""What one row of class scores says, by arithmetic that does not depend on the rows beside it.

A vectorised float sum rounds differently for another batch size, memory layout or number of threads. So the sums over
classes are taken on a grid on which float64 additions are exact, and all else is elementwise.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.split import chunk_size, split_rows

PROBABILITY_TOLERANCE = 1e-2
"""How far rows given as probabilities may leave [0, 1] or a sum of 1: what rounding to bfloat16 does."""


class Row(NamedTuple):
    """Per row, each `(S,)`; float64 but for `valid` (bool) and `predicted` (int64). If not valid, any numbers.

    Attributes:
        valid: it can be read.
        predicted: the most probable class, the first of them if several are.
        top: its probability.
        log_odds: of its being wrong, `log((1 - top) / top)`; exact however sure the model is.
        true: the probability of the label.
        nll: minus its logarithm.
        squares: the sum of the squared probabilities.
        entropy: in nats; None where nobody asked for it.
    """

    valid: Tensor
    predicted: Tensor
    top: Tensor
    log_odds: Tensor
    true: Tensor
    nll: Tensor
    squares: Tensor
    entropy: Tensor | None


def are_logits(rows: Tensor) -> Tensor:
    """Tell rows `(..., K)` without NaN or +inf; -inf is a masked class, but one class has to be left."""
    return rows.amax(-1).isfinite()


def are_probabilities(rows: Tensor) -> Tensor:
    """Tell rows `(..., K)` that are probabilities but for rounding."""
    inside = (rows - 0.5).abs().amax(-1) <= 0.5 + PROBABILITY_TOLERANCE
    total = exact_sum(torch.where(inside[..., None], rows, 0))
    return inside & ((total - 1).abs() <= PROBABILITY_TOLERANCE)


def read_logits(rows: Tensor, label: Tensor, entropy: bool = False) -> Row:
    """Read logits `(S, K)` of any floating type and class indices `(S,)`."""
    split = split_rows(rows, entropy)
    peak, weighted = split.peak, split.weighted
    below = rows.gather(1, label[:, None]).squeeze(1).double() - peak
    lead = split.second - peak
    share = lead.exp()
    rest = share * split.total
    top, log_total = 1 / (1 + rest), rest.log1p()
    return Row(
        valid=peak - peak == 0,
        predicted=split.predicted,
        top=top,
        log_odds=lead + split.total.log(),
        true=below.exp() * top,
        nll=log_total - below,
        squares=(1 + share * share * split.squares) * (top * top),
        entropy=None if weighted is None else log_total - top * (share * weighted + lead * rest),
    )


def read_probabilities(rows: Tensor, label: Tensor, entropy: bool = False) -> Row:
    """Read probabilities `(S, K)` of any floating type and class indices `(S,)`."""
    size = chunk_size(rows)
    pairs = zip(torch.split(rows, size), torch.split(label, size), strict=True)
    chunks = [_read_probabilities(*pair, entropy) for pair in pairs]
    if len(chunks) == 1:
        return chunks[0]
    columns: Any = zip(*chunks, strict=True)
    return Row._make(None if column[0] is None else torch.cat(column) for column in columns)


def log_odds(p: Tensor) -> Tensor:
    """Return `log((1 - p) / p)`."""
    p = p.clamp(0, 1)
    return torch.log1p(-p) - p.log()


def _read_probabilities(rows: Tensor, label: Tensor, entropy: bool) -> Row:
    rows = rows.double()
    valid = are_probabilities(rows)
    rows = torch.where(valid[:, None], rows, 1 / rows.shape[1]).clamp(0, 1)
    top, predicted = rows.max(1)
    true = rows.gather(1, label[:, None]).squeeze(1)
    return Row(
        valid=valid,
        predicted=predicted,
        top=top,
        log_odds=log_odds(top),
        true=true,
        nll=-true.log(),
        squares=exact_sum(rows * rows),
        entropy=-exact_sum(torch.xlogy(rows, rows)) if entropy else None,
    )
