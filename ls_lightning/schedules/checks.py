"""What a schedule is, and what its parameters and its values may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

Schedule = Callable[[float], float]

_POINTS = 1000


def check_eps(name: str, eps: float) -> None:
    """Raise unless ``eps`` is a number in [0, 1)."""
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise TypeError(f"{name} must be a number in [0, 1), got {eps!r}.")
    if not 0 <= eps < 1:
        raise ValueError(f"{name} must be in [0, 1), got {eps}. It is the mass taken from the true class.")


def check_point(name: str, point: float) -> None:
    """Raise unless ``point`` is a number in [0, 1]."""
    if isinstance(point, bool) or not isinstance(point, int | float):
        raise TypeError(f"{name} must be a share of training in [0, 1], got {point!r}.")
    if not 0 <= point <= 1:
        raise ValueError(f"{name} must be a share of training in [0, 1], got {point}.")


def check_points(name: str, points: Any) -> tuple[float, ...]:
    """``points`` as a tuple; raises unless they are a list of shares of training that increase."""
    if isinstance(points, str) or not hasattr(points, "__iter__"):
        raise TypeError(f"{name} must be a list of shares of training, got {points!r}.")
    found: tuple[float, ...] = tuple(points)
    for point in found:
        check_point(name, point)
    if list(found) != sorted(set(found)):
        raise ValueError(f"{name} must increase, got {list(found)}.")
    return found


def check_progress(progress: float) -> None:
    """Raise unless ``progress`` is in [0, 1]."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1], got {progress}. It is global_step / total steps.")


def eps_at(schedule: Schedule, progress: float, negative: bool = False) -> float:
    """What ``schedule`` says at ``progress``, which a function of one's own may say wrongly.

    Args:
        schedule: a function of progress.
        progress: in [0, 1].
        negative: allow eps below 0 too, for ``loss=negative``.

    Raises:
        TypeError: it is no number.
        ValueError: it is not in [0, 1).

    Example:
        >>> eps_at(lambda progress: 1 - progress, 0.0)
        Traceback (most recent call last):
        ValueError: a schedule must return eps in [0, 1), got 1.0 from <lambda> at progress 0.
    """
    eps = schedule(progress)
    try:
        number = math.nan if isinstance(eps, bool | str) else float(eps)
    except (TypeError, ValueError):
        raise TypeError(f"a schedule must return a number in [0, 1), {_got(eps, schedule, progress)}") from None
    if not (-math.inf if negative else 0) <= number < 1:
        raise ValueError(f"a schedule must return eps in [0, 1), {_got(eps, schedule, progress)}")
    return number


def _got(eps: object, schedule: Schedule, progress: float) -> str:
    return f"got {eps!r} from {name_of(schedule)} at progress {progress:g}."


def curve(schedule: Schedule, points: int = _POINTS) -> list[float]:
    """Eps at ``points + 1`` evenly spread points of training, both ends among them; each is checked.

    Example:
        >>> curve(lambda progress: progress / 2, points=4)
        [0.0, 0.125, 0.25, 0.375, 0.5]
    """
    return [eps_at(schedule, k / points) for k in range(points + 1)]


def peak(schedule: Schedule) -> float:
    """The highest eps of a schedule: what it says of itself, or, of any other function, its highest at 1001 points."""
    said = getattr(schedule, "peak", None)
    return float(said) if isinstance(said, int | float) else max(curve(schedule))


def name_of(schedule: object) -> str:
    """The name of a function, or the class of an object, with what it was given: the same in every process.

    The jobs of other seeds are found by it, so an address in memory must not be in it.

    Example:
        >>> name_of(math.sin)
        'sin'
    """
    function = getattr(schedule, "func", schedule)  # of a functools.partial
    kind: Any = type(schedule)
    if hasattr(function, "__name__"):
        given = getattr(schedule, "keywords", {})
        return _call(function.__name__, given) if given else str(function.__name__)
    if kind.__repr__ is object.__repr__:
        return _call(kind.__name__, vars(schedule))
    if is_dataclass(schedule) and kind.__dataclass_params__.repr:  # whose parts may be a user's own
        return _call(kind.__name__, {field.name: getattr(schedule, field.name) for field in fields(schedule)})
    return repr(schedule)


def _call(name: str, given: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={_shown(value)}' for key, value in given.items())})"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' * (len(value) == 1)})"
    return name_of(value) if callable(value) else repr(value)
