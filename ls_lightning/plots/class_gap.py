"""The gap of each class: which ones a model predicts too often, and which too rarely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import BLUE, INK, ORANGE, column, head, new_figure, tidy, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ls_lightning.plots.figure import Column

_MOST_ROWS = 30


def class_gap(
    counts: Column,
    confidence: Column,
    frequency: Column,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw for each class its mean probability minus its frequency, with the 95 % interval of the latter.

    A bar to the right, orange, is a class that gets more probability than it has samples. Of more than 30 classes
    those with the largest gaps are shown.

    Args:
        counts: samples that say something about each class, `(K,)`, as in
            :class:`~ls_lightning.functional.classwise.ClasswiseCalibration`.
        confidence: mean probability of each class, `(K,)`.
        frequency: share of samples that are of the class, `(K,)`.
        names: of the classes; None numbers them.
        title: what the classes are of.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the arrays are empty or not of one length, or there is not one name a class.

    Example:
        >>> figure = class_gap([400, 400], [0.6, 0.4], [0.5, 0.5], names=["cat", "dog"])
        >>> print(figure.axes[0].get_title(loc="left").strip())
        2 of 2 classes are off, most cat by 10.0 points too much

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953, for the intervals.
    """
    import numpy as np

    n, claimed, reached = columns = [column(values) for values in (counts, confidence, frequency)]
    shapes = [values.shape for values in columns]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(f"counts, confidence and frequency must be of one length, got shapes {shapes}.")
    labels = [str(name) for name in (range(len(n)) if names is None else names)]
    if len(labels) != len(n):
        raise ValueError(f"there must be a name for each of {len(n)} classes, got {len(labels)}.")
    gap = np.nan_to_num(100 * (claimed - reached))
    shown = np.sort(np.argsort(-np.abs(gap), kind="stable")[:_MOST_ROWS])
    figure = new_figure(width=5.6, height=1.7 + 0.24 * len(shown))
    axes: Axes = figure.subplots()
    low, high = (100 * (claimed - bound) for bound in reversed(wilson(np.nan_to_num(reached), np.maximum(n, 1))))
    _draw(axes, gap[shown], low[shown], high[shown], [labels[k] for k in shown])
    details = f"the {len(shown)} largest gaps of {len(n)} classes" if len(shown) < len(n) else f"{len(n)} classes"
    finding = _finding(gap, np.nan_to_num(low) * np.nan_to_num(high) > 0, labels)
    head(axes, finding, "   ".join([*([title] if title else []), details, "lines: 95 % interval"]))
    return figure


def _draw(axes: Axes, gap: Any, low: Any, high: Any, labels: list[str]) -> None:
    import numpy as np

    rows = np.arange(len(gap))
    for colour, hatch, side in ((ORANGE, "////", gap > 0), (BLUE, "\\\\\\\\", gap <= 0)):
        axes.barh(rows[side], gap[side], 0.72, color=colour, alpha=0.6, hatch=hatch, edgecolor="white", linewidth=1)
    axes.hlines(rows, low, high, color=INK, linewidth=1.1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.set_xlabel("mean probability - frequency, points")
    axes.set_ylabel("class")
    reach = 1.1 * max(np.max(np.abs(np.nan_to_num(np.concatenate([low, high])))), 0.1)
    axes.set_xlim(-reach, reach)
    tidy(axes, grid="x")


def _finding(gap: Any, is_off: Any, labels: list[str]) -> str:
    import numpy as np

    if not is_off.any():
        return "No class is off by more than chance"
    worst = int(np.argmax(np.where(is_off, np.abs(gap), -1)))
    points = f"{labels[worst]} by {abs(gap[worst]):.1f} points too {'much' if gap[worst] > 0 else 'little'}"
    return f"{int(is_off.sum())} of {len(gap)} classes are off, most {points}"
