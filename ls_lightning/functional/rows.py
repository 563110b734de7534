"""What one row of class scores says, by arithmetic that does not depend on the rows beside it.

A vectorised float sum rounds differently for another batch size, memory layout or number of threads. So the sums over
classes are taken in an order that only their number decides, or on a grid on which float64 additions are exact, and
all else is elementwise.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.native.measure import read_rows
from ls_lightning.functional.split import Split, chunk_size, split_rows
from ls_lightning.functional.waiting import is_ready

PROBABILITY_TOLERANCE = 1e-2
"""How far rows given as probabilities may leave [0, 1] or a sum of 1: what rounding to bfloat16 does."""


class Row(NamedTuple):
    """Per row, each `(S,)`; float64 but for `valid` and `correct` (bool). If not valid, any numbers.

    Attributes:
        valid: it can be read.
        correct: the label is the most probable class, the first of them if several are.
        top: the probability of the most probable class.
        odds: of its being wrong, `(1 - top) / top`.
        log_odds: their logarithm; exact however sure the model is.
        true: the probability of the label.
        nll: minus its logarithm.
        squares: the sum of the squared probabilities.
        entropy: in nats; None where nobody asked for it.
    """

    valid: Tensor
    correct: Tensor
    top: Tensor
    odds: Tensor
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
    found = read_rows(rows, label, entropy)
    if found is not None:
        return _from_columns(*found)
    split = split_rows(rows, entropy)
    peak, weighted = split.peak, split.weighted
    own = rows.gather(1, label[:, None]).squeeze(1).double()
    lead = split.second - peak
    share = lead.exp()
    odds = share * split.total
    whole = odds + 1
    top, log_total = whole.reciprocal(), whole.log()
    spread = None if weighted is None else log_total - top * (share * weighted + lead * odds)
    nll = log_total.add_(peak - own)
    return Row(
        valid=peak - peak == 0,
        correct=_is_first(rows, label, own, split),
        top=top,
        odds=odds,
        log_odds=split.total.log().add_(lead),
        true=nll.neg().exp_(),
        nll=nll,
        squares=share.square_().mul_(split.squares).add_(1).mul_(top).mul_(top),
        entropy=spread,
    )


def _from_columns(numbers: Tensor, flags: Tensor) -> Row:
    valid, correct = flags
    top, odds, log_odds, true, nll, squares, *entropy = numbers
    return Row(valid, correct, top, odds, log_odds, true, nll, squares, entropy[0] if entropy else None)


def _is_first(rows: Tensor, label: Tensor, own: Tensor, split: Split) -> Tensor:
    """Tell where the label's logit `own` is the largest, and no class before the label has one as large."""
    if not is_ready(rows):
        return rows.argmax(1) == label
    correct = own == split.peak
    tied = split.second == split.peak
    if tied.count_nonzero():
        correct[tied] = rows[tied].argmax(1) == label[tied]
    return correct


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
        correct=predicted == label,
        top=top,
        odds=(1 - top) / top,
        log_odds=log_odds(top),
        true=true,
        nll=-true.log(),
        squares=exact_sum(rows * rows),
        entropy=-exact_sum(torch.xlogy(rows, rows)) if entropy else None,
    )
