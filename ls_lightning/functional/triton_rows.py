"""The smoothed loss of logits on a GPU by one kernel that writes the gradient too; only where that is asked for.

Triton's interpreter and compiler have taken the kernel, float64 has judged it; no GPU has run or measured it yet.
"""

import logging
import math
import os
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ls_lightning.functional.fused_rows import Number, SmoothedTarget

WHOLE = 2**14  # so many logits fit into the registers of a program
_TILE = 2**11  # what a program works on where rows are short
_ROWS = 2**9  # at most, however short
_BLOCK = 2**12  # and at a time, where rows are too long to be held
_NEIGHBOURS = 32  # rows whose logits lie side by side, which a program needs to read memory as it comes

_log = logging.getLogger(__name__)


def takes(logits: Tensor) -> bool:
    """Whether logits go to the kernel: on a GPU, with Triton, if `LS_LIGHTNING_TRITON=1` is in the environment."""
    return logits.is_cuda and os.environ.get("LS_LIGHTNING_TRITON") == "1" and _kernels() is not None


@cache
def _kernels() -> ModuleType | None:
    try:
        from ls_lightning.functional import triton_kernels
    except ImportError as error:
        _log.warning("LS_LIGHTNING_TRITON=1 has no effect, torch's operations are used: %s", error)
        return None
    return triton_kernels


def smoothed_rows(
    logits: Tensor,
    target: "SmoothedTarget",
    dtype: torch.dtype,
    scale: "Number",
    gradient: Tensor | None,
    add: bool,
    statistics: Tensor | None = None,
) -> Tensor:
    """Do what `fused_rows.smoothed_rows` does, always with care; no look at a value makes the host wait.

    Args:
        logits: `(outer, K, inner)`, of any strides.
        target: of these. A class index that is out of range gives nan.
        dtype: of the arithmetic.
        scale: what the gradient of each row is multiplied by, and its part in the sum.
        gradient: of the logits' shape, written to; may be the logits themselves. None: nobody wants it.
        add: whether to return the sum.
        statistics: those of `row_statistics`, contiguous, written to; a class index that is out of range has NaN. None
            where nobody wants them, or the gradient takes the logits' place.

    Returns:
        A 0-d tensor, or `(outer, 1, inner)`, not scaled.
    """
    losses = logits.new_empty((logits.shape[0], 1, logits.shape[2]), dtype=dtype)
    _launch(logits, target, dtype, scale, gradient, losses, add, None, statistics)
    return losses.sum() if add else losses


def multiply(gradient: Tensor, upstream: Tensor) -> Tensor:
    """Multiply a new gradient by a 0-d tensor; the device looks whether that is 1, so that the host need not wait."""
    with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
        grid = (-(-gradient.numel() // _TILE),)
        _needed_kernels().multiply_kernel[grid](gradient, upstream, gradient.numel(), BLOCK=_TILE)
    return gradient


def multiply_rows(
    gradient: Tensor, upstream: Tensor, logits: Tensor, target: "SmoothedTarget", dtype: torch.dtype, scale: "Number"
) -> None:
    """Write a narrow gradient anew, times `upstream` and rounded once; where that is 1, leave it as it is.

    Args:
        gradient: what [`smoothed_rows`] wrote for the rest.
        upstream: 0-d.
        logits: as there.
        target: as there.
        dtype: as there.
        scale: as there.
    """
    _launch(logits, target, dtype, scale, gradient, None, False, upstream, None)


class Tiling(NamedTuple):
    """How a kernel goes through rows: so many at once, so many classes, all of them or block by block."""

    rows: int
    block: int
    whole: bool

    @property
    def warps(self) -> int:
        """Threads, in units of 32: each has at most 32 logits."""
        return min(32, max(4, self.rows * self.block // 1024))


def tiling(num_classes: int, neighbours: int) -> Tiling:
    """Choose a tile by the shape of the logits' rows, not by their number, so that a last batch needs no new kernel.

    Args:
        num_classes: K.
        neighbours: how many rows have their logits of one class side by side in memory.
    """
    width, least = _power(num_classes), min(_NEIGHBOURS, _power(neighbours))
    if width * least <= WHOLE:
        return Tiling(max(least, min(_ROWS, _TILE // width)), width, True)
    return Tiling(least, _BLOCK // least, False)


def _power(number: int) -> int:
    """The next power of 2."""
    return 1 << (number - 1).bit_length()


def _needed_kernels() -> ModuleType:
    kernels = _kernels()
    if kernels is None:
        raise ModuleNotFoundError("the kernel of the smoothed loss needs Triton: pip install triton.")
    return kernels


def _launch(
    logits: Tensor,
    target: "SmoothedTarget",
    dtype: torch.dtype,
    scale: "Number",
    gradient: Tensor | None,
    losses: Tensor | None,
    scaled: bool,
    upstream: Tensor | None,
    statistics: Tensor | None,
) -> None:
    kernels = _needed_kernels()
    outer, num_classes, inner = logits.shape
    rows, groups = (outer, 1) if inner == 1 else (inner, outer)
    strides, out_strides = _strides(logits), _strides(logits if gradient is None else gradient)
    along_rows = strides[1] < strides[2]
    tile = tiling(num_classes, rows if along_rows else 1)
    shape = (outer, 1, inner)
    eps, eps_step = _per_row(target.eps, shape, dtype, logits.device)
    scale, scale_step = _per_row(scale, shape, dtype, logits.device)
    own_weight = None if target.weight is None else _per_row(target.own_weight, shape, dtype, logits.device)[0]
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        kernels.rows_kernel[(groups * -(-rows // tile.rows),)](
            logits,
            gradient,
            losses,
            statistics,
            target.label.contiguous(),
            None if target.valid is None else target.valid.contiguous(),
            eps,
            scale,
            upstream,
            own_weight,
            _per_class(target.prior, dtype),
            _per_class(target.weight, dtype),
            rows,
            num_classes,
            eps_step,
            scale_step,
            *strides,
            *out_strides,
            OTHERS=target.others,
            DIVERGENCE=target.divergence,
            SCALED=scaled,
            DTYPE=kernels.tl.float64 if dtype == torch.float64 else kernels.tl.float32,
            ROWS=tile.rows,
            BLOCK=tile.block,
            WHOLE=tile.whole,
            ALONG_ROWS=along_rows,
            STEP=_step(rows if along_rows else num_classes, strides, out_strides),
            num_warps=tile.warps,
        )


def _strides(values: Tensor) -> tuple[int, int, int]:
    """Of groups, rows and classes: what is `inner`, if there is more than one, are the rows of a group."""
    outer, classes, inner = values.stride()
    return (0, outer, classes) if values.shape[2] == 1 else (outer, inner, classes)


def _step(length: int, strides: tuple[int, int, int], out_strides: tuple[int, int, int]) -> int:
    """How many numbers side by side can be read at once: 1 unless the length of each run of them is a multiple."""
    others = [stride for stride in (*strides, *out_strides) if stride != 1]
    return math.gcd(16, length, *others) if len(others) == 4 else 1


def _per_row(
    number: "Number", shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, int]:
    """In memory of the device, with the distance of one row's from the next: 0 where all have the same."""
    if not isinstance(number, Tensor):
        return torch.full((), number, dtype=dtype, device=device), 0
    number = number.to(dtype)
    return (number, 0) if number.ndim == 0 else (number.expand(shape).contiguous(), 1)


def _per_class(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if values is None else values.to(dtype).flatten().contiguous()
