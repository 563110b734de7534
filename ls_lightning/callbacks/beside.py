"""What else is in a Trainer."""

from __future__ import annotations

from typing import TypeVar

import lightning as L

T = TypeVar("T", bound=L.Callback)


def first_of(trainer: L.Trainer, kind: type[T]) -> T | None:
    """The first callback of a kind; None if there is none."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
