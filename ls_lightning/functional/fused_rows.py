"""The smoothed loss of logits and, in the same pass, its gradient; besides that nothing of the logits' size is made."""

import math
from typing import NamedTuple, overload

import torch
from torch import Tensor

from ls_lightning.functional import triton_rows
from ls_lightning.functional.fused_layout import Piece, is_one_piece, pieces
from ls_lightning.functional.native.loss import NO_INDEX, can_read, run_loop
from ls_lightning.functional.row_statistics import write_rows

Number = float | Tensor
"""A float, a 0-d tensor, or one number a row, `(outer, 1, inner)`."""


class SmoothedTarget(NamedTuple):
    """A distribution over the classes of each row of `(outer, K, inner)` that is never made.

    It is true * onehot(label) + each * share, with the masses that `eps` gives to the two.

    Attributes:
        label: the true class `(outer, 1, inner)`.
        valid: `(outer, 1, inner)`, False where ignored; None where nothing is.
        eps: what is taken from the true class.
        others: whether the true class has no part of it.
        prior: `(1, K, 1)`, how eps is shared; None for all alike.
        weight: `(1, K, 1)` of the terms of the sum over classes; None for 1.
        own_weight: that of the true class; 1 where there is no `weight`.
        divergence: whether the entropy of the distribution is taken from the loss.
        num_classes: K.
    """

    label: Tensor
    valid: Tensor | None
    eps: Number
    others: bool
    prior: Tensor | None
    weight: Tensor | None
    own_weight: Number
    divergence: bool
    num_classes: int

    def part(self, piece: Piece) -> "SmoothedTarget":
        """Cut what there is of each row."""
        return self._replace(
            label=piece.of(self.label),
            valid=None if self.valid is None else piece.of(self.valid),
            eps=_part(self.eps, piece),
            own_weight=_part(self.own_weight, piece),
        )

    def share(self) -> Tensor | None:
        """What the classes weigh in the part that eps has, `(1, K, 1)`; None for 1 each."""
        if self.prior is None or self.weight is None:
            return self.weight if self.prior is None else self.prior
        return self.prior * self.weight


class _Masses(NamedTuple):
    true: Number
    each: Number
    total: Number
    entropy: Number


def smoothed_rows(
    logits: Tensor,
    target: SmoothedTarget,
    dtype: torch.dtype,
    careful: bool,
    scale: Number,
    gradient: Tensor | None,
    add: bool,
    statistics: Tensor | None = None,
) -> Tensor:
    """Return the loss of each row of logits or the sum of all, and write the gradient.

    Args:
        logits: `(outer, K, inner)`.
        target: of these.
        dtype: of the arithmetic.
        careful: whether to look for classes that -inf masks and rows that are ignored. Where all losses are finite
            without this care, they and the gradient are right.
        scale: what the gradient of each row is multiplied by, and its part in the sum.
        gradient: of the logits' shape, written to; may be the logits themselves. None: nobody wants it.
        add: whether to return the sum.
        statistics: those of `row_statistics`, written to; None where nobody wants them, or the logits are overwritten.

    Returns:
        A 0-d tensor, or `(outer, 1, inner)`, not scaled.
    """
    if may_read(logits) and can_read(logits) and _is_for_the_loop(logits, target, gradient):
        return _by_the_loop(logits, target, scale, gradient, add, statistics)
    if triton_rows.takes(logits):
        return triton_rows.smoothed_rows(logits, target, dtype, scale, gradient, add, statistics)
    found = _by_operations(logits, target, dtype, careful, scale, gradient, add)
    if statistics is not None:
        valid = None if target.valid is None else target.valid.flatten()
        write_rows(statistics, logits.movedim(1, -1).flatten(0, -2), target.label.flatten(), valid)
    return found


def may_read(values: Tensor) -> bool:
    """Whether a look at values makes nobody wait for a device, and no tracer takes what is seen for a constant."""
    return values.is_cpu and torch._C._len_torch_dispatch_stack() == 0


def _is_for_the_loop(logits: Tensor, target: SmoothedTarget, gradient: Tensor | None) -> bool:
    is_alike = gradient is None or gradient.dtype == logits.dtype
    return is_alike and target.prior is None and target.weight is None


def _by_the_loop(
    logits: Tensor,
    target: SmoothedTarget,
    scale: Number,
    gradient: Tensor | None,
    add: bool,
    statistics: Tensor | None,
) -> Tensor:
    found = logits.new_empty(() if add else target.label.shape, dtype=torch.float32)
    losses, total = (None, found) if add else (found, None)
    run_loop(
        logits,
        logits.shape,
        logits.stride(),
        gradient,
        None if gradient is None else gradient.stride(),
        target.label,
        target.valid,
        NO_INDEX,
        target.eps,
        scale,
        target.others,
        target.divergence,
        False,
        losses,
        total,
        statistics,
    )
    return found


def _by_operations(
    logits: Tensor,
    target: SmoothedTarget,
    dtype: torch.dtype,
    careful: bool,
    scale: Number,
    gradient: Tensor | None,
    add: bool,
) -> Tensor:
    if is_one_piece(logits.shape, dtype):
        place = gradient if _is_direct(logits, dtype) else None
        found = _piece(logits, target, dtype, careful, scale, gradient, place)
        return _sum(found, scale, careful) if add else found
    each, losses = [], None if add else logits.new_empty((logits.shape[0], 1, logits.shape[2]), dtype=dtype)
    scratch: Tensor | None = None  # one for all pieces: a new one each would be new pages each
    for piece in pieces(logits.shape, dtype, logits.device):
        part, factor = piece.of(logits), _part(scale, piece)
        wanted = place = None if gradient is None else piece.of(gradient)
        if place is None or not _is_direct(logits, dtype):
            scratch = logits.new_empty(part.numel(), dtype=dtype) if scratch is None else scratch
            place = scratch[: part.numel()].view(part.shape)
        found = _piece(part, target.part(piece), dtype, careful, factor, wanted, place)
        if losses is None:
            each.append(_sum(found, factor, careful))
        else:
            piece.of(losses).copy_(found)
    return torch.stack(each).sum() if losses is None else losses


def _piece(
    logits: Tensor,
    target: SmoothedTarget,
    dtype: torch.dtype,
    careful: bool,
    scale: Number,
    gradient: Tensor | None,
    place: Tensor | None,
) -> Tensor:
    """The losses of one piece, worked out in `place`, a new one if None."""
    if careful and target.valid is not None:
        logits = logits.masked_fill(~target.valid, 0)
    z = _below_the_top(logits, dtype, place)
    own = z.gather(1, target.label)
    masses, share, spread = (_careful_masses if careful else _plain_masses)(z, target)
    if careful:  # a true class of weight 0 does not count, not even if it is masked
        own = own.masked_fill(torch.as_tensor(masses.true == 0, device=own.device), 0)
    sums = z.exp_().sum(1, keepdim=True)
    losses = sums.log() if target.weight is None else sums.log() * masses.total
    losses = _minus(_minus(losses, own, masses.true), spread, masses.each)
    if target.divergence:
        losses -= masses.entropy
    if gradient is not None:
        factor, each = masses.total * scale, masses.each * scale
        z *= sums.reciprocal_() * factor
        z -= each if share is None else share * each
        true = masses.true * scale
        own = own.copy_(-true) if isinstance(true, Tensor) else own.fill_(-true)
        z.scatter_add_(1, target.label, own)
        if z.data_ptr() != gradient.data_ptr():
            gradient.copy_(z)
    return losses


def _sum(losses: Tensor, scale: Number, careful: bool) -> Tensor:
    if not isinstance(scale, Tensor) or scale.ndim == 0:
        return losses.sum() * scale
    scaled = losses * scale
    return (scaled.masked_fill_(scale == 0, 0) if careful else scaled).sum()


def _is_direct(logits: Tensor, dtype: torch.dtype) -> bool:
    """Whether arithmetic can read the logits, and write the gradient, as they lie."""
    return logits.dtype == dtype and (logits.shape[2] == 1 or logits.stride(2) == 1)


def _below_the_top(logits: Tensor, dtype: torch.dtype, place: Tensor | None) -> Tensor:
    """The logits less the largest of each row."""
    if _is_direct(logits, dtype):
        return torch.sub(logits, logits.amax(1, keepdim=True), out=place)
    z = logits.new_empty(logits.shape, dtype=dtype) if place is None else place
    z.copy_(logits)
    return z.sub_(z.amax(1, keepdim=True))


def _plain_masses(z: Tensor, target: SmoothedTarget) -> tuple[_Masses, Tensor | None, Tensor]:
    """The masses; the share of each class, None for 1; the sum of the share times z."""
    mass: Number = target.num_classes if target.prior is None else target.prior.sum()
    share = target.share()
    if share is None:
        return _masses(target, 1, mass, target.num_classes), None, z.sum(1, keepdim=True)
    return _masses(target, 1, mass, share.sum()), share, (z * share).sum(1, keepdim=True)


def _careful_masses(z: Tensor, target: SmoothedTarget) -> tuple[_Masses, Tensor, Tensor]:
    """The same where classes are masked: they have no share, and the masses differ from row to row."""
    left = (z != -torch.inf).to(z.dtype)
    share = target.share()
    share = left if share is None else left * share
    mass = (left if target.prior is None else left * target.prior).sum(1, keepdim=True)
    masses = _masses(target, left.gather(1, target.label), mass, share.sum(1, keepdim=True))
    return masses, share, (share * z.masked_fill(left == 0, 0)).sum(1, keepdim=True)


def _masses(target: SmoothedTarget, own: Number, mass: Number, total: Number) -> _Masses:
    """What eps leaves to the true class and gives to each.

    Args:
        target: with its eps.
        own: 1, or 0 where the true class is masked.
        mass: the sum of the prior over the classes that are left.
        total: the sum of the share over them.
    """
    if target.others:
        mass = mass - own
    eps = target.eps
    if isinstance(mass, Tensor):  # with no class left to take it, the mass stays
        eps = eps * (mass > 0).to(mass.dtype)
        mass = torch.where(mass > 0, mass, 1)
    each = eps / mass
    true = 1 - eps - (each * own if target.others else 0)
    entropy: Number = 0.0
    if target.divergence:
        rest = total - target.own_weight * own
        entropy = target.own_weight * information(true + each * own) + rest * information(each)
    if target.weight is None:
        return _Masses(true, each, 1.0, entropy)
    true = true * target.own_weight
    return _Masses(true, each, true + each * total, entropy)


@overload
def information(mass: float) -> float: ...
@overload
def information(mass: Tensor) -> Tensor: ...
def information(mass: Number) -> Number:
    """What a class with this mass adds to the entropy."""
    if isinstance(mass, Tensor):
        return -torch.xlogy(mass, mass)
    return -mass * math.log(mass) if mass > 0 else 0.0


def _minus(values: Tensor, other: Tensor, times: Number) -> Tensor:
    return values.sub_(other * times) if isinstance(times, Tensor) else values.sub_(other, alpha=times)


def _part(values: Number, piece: Piece) -> Number:
    return piece.of(values) if isinstance(values, Tensor) and values.ndim else values
