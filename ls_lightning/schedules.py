"""Schedules: plain values that map the progress of a run to eps.

``progress`` is 0 at the first optimizer step and 1 at the end of training, so a schedule is the
same curve on any number of devices and at any batch size. :class:`ls_lightning.LabelSmoothing`
calls it before every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[float], float]


def _check_eps(name: str, eps: float) -> None:
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise TypeError(f"{name} must be a number in [0, 1), got {eps!r}.")
    if not 0 <= eps < 1:
        raise ValueError(f"{name} must be in [0, 1), got {eps}. It is the mass taken from the true class.")


def _check_point(name: str, point: float) -> None:
    if isinstance(point, bool) or not isinstance(point, int | float):
        raise TypeError(f"{name} must be a share of training in [0, 1], got {point!r}.")
    if not 0 <= point <= 1:
        raise ValueError(f"{name} must be a share of training in [0, 1], got {point}.")


def _check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1], got {progress}. It is global_step / total steps.")


@dataclass(frozen=True)
class Constant:
    """The same eps throughout.

    Args:
        eps: in [0, 1).

    Example:
        >>> Constant(0.1)(0.7)
        0.1
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps("eps", self.eps)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return self.eps


@dataclass(frozen=True)
class Linear:
    r"""A straight line from ``start`` to ``end``.

    .. math:: \epsilon(t) = start + (end - start)\,t

    Decaying to 0 keeps most of the gain in accuracy on clean data and leaves the model calibrated;
    increasing schedules are used too (Zhou et al. 2025, arXiv:2502.15798, appendix F).

    Args:
        start: eps at progress 0, in [0, 1).
        end: eps at progress 1, in [0, 1).

    Example:
        >>> [round(Linear(0.1, 0.0)(t), 3) for t in (0, 0.25, 0.5, 1)]
        [0.1, 0.075, 0.05, 0.0]
    """

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_eps("start", self.start)
        _check_eps("end", self.end)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    r"""Half a cosine wave from ``start`` to ``end``: flat at both ends.

    .. math:: \epsilon(t) = end + (start - end)\,(1 + \cos \pi t) / 2

    Args:
        start: eps at progress 0, in [0, 1).
        end: eps at progress 1, in [0, 1).

    Example:
        >>> [round(Cosine(0.1, 0.0)(t), 4) for t in (0, 0.25, 0.5, 1)]
        [0.1, 0.0854, 0.05, 0.0]
    """

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_eps("start", self.start)
        _check_eps("end", self.end)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class TwoStage:
    """``eps`` while progress is below ``drop_at``, then 0.

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
        _check_eps("eps", self.eps)
        _check_point("drop_at", self.drop_at)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return self.eps if progress < self.drop_at else 0.0


@dataclass(frozen=True)
class Step:
    r"""``eps`` times ``gamma`` for every milestone passed.

    .. math:: \epsilon(t) = \epsilon\,\gamma^{\#\{m : m \le t\}}

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
        _check_eps("eps", self.eps)
        _check_point("gamma", self.gamma)
        if isinstance(self.milestones, str) or not isinstance(self.milestones, Sequence):
            raise TypeError(f"milestones must be a list of shares of training, got {self.milestones!r}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            _check_point("milestones", milestone)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, got {list(self.milestones)}.")

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return self.eps * self.gamma ** sum(milestone <= progress for milestone in self.milestones)


@dataclass(frozen=True)
class Warmup:
    """0 until ``start_at``, a straight ramp to ``eps`` at ``full_at``, then another schedule.

    Args:
        eps: reached at ``full_at``, in [0, 1).
        start_at: share of training before which nothing is smoothed.
        full_at: share of training at which ``eps`` is reached; ``start_at`` or later.
        then: the schedule for the rest, stretched over what remains; it must begin at ``eps``.
            None keeps ``eps``.

    Example:
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
        _check_eps("eps", self.eps)
        _check_point("start_at", self.start_at)
        _check_point("full_at", self.full_at)
        if self.full_at < self.start_at:
            raise ValueError(
                f"full_at must not come before start_at, got start_at={self.start_at}, full_at={self.full_at}."
            )
        if self.then is not None and not callable(self.then):
            raise TypeError(f"then must be a schedule such as Linear(0.1, 0.0), got {self.then!r}.")
        if self.then is not None and not math.isclose(self.then(0.0), self.eps):
            raise ValueError(f"then must begin at eps={self.eps}, got {self.then!r}, which begins at {self.then(0.0)}.")

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
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
        _check_point("start_at", self.start_at)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        _check_progress(progress)
        return 0.0 if progress < self.start_at else self.eps


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "two_stage": TwoStage,
    "step": Step,
    "warmup": Warmup,
}


def build_schedule(name: str, *args: float) -> Schedule:
    """The schedule of that config name, e.g. ``build_schedule("linear", 0.1, 0.0)``.

    Args:
        name: one of ``SCHEDULES``.
        *args: its parameters in order, eps (or start) first.

    Raises:
        ValueError: there is no such schedule, or a parameter is out of range.

    Example:
        >>> build_schedule("cosine", 0.1)
        Cosine(start=0.1, end=0.0)
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}.")
    return SCHEDULES[name](*args)
