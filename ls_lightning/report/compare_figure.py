"""The figure of ``compare``: curves of several jobs, overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import head, new_figure, tidy
from ls_lightning.report.looks import LOOKS
from ls_lightning.sweep.history import Curve, smooth, thin
from ls_lightning.sweep.measures import MEASURES, Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {
    "train/loss": "Training loss",
    "train/acc": "Training accuracy",
    "val/loss": "Validation loss",
    "val/nll": "Validation NLL",
    "val/acc": "Validation accuracy",
    "val/ece": "Validation ECE",
}
_STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))


def overlay(
    names: Sequence[str], curves: Sequence[dict[str, Curve]], keys: Sequence[str], weight: float, incomparable: bool
) -> Figure:
    """Draw a panel for each key. What is logged every few steps is smoothed, with the values faint behind it.

    Args:
        names: of the jobs.
        curves: of each job, by key.
        keys: of the panels.
        weight: of the past in the smoothed curve, in [0, 1); 0 draws the values alone.
        incomparable: whether the training losses have different minima; the panel then says so.
    """
    rows = (len(keys) + 1) // 2
    figure = new_figure(width=10.4, height=0.9 + 3.5 * rows)
    panels = list(figure.subplots(rows, 2, squeeze=False, sharex=True).flat)
    handles: dict[str, Any] = {}
    for axes, key in zip(panels, keys, strict=False):
        smoothed = False
        for number, (name, found) in enumerate(zip(names, curves, strict=True)):
            if key in found:
                curve = Curve(found[key].steps, [_measure(key).scale * value for value in found[key].values])
                look = {"color": LOOKS[number % len(LOOKS)][0], "linestyle": _STYLES[number % len(_STYLES)]}
                smoothed |= _draw(axes, curve, look, weight)
                handles.setdefault(name, axes.lines[-1])
        finding, details = _finding(key, names, curves)
        finding = f"{_TITLES[key]}: not comparable" if incomparable and key == "train/loss" else finding
        head(axes, finding, f"{details}; {f'running mean, weight {weight:g}' if smoothed else 'as logged'}")
        axes.set_xlabel("optimizer step")
        axes.tick_params(labelbottom=True)  # the last panel of a column may be empty
        tidy(axes)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def _draw(axes: Axes, curve: Curve, look: dict[str, Any], weight: float) -> bool:
    """Whether the curve was smoothed: only what is logged more often than every ten steps is."""
    dense = len(curve.steps) * 10 > curve.steps[-1] - curve.steps[0] and len(curve.steps) > 20
    if weight > 0 and dense:
        axes.plot(*thin(curve, 2000), color=look["color"], alpha=0.22, linewidth=0.7)
        axes.plot(*thin(Curve(curve.steps, smooth(curve.values, weight)), 1000), linewidth=1.7, **look)
        return True
    axes.plot(*thin(curve, 2000), linewidth=0.9 if dense else 1.6, **look)
    return False


def _finding(key: str, names: Sequence[str], curves: Sequence[dict[str, Curve]]) -> tuple[str, str]:
    """What there is to see in a panel, and whose it is."""
    measure = _measure(key)
    title, unit = _TITLES[key], f" {measure.unit}" if measure.unit else ""
    if key.startswith("train/"):
        return title, "every mini-batch" + (f", {measure.unit}" if measure.unit else "")
    last = {name: found[key].values[-1] for name, found in zip(names, curves, strict=True) if key in found}
    best = min(last, key=lambda name: measure.cost(last[name]))
    most = "highest" if measure.best == "high" else "lowest"
    return f"{title}: {most} {measure.show(last[best])}{unit}", f"{best}, at the end"


def _measure(key: str) -> Measure:
    return MEASURES.get(key.partition("/")[2], MEASURES["nll"])
