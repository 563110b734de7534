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
_CALL = Struct("@9P9q6q2d")
"""What C calls so: nine addresses, sizes and steps, options, and the numbers that are one for all rows."""
_FEW = 2**17  # so many numbers take less time than to start a thread for others


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
    failed = run(
        _CALL.pack(
            logits.data_ptr(),
            _address(gradient),
            _address(losses),
            _address(total),
            _address(statistics),
            label.data_ptr(),
            _address(valid),
            _address(each_eps),
            _address(each_scale),
            *sizes,
            *steps,
            *(steps if gradient_steps is None else gradient_steps),
            _DTYPES[logits.dtype],
            ignore_index,
            others,
            divergence,
            mean,
            1 if size < 2 * _FEW else min(torch.get_num_threads(), size // _FEW),
            one_eps,
            one_scale,
        )
    )
    if failed == 1:
        raise RuntimeError("a class index is out of range")
    if failed:
        raise MemoryError(f"no memory for the loss of logits {tuple(logits.shape)}.")


def _numbers(values: float | Tensor) -> tuple[float, Tensor | None]:
    if not isinstance(values, Tensor):
        return values, None
    return (values.item(), None) if values.ndim == 0 else (0.0, values.float().contiguous().resolve_neg())


def _address(values: Tensor | None) -> int:
    return 0 if values is None else values.data_ptr()
