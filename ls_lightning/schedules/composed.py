"""Schedules made of schedules."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import abc
from dataclasses import dataclass

from ls_lightning.schedules.checks import Schedule, check_points, check_progress, curve, name_of, peak


@dataclass(frozen=True)
class Sequence:
    r"""One schedule after the other, each stretched over its part of the run.

    .. math:: \epsilon(t) = \epsilon_k\left(\frac{t - s_k}{s_{k+1} - s_k}\right), \quad s_k \le t < s_{k+1}

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 98.1, 1.6 -> 2.1; overconfident 66.2 -> 66.6, 22.8 -> 13.6; 40 % wrong labels 74.3 -> 74.7, 10.8 -> 10.2.

    Args:
        schedules: at least one; a function of progress each.
        switch_at: increasing shares of training at which the next one begins, one fewer than schedules.

    Raises:
        TypeError: one of them is no function of progress.
        ValueError: there are not as many points as switches, or they do not increase.

    Example:
        >>> from ls_lightning.schedules import Constant, Linear
        >>> schedule = Sequence([Constant(0.1), Linear(0.1, 0.0)], switch_at=[0.5])
        >>> [round(schedule(t), 3) for t in (0, 0.49, 0.5, 0.75, 1)]
        [0.1, 0.1, 0.1, 0.05, 0.0]
    """

    schedules: abc.Sequence[Schedule]
    switch_at: abc.Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        if isinstance(self.schedules, str) or not isinstance(self.schedules, abc.Sequence):
            raise TypeError(f"schedules must be a list of schedules, got {self.schedules!r}.")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        object.__setattr__(self, "switch_at", check_points("switch_at", self.switch_at))
        for schedule in self.schedules:
            _check_schedule("schedules", schedule)
        if len(self.switch_at) != len(self.schedules) - 1:
            raise ValueError(
                f"switch_at must have one point between each two schedules, got {len(self.switch_at)} for "
                f"{len(self.schedules)} schedules."
            )

    @property
    def peak(self) -> float:
        """The highest eps of any of them."""
        return max(peak(schedule) for schedule in self.schedules)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        k = bisect_right(self.switch_at, progress)
        begin, end = (0.0, *self.switch_at, 1.0)[k : k + 2]
        return self.schedules[k]((progress - begin) / (end - begin) if end > begin else 1.0)


@dataclass(frozen=True)
class Scaled:
    r"""Another schedule times a factor.

    .. math:: \epsilon(t) = factor \cdot \epsilon_0(t)

    Args:
        schedule: a function of progress.
        factor: at least 0; no eps may reach 1.

    Raises:
        TypeError: ``schedule`` is no function of progress, or ``factor`` no number.
        ValueError: ``factor`` is below 0 or takes eps out of [0, 1).

    Example:
        >>> from ls_lightning.schedules import Linear
        >>> [round(Scaled(Linear(0.2, 0.1), factor=0.5)(t), 3) for t in (0, 0.5, 1)]
        [0.1, 0.075, 0.05]
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        _check_schedule("schedule", self.schedule)
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float):
            raise TypeError(f"factor must be a number of at least 0, got {self.factor!r}.")
        if not 0 <= self.factor < math.inf:
            raise ValueError(f"factor must be at least 0, got {self.factor}.")
        if not self.peak < 1:
            raise ValueError(
                f"factor must keep eps below 1, got {self.factor}: {name_of(self.schedule)} reaches "
                f"{peak(self.schedule)}."
            )

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.factor * peak(self.schedule)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.factor * self.schedule(progress)


def _check_schedule(name: str, schedule: object) -> None:
    if not callable(schedule):
        raise TypeError(f"{name} must be a schedule such as Linear(0.1, 0.0), got {schedule!r}.")
    if not hasattr(schedule, "peak"):
        curve(schedule)
