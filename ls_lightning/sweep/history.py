"""metrics.csv of a job as curves over steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HISTORY = "metrics.csv"


class Curve(NamedTuple):
    """Values over steps, both of one length."""

    steps: list[int]
    values: list[float]


def read_history(folder: Path) -> dict[str, Curve]:
    """Every column of ``metrics.csv`` where it has numbers; empty if there is no such file.

    A line that is still being written is left out.
    """
    curves: dict[str, Curve] = {}
    try:
        file = (folder / HISTORY).open(newline="", encoding="utf-8")
    except OSError:
        return curves
    with file:
        for row in csv.DictReader(file):
            step = row.pop("step", None) or ""
            if not step.isdigit() or None in row:
                continue
            for name, text in row.items():
                value = _number(text)
                if not math.isnan(value):
                    curve = curves.setdefault(name, Curve([], []))
                    curve.steps.append(int(step))
                    curve.values.append(value)
    return curves


def smooth(values: Sequence[float], weight: float) -> list[float]:
    r"""Exponential moving average without the bias of its start.

    .. math:: s_t = \sum_{i \le t} w^{t-i} x_i \,/\, \sum_{i \le t} w^{t-i}

    Args:
        values: in the order of the steps.
        weight: of the past, in [0, 1); 0 leaves the values as they are.

    Example:
        >>> smooth([1.0, 3.0, 3.0], 0.5)
        [1.0, 2.3333333333333335, 2.7142857142857144]
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be in [0, 1), got {weight}. 0 turns smoothing off.")
    found, total, mass = [], 0.0, 0.0
    for value in values:
        total, mass = weight * total + value, weight * mass + 1
        found.append(total / mass)
    return found


def thin(curve: Curve, most: int = 600) -> Curve:
    """At most about ``most`` of the points, first and last among them: a picture shows no more."""
    stride = max(1, math.ceil(len(curve.steps) / most))
    kept = [*range(0, len(curve.steps) - 1, stride), len(curve.steps) - 1]
    return Curve([curve.steps[k] for k in kept], [curve.values[k] for k in kept])


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
