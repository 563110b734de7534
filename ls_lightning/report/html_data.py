"""What the figures of report.html are drawn from: numbers, rounded to what a screen shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ls_lightning.report.against_eps import PANELS
from ls_lightning.report.content import Report
from ls_lightning.report.looks import LOOKS, families
from ls_lightning.sweep.choose import Choice
from ls_lightning.sweep.curves import mean_risk, pooled_bins
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.history import Curve, read_history, thin
from ls_lightning.sweep.measures import MEASURES
from ls_lightning.sweep.table import header, stage_of

_DIGITS = 5
_MOST_POINTS = 120


def figure_data(report: Report) -> dict[str, Any]:
    """Settings with their choice, groups with their estimates and curves, and what the metrics are called.

    Shares are of 1 in bins and curves, and in the unit that is shown in estimates; what is unknown is None. The
    coverages of all risk-coverage curves are mostly the same, and stand there once.
    """
    groups, stage = report.groups, stage_of(report.groups)
    coverages: list[list[float]] = []
    settings = list(dict.fromkeys(group.setting for group in groups))
    looks = {group: look for setting in settings for group, look in _looks(groups, setting).items()}
    return {
        "stage": stage,
        "level": report.level,
        "measures": [_measure(key) for key in PANELS],
        "settings": [_setting(name, report.choices.get(name), groups) for name in settings],
        "groups": [
            {**_keys(group), **looks[group], "setting": settings.index(group.setting)}
            | _numbers(group, stage, report.level)
            | {
                "risk": _risk(group, stage, report.level, coverages),
                "scaledRisk": _risk(group, stage, report.level, coverages, scaled=True),
            }
            for group in groups
        ],
        "coverages": coverages,
    }


def _measure(key: str) -> dict[str, Any]:
    measure = MEASURES[key]
    digits = len(measure.show(0.5).partition(".")[2])
    return {
        **{"key": key, "label": measure.label, "header": header(measure)},
        **{"unit": measure.unit, "best": measure.best, "digits": digits},
    }


def _setting(name: str, choice: Choice | None, groups: Sequence[Group]) -> dict[str, Any]:
    if choice is None:
        return {"name": name, "chosen": None, "asked": None, "baseline": None}
    numbers = {group: number for number, group in enumerate(groups)}
    baseline = None if choice.baseline is None else numbers[choice.baseline]
    return {"name": name, "chosen": numbers[choice.chosen], "asked": numbers[choice.asked], "baseline": baseline}


def _looks(groups: Sequence[Group], setting: str) -> dict[Group, dict[str, Any]]:
    """The family of every group, and the colour and mark that it has in the other figures."""
    mine = [group for group in groups if group.setting == setting]
    found: dict[Group, dict[str, Any]] = {group: {"family": None, "look": None} for group in mine}
    for family in families(mine):
        look = LOOKS.index((family.look["color"], family.look["marker"]))
        found |= {group: {"family": family.label, "look": look} for group in family.groups}
    return found


def _keys(group: Group) -> dict[str, Any]:
    return {
        **{"loss": group.loss, "schedule": group.schedule, "eps": group.eps, "label": group.label},
        **{"n": len(group.jobs), "smooths": group.smooths, "plainAtZero": group.plain_at_zero},
    }


def _numbers(group: Group, stage: str, level: float) -> dict[str, Any]:
    temperature = group.estimate("temperature")
    return {
        "T": None if temperature is None else _round(temperature.mean),
        "plain": _estimates(group, stage, level),
        "scaled": _estimates(group, f"{stage}_scaled", level),
        "bins": _rounded(pooled_bins(group, stage)),
        "scaledBins": _rounded(pooled_bins(group, stage, scaled=True)),
        "epsCurve": _rounded(_eps_curve(group)),
    }


def _estimates(group: Group, stage: str, level: float) -> dict[str, list[float | None]]:
    found = {key: group.estimate(f"{stage}/{key}", level) for key in PANELS}
    return {
        key: [_round(MEASURES[key].scale * one.mean), _round(MEASURES[key].scale * one.half)]
        for key, one in found.items()
        if one is not None
    }


def _risk(
    group: Group, stage: str, level: float, coverages: list[list[float]], *, scaled: bool = False
) -> dict[str, Any] | None:
    """Risk, half of its interval where there is one, and the place of its coverages among all."""
    curve = mean_risk(group, stage, scaled=scaled, level=level)
    if curve is None:
        return None
    if curve.coverage not in coverages:
        coverages.append(curve.coverage)
    half = [_round(value) for value in curve.half]
    return {
        "coverage": coverages.index(curve.coverage),
        "risk": [_round(value) for value in curve.risk],
        "half": half if any(half) else None,
    }


def _eps_curve(group: Group) -> Curve | None:
    """Of the first seed, at few points, and of those not the ones on a straight line."""
    curve = read_history(group.jobs[0].folder).get("ls/eps")
    if curve is None:
        return None
    steps, values = thin(curve, _MOST_POINTS)
    kept = [k for k in range(len(steps)) if k in (0, len(steps) - 1) or not _is_straight(steps, values, k)]
    return Curve([steps[k] for k in kept], [values[k] for k in kept])


def _is_straight(steps: Sequence[int], values: Sequence[float], k: int) -> bool:
    before = (values[k] - values[k - 1]) * (steps[k + 1] - steps[k])
    after = (values[k + 1] - values[k]) * (steps[k] - steps[k - 1])
    return math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-9)


def _rounded(columns: Iterable[Iterable[float]] | None) -> list[list[float | None]] | None:
    return None if columns is None else [[_round(value) for value in column] for column in columns]


def _round(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short
