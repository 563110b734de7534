"""eps over training, as it was logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import DASHED, head, new_figure, tidy
from ls_lightning.report.looks import families
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.history import read_history, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 24
_MOST_TICKS = 8
_STYLES: dict[str, Any] = {"o": "-", "s": DASHED, "^": "-.", "D": ":"} | dict.fromkeys("vPX", "-")


def over_training(groups: Sequence[Group], chosen: Group) -> Figure | None:
    """Draw the eps of every optimizer step, one job a group; None where no job has logged it.

    Args:
        groups: of one setting; of very many those of the chosen one's loss and schedule.
        chosen: drawn bold.
    """
    if len(groups) > _MOST:
        groups = [group for group in groups if (group.loss, group.schedule) == (chosen.loss, chosen.schedule)][:_MOST]
    figure = new_figure(width=7.6, height=4.4)
    axes: Axes = figure.subplots()
    ends: dict[Group, str] = {}
    for family in families(groups):
        for group in family.groups:
            curve = read_history(group.jobs[0].folder).get("ls/eps")
            if curve is None:
                continue
            steps, values = thin(curve)
            bold: dict[str, Any] = {"linewidth": 2.8, "zorder": 4} if group is chosen else {"linewidth": 1.3}
            style = _STYLES[family.look["marker"]]
            axes.plot(steps, values, color=family.look["color"], linestyle=style, label=family.label, **bold)
            ends[group] = f"{round(values[0], 3):g} to {round(values[-1], 3):g}"
    if not ends:
        return None
    first = f"{chosen.label}: from {ends[chosen]}" if chosen in ends else "Eps over training"
    head(axes, first, "eps of every optimizer step, first seed" + ("; bold: recommended" if chosen.smooths else ""))
    axes.set(xlabel="optimizer step", ylabel="eps")
    if min(group.eps for group in ends) >= 0:
        axes.set_ylim(bottom=0)
    ticks = sorted({0.0, *(group.eps for group in ends)})
    if len(ticks) <= _MOST_TICKS:
        axes.set_yticks(ticks, [f"{eps:g}" for eps in ticks])
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
