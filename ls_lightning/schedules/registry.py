"""The schedules by their config names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ls_lightning.schedules.checks import Schedule
from ls_lightning.schedules.composed import Scaled, Sequence
from ls_lightning.schedules.curves import Constant, Cosine, CosLog, Linear
from ls_lightning.schedules.feedback import Feedback
from ls_lightning.schedules.stages import Step, TwoStage, Warmup

SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "two_stage": TwoStage,
    "step": Step,
    "warmup": Warmup,
    "coslog": CosLog,
    "sequence": Sequence,
    "scaled": Scaled,
    "feedback": Feedback,
}


def build_schedule(name: str, *args: float) -> Schedule | Feedback:
    """The schedule of that config name, e.g. ``build_schedule("linear", 0.1, 0.0)``.

    Args:
        name: one of ``SCHEDULES``.
        *args: its parameters in order, eps (or start) first.

    Raises:
        ValueError: there is no such schedule, it is made of others, or a parameter is out of range.

    Example:
        >>> build_schedule("cosine", 0.1)
        Cosine(start=0.1, end=0.0)
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}.")
    if SCHEDULES[name] in (Sequence, Scaled):
        raise ValueError(
            f"schedule={name!r} is made of other schedules, got its name alone. Pass it as an object, e.g. "
            "Sequence([Constant(0.1), Linear(0.1, 0.0)], switch_at=[0.5]), or on the command line as schedule=<name>."
        )
    schedule: Schedule | Feedback = SCHEDULES[name](*args)
    return schedule
