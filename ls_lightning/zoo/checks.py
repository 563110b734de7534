"""Checks of options, each with one clear line: what was needed, what came."""

import math
from collections.abc import Iterable

TASKS = ("multiclass", "binary", "multilabel")


def is_int(value: object) -> bool:
    """Whether ``value`` is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_int(name: str, value: int, least: int = 1) -> int:
    """Return ``value``, an integer of at least ``least``.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_int("batch_size", 64)
        64
    """
    if not is_int(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    return value


def check_ints(name: str, values: Iterable[int], empty: bool = False) -> tuple[int, ...]:
    """Return ``values``, integers of at least 1, as a tuple; none at all only where ``empty``.

    Raises:
        ValueError: they are not.

    Example:
        >>> check_ints("hidden", [128, 64])
        (128, 64)
    """
    rule = f"{name} must be a list of integers of at least 1"
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{rule}, got {values!r}.")
    sizes = tuple(values)
    if not all(is_int(size) and size >= 1 for size in sizes) or not (sizes or empty):
        raise ValueError(f"{rule}, got {list(sizes)}.")
    return sizes


def check_share(name: str, value: float, zero: bool = False) -> float:
    """Return ``value``, a share in (0, 1), or in [0, 1) where ``zero``.

    Raises:
        ValueError: it is not; nan is not.

    Example:
        >>> check_share("val_fraction", 0.2)
        0.2
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and (0 <= value < 1 if zero else 0 < value < 1)):
        raise ValueError(f"{name} must be in {'[' if zero else '('}0, 1), got {value!r}.")
    return value


def check_scale(name: str, value: float) -> float:
    """Return ``value``, a number of at least 0.

    Raises:
        ValueError: it is not; nan and infinity are not.

    Example:
        >>> check_scale("input_noise", 0.5)
        0.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}.")
    return value


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value``, one of ``choices``.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_choice("task", "binary", ["binary", "multiclass"])
        'binary'
    """
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    return value


def check_bool(name: str, value: bool) -> bool:
    """Return ``value``, True or False.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_bool("augment", False)
        False
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}.")
    return value
