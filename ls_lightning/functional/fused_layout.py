"""Logits of any shape as `(outer, K, inner)`, and that in pieces which stay in the cache."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Layout = Literal["rows", "columns", "space"]

FEW = 16  # below so many classes a row is too short to be worked on at once
_WHOLE, _ONE_THREAD, _THREADS, _DEVICE = 2**20, 2**19, 2**21, 2**26  # bytes in the dtype of the arithmetic


def layout_of(logits: Tensor) -> Layout | None:
    """Say how logits `(N, K, d1, ...)` lie; None for a way that cannot be viewed as `(outer, K, inner)`.

    `"rows"`: the classes of a sample side by side, as in channels-last images; `"columns"`: likewise but so few that
    class after class is faster, or the transpose of that; `"space"`: as `(N, K, ...)` says.
    """
    if logits.ndim > 2 and logits.is_contiguous():
        return "space"
    if logits.ndim > 2 and not logits.movedim(1, -1).is_contiguous():
        return None
    return "columns" if logits.shape[1] < FEW or logits.stride(0) < logits.stride(1) else "rows"


def arrange(values: Tensor, layout: Layout) -> Tensor:
    """View `(N, K, d1, ...)` as `(outer, K, inner)`."""
    if layout == "space":
        return values.flatten(2)
    rows = values if values.ndim == 2 else values.movedim(1, -1).flatten(0, -2)
    return rows.t().unsqueeze(0) if layout == "columns" else rows.unsqueeze(2)


def arrange_rows(values: Tensor, layout: Layout) -> Tensor:
    """View what there is of each row, `(N, d1, ...)`, as `(outer, 1, inner)`."""
    if layout == "space":
        return values.flatten(1).unsqueeze(1)
    return values.reshape((1, 1, -1) if layout == "columns" else (-1, 1, 1))


Sizes = tuple[int, ...]
"""One for each dimension of `(outer, K, inner)`."""


def sizes_and_steps(values: Tensor) -> tuple[Sizes, Sizes]:
    """Say of `(N, K)`, or contiguous `(N, K, d1, ...)`, the shape and the strides as `(outer, K, inner)`."""
    (batch, num_classes, *_), steps = values.shape, values.stride()
    if len(steps) == 2:
        return (1, num_classes, batch), (0, steps[1], steps[0])
    return (batch, num_classes, values.numel() // (batch * num_classes)), (steps[0], steps[1], 1)


class Piece(NamedTuple):
    """What to cut from `(outer, K, inner)`: where it begins and how much there is, None for all."""

    outer: tuple[int, int] | None
    inner: tuple[int, int] | None

    def of(self, values: Tensor) -> Tensor:
        """Cut from `(outer, K, inner)` or `(outer, 1, inner)`."""
        if self.outer is not None:
            values = values.narrow(0, *self.outer)
        return values if self.inner is None else values.narrow(2, *self.inner)


def pieces(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Iterator[Piece]:
    """Cut `(outer, K, inner)` along `outer` or, where one of these is too large, along `inner`."""
    outer, num_classes, inner = shape
    room = max(1, _room(device) // (num_classes * dtype.itemsize))
    for row in _parts(outer, max(1, room // inner)):
        for column in _parts(inner, room):
            yield Piece(row, column)


def _parts(size: int, most: int) -> list[tuple[int, int] | None]:
    return [(start, min(most, size - start)) for start in range(0, size, most)] if size > most else [None]


def is_one_piece(shape: torch.Size, dtype: torch.dtype) -> bool:
    """Whether `(outer, K, inner)` is too small to be cut."""
    return shape.numel() * dtype.itemsize <= _WHOLE


def _room(device: torch.device) -> int:
    """Bytes of a piece: what a core's cache holds; more for several threads, which have to be started for each."""
    if device.type != "cpu":
        return _DEVICE
    return _ONE_THREAD if torch.get_num_threads() == 1 else _THREADS
