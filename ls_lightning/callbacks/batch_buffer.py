"""BatchBuffer: small batches wait until they are worth a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_CPU, _GPU = 2**18, 2**22
_ROWS = 2**16


class BatchBuffer:
    """Hands on several batches as one, where they are small: a pass over few logits is mostly the start of operations.

    The first batch of each shape is handed on at once, so that what does not fit is an error where it happens. Batches
    that wait are copies: their owner may write to them. They take at most 1 MB, on a GPU 16 MB, of float32, in memory
    that is used again: to ask for more of it takes longer than to fill it.

    Args:
        consume: called with logits and target, of one batch or of several along the first dimension.
    """

    def __init__(self, consume: Callable[[Tensor, Tensor], Any]) -> None:
        self._consume = consume
        self._kind: tuple[object, ...] | None = None
        self._waiting: tuple[Tensor, Tensor] | None = None
        self._rows = self._room = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Hand on a batch, now or later."""
        kind = (logits.shape[1:], target.shape[1:], logits.dtype, target.dtype, logits.device, target.device)
        rows = len(logits)
        if kind != self._kind or 2 * rows > self._room or rows != len(target):
            self.flush()
            self._consume(logits, target)
            if kind != self._kind:
                self._kind, self._waiting = kind, None
                most = _CPU if logits.device.type == "cpu" else _GPU
                self._room = most // max(1, logits[:1].numel())
            return
        if self._waiting is None:
            room = self._room
            self._waiting = logits.new_empty(room, *logits.shape[1:]), target.new_empty(room, *target.shape[1:])
        end = self._rows + rows
        if end > self._room:
            self.flush()
            end = rows
        self._waiting[0][self._rows : end] = logits
        self._waiting[1][self._rows : end] = target
        self._rows = end

    def flush(self) -> None:
        """Hand on what waits."""
        rows, self._rows = self._rows, 0
        if rows and self._waiting is not None:
            logits, target = self._waiting
            self._consume(logits[:rows], target[:rows])


class RowBuffer:
    """Hands on statistics of rows, as a smoothing loss leaves them, when there are 65,536 of them (1 MB).

    Args:
        consume: called with the statistics of several batches, ``(4, S)``.
    """

    def __init__(self, consume: Callable[[Tensor], Any]) -> None:
        self._consume = consume
        self._waiting: list[Tensor] = []
        self._rows = 0

    def add(self, statistics: Tensor) -> None:
        """Hand on those of a batch, now or later; nobody writes to them any more."""
        self._waiting.append(statistics)
        self._rows += statistics.shape[1]
        if self._rows >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            self._consume(torch.cat(waiting, 1))
