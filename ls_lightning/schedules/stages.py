"""Stages: the run is cut into pieces, each with an eps of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ls_lightning.schedules.checks import Schedule, check_eps, check_point, check_points, check_progress, peak


@dataclass(frozen=True)
class TwoStage:
    """``eps`` while progress is below ``drop_at``, then 0.

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 97.9, 1.6 -> 1.1; overconfident 66.2 -> 67.4, 22.8 -> 16.9; 40 % wrong labels 74.3 -> 74.7, 10.8 -> 10.2.

    Args:
        eps: in [0, 1).
        drop_at: share of training in [0, 1] after which nothing is smoothed; 0.8 is usual.

    Example:
        >>> schedule = TwoStage(0.1, drop_at=0.8)
        >>> schedule(0.79), schedule(0.8)
        (0.1, 0.0)

    Source: Xu et al. 2020, arXiv:2006.11653.
    """

    eps: float
    drop_at: float = 0.8

    def __post_init__(self) -> None:
        check_eps("eps", self.eps)
        check_point("drop_at", self.drop_at)

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.eps

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.eps if progress < self.drop_at else 0.0


@dataclass(frozen=True)
class Step:
    r"""``eps`` times ``gamma`` for every milestone passed.

    .. math:: \epsilon(t) = \epsilon\,\gamma^{\#\{m : m \le t\}}

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 98.1, 1.6 -> 4.6; overconfident 66.2 -> 66.4, 22.8 -> 10.4; 40 % wrong labels 74.3 -> 74.3, 10.8 -> 10.6.

    Args:
        eps: in [0, 1).
        milestones: increasing shares of training in [0, 1].
        gamma: factor in [0, 1] applied at each milestone.

    Example:
        >>> [Step(0.2, milestones=(0.5, 0.75), gamma=0.5)(t) for t in (0, 0.5, 0.75)]
        [0.2, 0.1, 0.05]
    """

    eps: float
    milestones: Sequence[float] = (0.5, 0.75)
    gamma: float = 0.5

    def __post_init__(self) -> None:
        check_eps("eps", self.eps)
        check_point("gamma", self.gamma)
        object.__setattr__(self, "milestones", check_points("milestones", self.milestones))

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.eps

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.eps * self.gamma ** sum(milestone <= progress for milestone in self.milestones)


@dataclass(frozen=True)
class Warmup:
    """0 until ``start_at``, a straight ramp to ``eps`` at ``full_at``, then another schedule.

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 97.9, 1.6 -> 12.2; overconfident 66.2 -> 65.0, 22.8 -> 5.1; 40 % wrong labels 74.3 -> 75.8, 10.8 -> 18.4.

    Args:
        eps: reached at ``full_at``, in [0, 1).
        start_at: share of training before which nothing is smoothed.
        full_at: share of training at which ``eps`` is reached; ``start_at`` or later.
        then: the schedule for the rest, stretched over what remains; it must begin at ``eps``.
            None keeps ``eps``.

    Example:
        >>> from ls_lightning.schedules import Linear
        >>> schedule = Warmup(0.1, start_at=0.1, full_at=0.2, then=Linear(0.1, 0.0))
        >>> [round(schedule(t), 3) for t in (0, 0.15, 0.2, 0.6, 1)]
        [0.0, 0.05, 0.1, 0.05, 0.0]

    Source: Struppek et al. 2024, arXiv:2310.06549.
    """

    eps: float
    start_at: float = 0.0
    full_at: float = 0.1
    then: Schedule | None = None

    def __post_init__(self) -> None:
        check_eps("eps", self.eps)
        check_point("start_at", self.start_at)
        check_point("full_at", self.full_at)
        if self.full_at < self.start_at:
            raise ValueError(
                f"full_at must not come before start_at, got start_at={self.start_at}, full_at={self.full_at}."
            )
        if self.then is not None and not callable(self.then):
            raise TypeError(f"then must be a schedule such as Linear(0.1, 0.0), got {self.then!r}.")
        if self.then is not None and not math.isclose(self.then(0.0), self.eps):
            raise ValueError(f"then must begin at eps={self.eps}, got {self.then!r}, which begins at {self.then(0.0)}.")

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.eps if self.then is None else max(self.eps, peak(self.then))

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        if progress < self.start_at:
            return 0.0
        if progress < self.full_at:
            return self.eps * (progress - self.start_at) / (self.full_at - self.start_at)
        if self.then is None:
            return self.eps
        rest = 1 - self.full_at
        return self.then(min(1.0, (progress - self.full_at) / rest) if rest > 0 else 1.0)


@dataclass(frozen=True)
class Delayed:
    """0 while progress is below ``start_at``, then ``eps``, which may be negative: for ``loss=negative``.

    Args:
        eps: below 1.
        start_at: share of training in [0, 1] before which nothing is smoothed.

    Example:
        >>> schedule = Delayed(-0.4, start_at=0.5)
        >>> schedule(0.49), schedule(0.5)
        (0.0, -0.4)

    Source: Wei et al. 2022, arXiv:2106.04149.
    """

    eps: float
    start_at: float

    def __post_init__(self) -> None:
        if isinstance(self.eps, bool) or not isinstance(self.eps, int | float):
            raise TypeError(f"eps must be a number below 1, got {self.eps!r}.")
        if not -math.inf < self.eps < 1:
            raise ValueError(f"eps must be a number below 1, got {self.eps}.")
        check_point("start_at", self.start_at)

    @property
    def peak(self) -> float:
        """The eps that it comes to."""
        return self.eps

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return 0.0 if progress < self.start_at else self.eps
