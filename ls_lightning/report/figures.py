"""Draw and save the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ls_lightning.plots import reliability_diagram, save_figure
from ls_lightning.plots.figure import FAINT
from ls_lightning.report.against_eps import against_eps
from ls_lightning.report.content import Report
from ls_lightning.report.over_training import over_training
from ls_lightning.report.pareto import pareto
from ls_lightning.report.risk import risk_by_eps
from ls_lightning.sweep.choose import Choice
from ls_lightning.sweep.curves import Bins, pooled_bins
from ls_lightning.sweep.groups import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_SETTINGS = 4


def draw_figures(report: Report, out: Path, formats: Sequence[str]) -> list[tuple[str, str]]:
    """Write ``out/figures/<name>.<format>``; of very many settings those of the first four.

    Returns:
        Title and path, relative to ``out``, of each figure in its first format.
    """
    found = []
    for number, (setting, choice) in enumerate(list(report.choices.items())[:_MOST_SETTINGS]):
        groups = [group for group in report.groups if group.setting == setting]
        suffix = f"_{number}" if len(report.choices) > 1 else ""
        for name, title, figure in _figures(groups, choice, report.level):
            for form in formats:
                save_figure(figure, out / "figures" / f"{name}{suffix}.{form}")
                figure.set_layout_engine("none")  # it is laid out: once is enough for all formats
            found.append((f"{title}{f' ({setting})' if setting else ''}", f"figures/{name}{suffix}.{formats[0]}"))
    return found


def _figures(groups: Sequence[Group], choice: Choice, level: float) -> Iterator[tuple[str, str, Figure]]:
    yield "against_eps", "Metrics against eps", against_eps(groups, choice.chosen, level)
    yield "pareto", "Accuracy against ECE", pareto(groups, level)
    panels = _reliability(choice)
    if panels:
        figure = reliability_diagram(panels)
        words = f"{choice.stage} data, bins of all seeds added up: ECE is below the seeds' mean, intervals are narrow"
        figure.suptitle(words, x=0.01, ha="left", fontsize=9, color=FAINT)
        yield "reliability", "Reliability", figure
    risks = risk_by_eps(groups, choice.chosen, choice.stage, level)
    if risks is not None:
        yield "risk_coverage", "Risk-coverage curves", risks
    schedules = over_training(groups, choice.chosen)
    if schedules is not None:
        yield "schedules", "Eps over training", schedules


def _reliability(choice: Choice) -> dict[str, Bins]:
    """Plain training, also after temperature scaling, the recommended eps, and the best smoothed one."""
    plain, chosen, asked = choice.baseline, choice.chosen, choice.asked
    panels: dict[str, Bins | None] = {}
    if plain is not None:
        panels["plain"] = pooled_bins(plain, choice.stage)
        panels["plain, scaled"] = pooled_bins(plain, choice.stage, scaled=True)
    for group in (chosen, asked):
        if group is not plain:
            panels.setdefault(f"eps {group.eps:g}", pooled_bins(group, choice.stage))
    return {name: bins for name, bins in panels.items() if bins is not None}
