"""The figure that answers most: accuracy, NLL, ECE and gap against eps, with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import DASHED, FAINT, INK, head, new_figure, tidy
from ls_lightning.report.looks import Family, dashed, families, plain_of
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.measures import MEASURES, Measure
from ls_lightning.sweep.table import header, stage_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("acc", "nll", "ece", "gap")
_LABELS = {"gap": "mean confidence - accuracy, %"}
_MOST_TICKS = 8


def against_eps(groups: Sequence[Group], chosen: Group | None = None, level: float = 0.95) -> Figure:
    """Draw four metrics against eps, a line for each loss and schedule, beginning at plain training.

    Bands are t intervals over seeds; dashed lines are the same networks after temperature scaling.

    Args:
        groups: of one setting.
        chosen: the recommended one, whose eps is marked.
        level: of the bands.
    """
    figure, stage = new_figure(width=10.4, height=7.8), stage_of(groups)
    plain, lines, ticks = plain_of(groups), families(groups), sorted({group.eps for group in groups})
    handles: dict[str, Any] = {}
    for axes, key in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        measure = MEASURES[key]
        for family in lines:
            handles |= _draw_family(axes, family, plain, stage, measure, level)
        handles |= _draw_plain(axes, plain, stage, measure, level)
        if measure.best == "zero":
            axes.axhline(0, color=INK, linewidth=0.8)
        head(axes, _finding(groups, stage, measure), f"{stage} data, mean over seeds, {100 * level:g} % t interval")
        axes.set(xlabel="eps", ylabel=_LABELS.get(key, header(measure)))
        if len(ticks) <= _MOST_TICKS:
            axes.set_xticks(ticks, [f"{eps:g}" for eps in ticks])
        if chosen is not None:
            handles["recommended"] = axes.axvline(chosen.eps, color=FAINT, linewidth=1, linestyle=(0, (1, 1.5)))
        tidy(axes, grid="both")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _draw_family(
    axes: Axes, family: Family, plain: Group | None, stage: str, measure: Measure, level: float
) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    groups = [*([plain] if plain and family.groups[0].plain_at_zero else []), *family.groups]
    eps, mean, half = _points(groups, f"{stage}/{measure.key}", measure, level)
    if eps:
        low, high = (
            [m + sign * (0 if math.isnan(h) else h) for m, h in zip(mean, half, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(eps, low, high, color=family.look["color"], alpha=0.15, linewidth=0)
        (handles[family.label],) = axes.plot(eps, mean, linewidth=1.8, markersize=5.5, zorder=3, **family.look)
    eps, mean, _ = _points(groups, f"{stage}_scaled/{measure.key}", measure, level)
    if eps and measure.best != "high":  # accuracy is the same
        axes.plot(eps, mean, color=family.look["color"], linestyle=DASHED, linewidth=1.2, zorder=2)
        handles["after temperature scaling"] = dashed()
    return handles


def _draw_plain(axes: Axes, plain: Group | None, stage: str, measure: Measure, level: float) -> dict[str, Any]:
    found = None if plain is None else plain.estimate(f"{stage}/{measure.key}", level)
    if found is None:
        return {}
    value, half = measure.scale * found.mean, measure.scale * found.half
    look: dict[str, Any] = {"color": INK, "marker": "D", "markersize": 5, "linestyle": "none", "zorder": 4}
    drawn = axes.errorbar([0], [value], [0 if math.isnan(half) else half], elinewidth=1.2, capsize=3, **look)
    return {"plain training": drawn}


def _points(
    groups: Sequence[Group], column: str, measure: Measure, level: float
) -> tuple[list[float], list[float], list[float]]:
    found = [(group.eps, group.estimate(column, level)) for group in groups]
    known = [(eps, one) for eps, one in found if one is not None]
    scale = measure.scale
    return [eps for eps, _ in known], [scale * one.mean for _, one in known], [scale * one.half for _, one in known]


def _finding(groups: Sequence[Group], stage: str, measure: Measure) -> str:
    found = [(group, group.estimate(f"{stage}/{measure.key}")) for group in groups]
    known = [(measure.cost(one.mean), group, one.mean) for group, one in found if one is not None]
    if not known:
        return f"{measure.label}: not measured"
    _, group, value = min(known, key=lambda item: item[0])
    unit = f" {measure.unit}" if measure.unit else ""
    most = {"high": "highest", "low": "lowest", "zero": "smallest"}[measure.best or "low"]
    loss = f"{group.loss}, " if len({other.loss for other in groups}) > 1 else ""
    return f"{most.capitalize()} {measure.label}: {measure.show(value)}{unit} at {loss}{group.label}"
