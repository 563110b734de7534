"""Elapsed: how long a job has taken, counted on when it is resumed."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from typing_extensions import override


class Elapsed(L.Callback):
    """Keep in every checkpoint how many seconds it took to come there.

    Args:
        since: when this process began, by ``time.time``.

    Example:
        >>> elapsed = Elapsed(since=time.time())
        >>> elapsed.load_state_dict({"seconds": 100.0})
        >>> 100 <= elapsed.seconds < 101
        True
    """

    def __init__(self, since: float) -> None:
        super().__init__()
        self._since = since
        self._before = 0.0
        self._read = False

    @property
    def seconds(self) -> float:
        """Those up to the checkpoint that was resumed, and those of this process."""
        return self._before + time.time() - self._since

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._read:  # evaluate=best loads one of this process, too
            self._before = state_dict["seconds"]

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read = True
