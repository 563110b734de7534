"""Risk-coverage curves side by side: does smoothing spoil the order of confidences?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import DASHED, FAINT, head, new_figure, tidy
from ls_lightning.report.looks import dashed, families, plain_of
from ls_lightning.sweep.curves import RiskCurve, mean_risk
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.measures import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST, _COLUMNS = 6, 3
_PLAIN: dict[str, Any] = {"color": FAINT, "zorder": 2}


def risk_by_eps(groups: Sequence[Group], chosen: Group, stage: str, level: float = 0.95) -> Figure | None:
    """Draw the error rate among the surest samples against their share, a panel for each eps.

    Lines are means over seeds, one for each loss and schedule, with t intervals; dashed are the same networks after
    temperature scaling, and plain training is grey in every panel.

    Args:
        groups: of one setting.
        chosen: its eps is drawn whatever there is no room for.
        stage: ``"test"`` or ``"val"``.
        level: of the intervals.

    Returns:
        None where no job has a curve, as in results of earlier versions.
    """
    plain = plain_of(groups)
    looks = {} if plain is None else {plain: ("plain training", _PLAIN)}
    looks |= {group: (f.label, {"color": f.look["color"], "zorder": 3}) for f in families(groups) for group in f.groups}
    able = [group for group in looks if any(job.risk_coverage(stage) for job in group.jobs)]
    grid = _some(sorted({group.eps for group in able if group is not plain}), chosen.eps) or [0.0]
    able = [group for group in able if group is plain or group.eps in grid]
    shown = {group: curve for group in able if (curve := mean_risk(group, stage, level=level)) is not None}
    if not shown:
        return None
    columns = min(_COLUMNS, len(grid))
    rows = math.ceil(len(grid) / columns)
    figure = new_figure(width=1 + 3.6 * columns, height=0.8 + 3.4 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, eps in zip(panels.flat, grid, strict=False):
        here = [group for group in shown if group is plain or group.eps == eps]
        for group in here:
            label, look = looks[group]
            handles.setdefault(label, _draw(axes, shown[group], mean_risk(group, stage, scaled=True), look))
        head(axes, f"eps {eps:g}", _finding(here, looks, stage))
        axes.set_xlabel(f"share of the {stage} samples answered")
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelbottom=True)  # there may be no panel below
        tidy(axes, grid="both")
    for axes in panels.flat[len(grid) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("errors among them, %")
    panels[0, 0].set(xlim=(_start(list(shown.values())), 1), ylim=(0, None))
    if any(mean_risk(group, stage, scaled=True) for group in shown):
        handles["after temperature scaling"] = dashed()
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _draw(axes: Axes, curve: RiskCurve, scaled: RiskCurve | None, look: dict[str, Any]) -> Any:
    if curve.n > 1:
        low, high = ([r + sign * h for r, h in zip(curve.risk, curve.half, strict=True)] for sign in (-1, 1))
        axes.fill_between(curve.coverage, _percent(low), _percent(high), color=look["color"], alpha=0.13, linewidth=0)
    if scaled is not None:
        axes.plot(scaled.coverage, _percent(scaled.risk), linestyle=DASHED, linewidth=1, **look)
    return axes.plot(curve.coverage, _percent(curve.risk), linewidth=1.7, **look)[0]


def _finding(groups: Sequence[Group], looks: dict[Group, Any], stage: str) -> str:
    found = [(estimate.mean, looks[g][0]) for g in groups if (estimate := g.estimate(f"{stage}/aurc")) is not None]
    if not found:
        return ""
    area, name = min(found)
    return f"lowest AURC: {name}, {MEASURES['aurc'].show(area)} %"


def _start(curves: Sequence[RiskCurve]) -> float:
    """The coverage below which there is nothing to see: no curve reaches a fiftieth of the highest risk."""
    least = max(max(curve.risk) for curve in curves) / 50
    starts = [c.coverage[k] for c in curves for k, risk in enumerate(c.risk) if risk > least]
    return math.floor(10 * min(starts, default=0.0)) / 10


def _some(grid: list[float], wanted: float) -> list[float]:
    """At most six, spread over the grid, the wanted one among them."""
    if len(grid) <= _MOST:
        return grid
    kept = {grid[round(k * (len(grid) - 1) / (_MOST - 1))] for k in range(_MOST)}
    if wanted in grid and wanted not in kept:
        kept = kept - {min(kept - {grid[0], grid[-1]}, key=lambda eps: abs(eps - wanted))} | {wanted}
    return sorted(kept)


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]
