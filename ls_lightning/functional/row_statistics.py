"""What a smoothing loss leaves behind of each row, from which metrics are computed without the logits.

Four lines of float32, `(4, S)`:

0. the negative log-likelihood of the label, unsmoothed; NaN where the row cannot be read (NaN, +inf, all -inf);
1. the logarithm of the odds of the most probable class being wrong, `log((1 - top) / top)`: it does not saturate where
   `top` rounds to 1, down to -87, where float32 ends and it may be -inf;
2. the sum of the squared probabilities;
3. 1 where the label is the first class of the largest logit, 0 where not, -1 where the row is ignored.
"""

import torch
from torch import Tensor

from ls_lightning.functional.options import Input, compute_dtype
from ls_lightning.functional.rows import read_logits
from ls_lightning.functional.waiting import is_recorded

LINES = 4


def check_statistics(statistics: Tensor, logits: Tensor, target: Tensor, input: Input) -> None:
    """Raise a ValueError where statistics cannot be given, or have no place in this tensor."""
    if input != "logits":
        raise ValueError(f"statistics need input='logits', got input={input!r}.")
    if target.ndim != logits.ndim - 1 or target.is_floating_point():
        raise ValueError(
            f"statistics need class indices, got logits {tuple(logits.shape)} and a target {tuple(target.shape)} of "
            f"{target.dtype}."
        )
    fits = statistics.dtype == torch.float32 and statistics.device == logits.device and statistics.is_contiguous()
    if not fits or statistics.shape != (LINES, target.numel()) or statistics.requires_grad:
        raise ValueError(
            f"statistics must be contiguous float32 {(LINES, target.numel())} on {logits.device} without a gradient, "
            f"got {statistics.dtype} {tuple(statistics.shape)} with strides {statistics.stride()} on "
            f"{statistics.device}: torch.empty({LINES}, target.numel(), device=logits.device)."
        )
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise ValueError("statistics cannot be written to inside of torch.func's transforms; leave them at None there.")


@torch.no_grad()
def write_statistics(statistics: Tensor, logits: Tensor, target: Tensor, ignore_index: int) -> None:
    """Write the statistics of logits `(N, K, d1, ...)` by torch's operations, in a pass of its own."""
    label = target.flatten().long()
    valid = label != ignore_index
    write_rows(statistics, logits.detach().movedim(1, -1).flatten(0, -2), label.masked_fill(~valid, 0), valid)


@torch.no_grad()
def write_rows(statistics: Tensor, rows: Tensor, label: Tensor, valid: Tensor | None) -> None:
    """Write the statistics of logits `(S, K)`.

    Args:
        statistics: `(4, S)`.
        rows: the logits.
        label: class indices `(S,)`.
        valid: `(S,)`, False where ignored; None where nothing is.
    """
    read = _plainly if torch.compiler.is_compiling() or is_recorded() else _exactly
    nll, log_odds, squares, correct = read(rows.detach(), label)
    lines = torch.stack([nll, log_odds, squares, correct.to(nll.dtype)])
    if valid is not None:
        ignored = lines.new_tensor([0.0, 0.0, 0.0, -1.0]).unsqueeze(1)
        lines = torch.where(valid, lines, ignored)
    statistics.copy_(lines)


def _exactly(rows: Tensor, label: Tensor) -> tuple[Tensor, ...]:
    """By sums that do not depend on the rows beside."""
    row = read_logits(rows, label)
    return row.nll.masked_fill(~row.valid, torch.nan), row.log_odds, row.squares, row.correct


def _plainly(rows: Tensor, label: Tensor) -> tuple[Tensor, ...]:
    """By operations that a compiler takes together."""
    z = rows.to(compute_dtype(rows))
    top, first = z.max(1, keepdim=True)
    own = z.gather(1, label.unsqueeze(1)) - top
    power = (z - top).exp()
    rest = power.scatter(1, first, 0.0).sum(1)
    squares = power.square().sum(1) / power.sum(1).square()
    return rest.log1p() - own.squeeze(1), rest.log(), squares, first.squeeze(1) == label
