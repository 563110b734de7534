"""A schedule drawn before anything is trained: as text, and as a figure where matplotlib is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ls_lightning.plots import eps_curve, save_figure
from ls_lightning.schedules import Feedback, Schedule, eps_at
from ls_lightning.schedules.checks import name_of

_BLOCKS = " ▁▂▃▄▅▆▇█"


def sampled(schedule: Schedule, points: int, epochs: int | None = None) -> list[float]:
    """Eps at evenly spread points of a run, both ends among them.

    Args:
        schedule: a function of progress.
        points: how many, at least 2.
        epochs: given where eps changes at the start of each of so many epochs alone.

    Example:
        >>> from ls_lightning.schedules import Linear
        >>> sampled(Linear(0.5, 0.0), 5), sampled(Linear(0.5, 0.0), 5, epochs=2)
        ([0.5, 0.375, 0.25, 0.125, 0.0], [0.5, 0.5, 0.25, 0.25, 0.25])
    """
    progress = [k / (points - 1) for k in range(points)]
    if epochs is not None:
        progress = [min(math.floor(t * epochs), epochs - 1) / epochs for t in progress]
    return [eps_at(schedule, t) for t in progress]


def text_chart(values: Sequence[float], height: int = 10) -> str:
    """Bars of the values, one a column, with the scale on the left.

    Example:
        >>> print(text_chart([0.0, 0.05, 0.1, 0.1], height=2))
           0.1 ┤  ██
               ┤ ███
             0 └────
    """
    top = max(values) or 1.0
    rows = []
    for row in reversed(range(height)):
        filled = [min(1.0, max(0.0, value / top * height - row)) for value in values]
        label = f"{top:.3g}" if row == height - 1 else ""
        rows.append(f"{label:>6} ┤" + "".join(_BLOCKS[round(8 * share)] for share in filled))
    return "\n".join([*rows, f"{'0':>6} └" + "─" * len(values)])


def describe(schedule: Schedule | Feedback, folder: Path, epochs: int | None = None) -> str:
    """The chart as text; ``schedule.png`` is written to ``folder`` where matplotlib is installed.

    Args:
        schedule: a function of progress; of a Feedback the rule is told.
        folder: where the figure goes.
        epochs: as in :func:`sampled`.
    """
    name = name_of(schedule)
    if isinstance(schedule, Feedback):
        where = "each validation" if schedule.held_out is None else "each look at the held-out slice"
        gain = "min(1/4, 4 / updates)" if schedule.gain is None else f"{schedule.gain:g}"
        return (
            f"The curve of {name} is not known before the run: eps starts at {schedule.start:g} and moves after "
            f"{where} by {gain} x (mean confidence - accuracy), within [0, {schedule.eps_max:g}]."
        )
    lines = [f"eps of {name}", "", text_chart(sampled(schedule, 64, epochs)), f"{'':8}start{'end of the run':>59}", ""]
    try:
        figure = eps_curve(sampled(schedule, 1001, epochs), title=name)
        lines.append(str(save_figure(figure, folder / "schedule.png")))
    except ModuleNotFoundError as error:
        lines.append(str(error))
    return "\n".join(lines)
