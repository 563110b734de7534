"""What calls measure.c: rows of logits are read, or added to sums of bins and to a sketch, in one pass."""

import ctypes
import struct
from functools import cache

import torch
from torch import Tensor

from ls_lightning.functional.native.build import load_library
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.waiting import is_ready, is_recorded

_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_FEW = 64  # as in measure.c
_SOURCE, _OPTIONS = struct.Struct("9q"), struct.Struct("7q")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where there are none."""
    found = load_library("measure")
    if found is not None:
        found.add_rows.argtypes = [ctypes.c_char_p, ctypes.c_char_p, *[ctypes.c_void_p] * 2, ctypes.c_int64]
        found.add_statistics.argtypes = [ctypes.c_void_p, ctypes.c_int64, *found.add_rows.argtypes[1:]]
        found.read_rows.argtypes = [ctypes.c_char_p, ctypes.c_int64, *[ctypes.c_void_p] * 2]
    return found


def add_rows(
    scores: Tensor, target: Tensor, spec: Spec, sums: Tensor | None = None, sketch: Tensor | None = None
) -> bool:
    """Add samples to the sums of `calibration_sums`, to a sketch by the most probable class, or to both, in place.

    Args:
        scores: `(S, K)` for multiclass, else `(S,)`, as `as_rows` returns them.
        target: `(S,)`.
        spec: how to read and bin them.
        sums: int64 `(num_bins + 1, 8, 2)`.
        sketch: int64 `(num_cells + 1, 3)`.

    Returns:
        False, and nothing is added, where only torch's operations can do it.
    """
    found = library()
    to = [total for total in (sums, sketch) if total is not None]
    if found is None or spec.input != "logits" or not _fit(scores, target, *to):
        return False
    if not all(total.is_contiguous() for total in to):
        return False
    if target.dtype != torch.int64:
        target = target.double() if target.is_floating_point() else target.long()
    scores, target = _in_reach(scores), target.contiguous()
    _succeed(found.add_rows(_source(scores, target), *_places(spec, sums, sketch)), spec)
    return True


def add_statistics(statistics: Tensor, spec: Spec, sums: Tensor | None, sketch: Tensor | None) -> bool:
    """Add statistics `(4, S)` of rows likewise."""
    found = library()
    to = [total for total in (sums, sketch) if total is not None]
    if found is None or not _fit(statistics, *to) or not all(values.is_contiguous() for values in (statistics, *to)):
        return False
    rows = statistics.shape[1]
    _succeed(found.add_statistics(statistics.data_ptr(), rows, *_places(spec, sums, sketch)), spec)
    return True


def read_rows(rows: Tensor, label: Tensor, entropy: bool) -> tuple[Tensor, Tensor] | None:
    """Read logits `(S, K)` and class indices `(S,)`; None where only torch's operations can do it.

    Returns:
        The numbers of `Row`, a row of float64 `(7, S)` each (6 without entropy), and bool `(2, S)`: valid, correct.

    Raises:
        IndexError: a label is no class.
    """
    found = library()
    if found is None or label.dtype != torch.int64 or not _fit(rows, label):
        return None
    rows, label = _in_reach(rows), label.contiguous()
    numbers = torch.empty(7 if entropy else 6, len(label), dtype=torch.float64)
    flags = torch.empty(2, len(label), dtype=torch.bool)
    if found.read_rows(_source(rows, label), int(entropy), numbers.data_ptr(), flags.data_ptr()):
        raise IndexError(f"labels must be classes from 0 to {rows.shape[1] - 1}.")
    return numbers, flags


def _fit(scores: Tensor, *others: Tensor) -> bool:
    """Tell whether these are numbers in memory, of which nobody wants a gradient or a record of what is done."""
    if scores.dtype not in _DTYPES or not is_ready(scores) or is_recorded():
        return False
    if scores.requires_grad and torch.is_grad_enabled():
        return False
    return all(
        type(t) in _PLAIN and t.device == scores.device and t.layout is torch.strided and not t.is_neg()
        for t in (scores, *others)
    )


def _places(spec: Spec, sums: Tensor | None, sketch: Tensor | None) -> tuple[bytes, int | None, int | None, int]:
    """How to add, where to, and how many cells the sketch has."""
    cells = 0 if sketch is None else len(sketch) - 1
    return _options(spec), _address(sums), _address(sketch), cells


def _address(values: Tensor | None) -> int | None:
    return None if values is None else values.data_ptr()


def _succeed(failed: int, spec: Spec) -> None:
    if failed:
        raise MemoryError(f"no memory for the sums of {spec.num_bins} bins.")


def _in_reach(scores: Tensor) -> Tensor:
    """Rows of many classes have to lie in one piece."""
    return scores.contiguous() if scores.ndim == 2 and scores.shape[1] >= _FEW and scores.stride(1) != 1 else scores


def _source(scores: Tensor, target: Tensor) -> bytes:
    """The `Source` of measure.c; the tensors have to outlive it."""
    binary = scores.ndim == 1
    classes, step = (2, 0) if binary else (scores.shape[1], scores.stride(1))
    return _SOURCE.pack(
        scores.data_ptr(),
        target.data_ptr(),
        _DTYPES[scores.dtype],
        scores.shape[0],
        classes,
        scores.stride(0),
        step,
        binary,
        target.is_floating_point(),
    )


@cache
def _options(spec: Spec) -> bytes:
    """The `Options` of measure.c."""
    return _OPTIONS.pack(
        spec.num_bins,
        spec.closed == "left",
        spec.confidence == "positive",
        spec.nan_policy == "omit",
        spec.entropy,
        spec.ignore_index is not None,
        spec.ignore_index or 0,
    )
