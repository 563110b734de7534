"""The smoothed cross-entropy by `loss.c`."""

from collections.abc import Callable, Sequence
from ctypes import c_char_p
from functools import cache
from struct import Struct

import torch
from torch import Tensor

from ls_lightning.functional.native.build import load_library

NO_INDEX = -(2**63)
"""An `ignore_index` that leaves out nothing."""

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_ADDRESSES, _FORM, _NUMBERS = Struct("@9P"), Struct("@9q6q"), Struct("@2d")
"""What C calls so, one after the other: sizes, steps and options in the middle, and what is one for all rows."""
_FEW = 2**17  # so many numbers take less time than to start a thread for others
FEW = 2 * _FEW
"""Fewer numbers than these have one thread."""


@cache
def loop() -> Callable[..., int] | None:
    """The function in C, None where there is none."""
    library = load_library("loss")
    if library is None:
        return None
    library.smoothed_loss.argtypes = [c_char_p]
    return library.smoothed_loss


def can_read(logits: Tensor) -> bool:
    """Whether the loop is there and reads numbers of this dtype, which is narrower than float64."""
    return logits.dtype in _DTYPES and logits.is_cpu and not logits.is_neg() and loop() is not None


def run_loop(
    logits: Tensor,
    sizes: Sequence[int],
    steps: Sequence[int],
    gradient: Tensor | None,
    gradient_steps: Sequence[int] | None,
    label: Tensor,
    valid: Tensor | None,
    ignore_index: int,
    eps: float | Tensor,
    scale: float | Tensor,
    others: bool,
    divergence: bool,
    mean: bool,
    losses: Tensor | None,
    total: Tensor | None,
    statistics: Tensor | None = None,
) -> None:
    """Write the losses of rows of logits, their sum and its gradient.

    Args:
        logits: that it [`can_read`].
        sizes: in which they are seen, `(outer, K, inner)`.
        steps: the strides that go with these.
        gradient: of their dtype, may be the logits; None where nobody wants it.
        gradient_steps: its strides in the same sizes.
        label: class indices of the rows, `outer * inner` of them, int64; anything where ignored.
        valid: as many bools, False where ignored; None where nothing is.
        ignore_index: a class index that is ignored besides.
        eps: a number, or as many as rows.
        scale: of the losses in the sum; likewise.
        others: whether the true class has no part of eps.
        divergence: whether the entropy of the target is taken from the losses.
        mean: whether the sum is divided by how many rows are not ignored.
        losses: as many as rows, float32, contiguous.
        total: 0-d, float32.
        statistics: those of `row_statistics`, contiguous; None where the gradient overwrites the logits.

    Raises:
        RuntimeError: a label is no class, and nothing was written.
    """
    run, size = loop(), logits.numel()
    if run is None:
        raise RuntimeError("loss.c was not built here; look at can_read first.")
    label, valid = label.contiguous(), None if valid is None else valid.contiguous()
    (one_eps, each_eps), (one_scale, each_scale) = _numbers(eps), _numbers(scale)
    form = _FORM.pack(
        *sizes,
        *steps,
        *(steps if gradient_steps is None else gradient_steps),
        _DTYPES[logits.dtype],
        ignore_index,
        others,
        divergence,
        mean,
        1 if size < FEW else min(torch.get_num_threads(), size // _FEW),
    )
    addresses = _ADDRESSES.pack(
        logits.data_ptr(),
        _address(gradient),
        _address(losses),
        _address(total),
        _address(statistics),
        label.data_ptr(),
        _address(valid),
        _address(each_eps),
        _address(each_scale),
    )
    failed = run(addresses + form + _NUMBERS.pack(one_eps, one_scale))
    if failed:
        _explain(failed, logits)


def as_form(
    sizes: Sequence[int],
    steps: Sequence[int],
    dtype: torch.dtype,
    ignore_index: int,
    others: bool,
    divergence: bool,
    mean: bool,
) -> bytes:
    """What calls with fewer than [`FEW`] logits have in common, for [`run_form`]; arguments as of [`run_loop`]."""
    return _FORM.pack(*sizes, *steps, *steps, _DTYPES[dtype], ignore_index, others, divergence, mean, 1)


def run_form(
    form: bytes,
    logits: Tensor,
    gradient: Tensor,
    total: Tensor,
    statistics: Tensor | None,
    label: Tensor,
    eps: float,
    scale: float,
) -> None:
    """Do what [`run_loop`] does where nothing but this differs from call to call; `label` is contiguous."""
    run, rows = loop(), 0 if statistics is None else statistics.data_ptr()
    if run is None:
        raise RuntimeError("loss.c was not built here; look at can_read first.")
    addresses = logits.data_ptr(), gradient.data_ptr(), 0, total.data_ptr(), rows, label.data_ptr(), 0, 0, 0
    failed = run(_ADDRESSES.pack(*addresses) + form + _NUMBERS.pack(eps, scale))
    if failed:
        _explain(failed, logits)


def _numbers(values: float | Tensor) -> tuple[float, Tensor | None]:
    if not isinstance(values, Tensor):
        return values, None
    return (values.item(), None) if values.ndim == 0 else (0.0, values.float().contiguous().resolve_neg())


def _address(values: Tensor | None) -> int:
    return 0 if values is None else values.data_ptr()


def _explain(failed: int, logits: Tensor) -> None:
    if failed == 1:
        raise RuntimeError("a class index is out of range")
    raise MemoryError(f"no memory for the loss of logits {tuple(logits.shape)}.")
