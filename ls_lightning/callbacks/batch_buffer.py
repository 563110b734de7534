"""BatchBuffer: small batches wait until they are worth a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_CPU, _GPU = 2**18, 2**22


class BatchBuffer:
    """Hands on several batches as one, where they are small: a pass over few logits is mostly the start of operations.

    The first batch of each shape is handed on at once, so that what does not fit is an error where it happens. Batches
    that wait are copies: their owner may write to them. They take at most 1 MB, on a GPU 16 MB, of float32.

    Args:
        consume: called with logits and target, of one batch or of several along the first dimension.
    """

    def __init__(self, consume: Callable[[Tensor, Tensor], Any]) -> None:
        self._consume = consume
        self._kind: tuple[object, ...] | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._logits = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Hand on a batch, now or later."""
        kind = (logits.shape[1:], target.shape[1:], logits.dtype, target.dtype, logits.device, target.device)
        most = _CPU if logits.device.type == "cpu" else _GPU
        if kind != self._kind or len(logits) != len(target) or logits.numel() >= most:
            self.flush()
            self._consume(logits, target)
            self._kind = kind
            return
        self._waiting.append((logits.clone(), target.clone()))
        self._logits += logits.numel()
        if self._logits >= most:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        waiting, self._waiting, self._logits = self._waiting, [], 0
        if waiting:
            logits, target = zip(*waiting, strict=True)
            self._consume(torch.cat(logits), torch.cat(target))
