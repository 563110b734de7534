"""The eps of each member in each step, as its LabelSmoothing sets it alone."""

from __future__ import annotations

from collections.abc import Sequence

from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.losses import NegativeSmoothing
from ls_lightning.schedules import Constant, Feedback, Schedule, eps_at


class StackedSchedules:
    """Several schedules side by side; those that are constant are asked once.

    Args:
        callbacks: one a member, that have begun to train.

    Attributes:
        eps: of each member in the current step.
    """

    def __init__(self, callbacks: Sequence[LabelSmoothing]) -> None:
        self._callbacks = list(callbacks)
        self.eps = [callback.eps for callback in callbacks]
        self._curves: list[tuple[int, Schedule, bool]] = []
        for k, callback in enumerate(callbacks):
            curve, negative = callback.schedule, isinstance(callback._calls.loss, NegativeSmoothing)
            if isinstance(curve, Feedback):
                raise TypeError("a stack has schedules that are functions of progress, got Feedback.")
            if isinstance(curve, Constant):
                self.eps[k] = eps_at(curve, 0.0, negative)
            elif curve is not None:
                self._curves.append((k, curve, negative))

    def advance(self, step: int, batch_idx: int) -> None:
        """Go to optimizer step ``step``, which is batch ``batch_idx`` of its epoch."""
        for k, curve, negative in self._curves:
            callback = self._callbacks[k]
            if callback.interval == "step" or batch_idx == 0:
                horizon = callback._horizon
                self.eps[k] = eps_at(curve, min(1.0, step / horizon) if horizon else 0.0, negative)

    def hand_back(self, steps: int) -> None:
        """Leave the callbacks as ``steps`` optimizer steps leave them, for their checkpoints and results."""
        for callback, eps in zip(self._callbacks, self.eps, strict=True):
            callback.stand_at(eps, steps)
