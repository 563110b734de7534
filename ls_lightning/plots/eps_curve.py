"""The curve of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ls_lightning.plots.figure import BLUE, head, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def eps_curve(values: Sequence[float], *, title: str | None = None) -> Figure:
    """Draw eps over the progress of a run.

    Args:
        values: eps at evenly spread points from the first step to the last, at least 2.
        title: the schedule.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> print(eps_curve([0.1, 0.05, 0.0]).axes[0].get_title(loc="left").strip())
        eps from 0.1 to 0, at most 0.1
    """
    figure = new_figure(width=5.6, height=3.4)
    axes: Axes = figure.subplots()
    axes.plot([k / (len(values) - 1) for k in range(len(values))], values, color=BLUE, linewidth=1.8)
    axes.set(xlim=(0, 1), xlabel="progress of the run", ylabel="eps")
    if min(values) >= 0:
        axes.set_ylim(0, 1.1 * max(values) or 1)
    head(axes, f"eps from {values[0]:.3g} to {values[-1]:.3g}, at most {max(values):.3g}", title or "")
    tidy(axes)
    return figure
