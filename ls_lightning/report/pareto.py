"""Accuracy against ECE: which combinations nobody beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import BAR, FAINT, INK, head, new_figure, tidy
from ls_lightning.report.looks import families
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.table import stage_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: none has at most its first number and at least its second, and one of them better.

    Args:
        points: ``(ece, accuracy)``.

    Returns:
        Indices, by increasing ECE.

    Example:
        >>> front([(1.0, 90.0), (2.0, 95.0), (3.0, 94.0), (1.5, 89.0)])
        [0, 1]
    """
    found, best = [], -math.inf
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if points[index][1] > best:
            found.append(index)
            best = points[index][1]
    return found


def pareto(groups: Sequence[Group], level: float = 0.95) -> Figure:
    """Draw accuracy against ECE with intervals over seeds, and the front that nobody beats.

    Hollow marks are the same networks after temperature scaling, which moves them sideways.

    Args:
        groups: of one setting.
        level: of the intervals.
    """
    stage = stage_of(groups)
    figure = new_figure(width=7.6, height=5.4)
    axes: Axes = figure.subplots()
    looks = {group: (family.label, family.look) for family in families(groups) for group in family.groups}
    shown, points = [], []
    for group in groups:
        ece, acc = group.estimate(f"{stage}/ece", level), group.estimate(f"{stage}/acc", level)
        if ece is None or acc is None:
            continue
        label, look = looks.get(group, ("plain training", {"color": INK, "marker": "D"}))
        x, y = 100 * ece.mean, 100 * acc.mean
        errors: dict[str, Any] = {"xerr": _bar(ece.half), "yerr": _bar(acc.half), "elinewidth": 0.9}
        axes.errorbar(x, y, linestyle="none", markersize=6.5, zorder=3, label=label, **errors, **look)
        scaled = group.estimate(f"{stage}_scaled/ece", level)
        if scaled is not None:
            axes.plot([x, 100 * scaled.mean], [y, y], color=BAR, linewidth=0.8, zorder=1)
            axes.plot(100 * scaled.mean, y, markersize=6.5, markerfacecolor="white", zorder=2, **look)
        shown.append(group)
        points.append((x, y))
    best = front(points)
    _draw_front(axes, [points[index] for index in best])
    for group, point in zip(shown, points, strict=True):
        axes.annotate(f"{group.eps:g}", point, (7, 4), textcoords="offset points", fontsize=8.5, color=INK, zorder=5)
    finding = f"{len(best)} of {len(points)} are beaten by none in both accuracy and ECE"
    head(axes, finding, _details(groups, stage, level))
    axes.set(xlabel="ECE %", ylabel="accuracy %")
    tidy(axes, grid="both")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower right", fontsize=9, frameon=False)
    return figure


def _details(groups: Sequence[Group], stage: str, level: float) -> str:
    scaled = any(group.estimate(f"{stage}_scaled/ece") for group in groups)
    hollow = "; hollow: after temperature scaling" if scaled else ""
    return f"{stage} data, mean over seeds, {100 * level:g} % t intervals, labelled by eps{hollow}"


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    if points:
        dotted = (0, (1, 1.5))
        axes.step(*zip(*points, strict=True), where="post", color=FAINT, linewidth=1.2, linestyle=dotted, zorder=1)


def _bar(half: float) -> float:
    return 0.0 if math.isnan(half) else 100 * half
