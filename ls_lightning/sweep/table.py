"""The cells of the table: a row a group, a column a metric, plain and after temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ls_lightning.errors import ConfigError, did_you_mean
from ls_lightning.sweep.groups import Group, baseline_of
from ls_lightning.sweep.measures import MEASURES, SHOWN, Measure, measure_of

MISSING = "-"


@dataclass(frozen=True)
class Row:
    """A row of cells.

    Args:
        keys: setting, loss, schedule, eps and n as text, those that say something; of a scaled row the temperature.
        cells: by the key of the metric.
        scaled: whether the values are those after temperature scaling.
    """

    keys: dict[str, str]
    cells: dict[str, str]
    scaled: bool = False


def shown_measures(
    groups: Sequence[Group], stage: str, columns: Sequence[str] | None = None, own: Sequence[Measure] = ()
) -> list[Measure]:
    """The metrics of the table.

    Args:
        groups: of all settings.
        stage: whose values are shown.
        columns: by name, in this order, or ``["all"]``; None takes the usual ones that at least one group has.
        own: metrics of the user's own that decided, which the usual ones are followed by.

    Raises:
        ConfigError: no job has one of ``columns``.
    """
    values = {column for group in groups for job in group.jobs for column in job.values}
    found = {column.removeprefix(f"{stage}/") for column in values if column.startswith(f"{stage}/")}
    known = [*SHOWN, *(key for key in MEASURES if key not in SHOWN), *sorted(found - MEASURES.keys() - {"n", "oos_n"})]
    if columns is None:
        return [MEASURES[key] for key in SHOWN if key in found] + list(own)
    if list(columns) == ["all"]:
        return [measure_of(key) for key in known if key in found]
    lacking = [key for key in columns if key not in found]
    if lacking:
        there = [key for key in known if key in found]
        hint = did_you_mean(lacking[0], there) or f" There are {', '.join(there)}."
        raise ConfigError(f"columns={lacking[0]} needs {stage}/{lacking[0]}, which no finished job has.{hint}")
    return [measure_of(key) for key in columns]


def stage_of(groups: Sequence[Group]) -> str:
    """``test``, or ``val`` if nothing was tested."""
    tested = any(column.startswith("test/") for group in groups for job in group.jobs for column in job.values)
    return "test" if tested else "val"


def header(measure: Measure) -> str:
    """With its unit."""
    return f"{measure.label} {measure.unit}".strip()


def mean_rows(groups: Sequence[Group], measures: Sequence[Measure], level: float = 0.95) -> list[Row]:
    """Mean and t interval over seeds; below each group the same after temperature scaling, where it was measured."""
    stage, several = stage_of(groups), len({group.setting for group in groups}) > 1
    rows = []
    for group in groups:
        plain = {measure.key: _mean(group, f"{stage}/{measure.key}", measure, level) for measure in measures}
        rows.append(Row(_keys(group, several), plain))
        scaled = {measure.key: _mean(group, f"{stage}_scaled/{measure.key}", measure, level) for measure in measures}
        temperature = group.estimate("temperature", level)
        if temperature is not None and any(cell != MISSING for cell in scaled.values()):
            rows.append(Row({"schedule": "  scaled", "eps": f"T {temperature.mean:.2f}"}, scaled, scaled=True))
    return rows


def difference_rows(groups: Sequence[Group], measures: Sequence[Measure], level: float = 0.95) -> list[Row]:
    """Each group minus plain training in its setting, paired over the seeds that both have."""
    stage, several = stage_of(groups), len({group.setting for group in groups}) > 1
    rows = []
    for group in groups:
        base = baseline_of(group, groups)
        if base is None or base is group or not group.smooths:
            continue
        cells, n = {}, ""
        for measure in measures:
            found = group.difference(base, f"{stage}/{measure.key}", level)
            cells[measure.key] = MISSING if found is None else measure.show(found.mean, found.half, signed=True)
            if found is not None:
                n = f"{found.n}" if found.paired else f"{found.n} unpaired"
        rows.append(Row({**_keys(group, several), "n": n}, cells))
    return rows


def _keys(group: Group, several: bool) -> dict[str, str]:
    setting = {"setting": group.setting} if several else {}
    own = {"loss": group.loss, "schedule": group.schedule, "eps": f"{group.eps:g}", "n": str(len(group.jobs))}
    return {**setting, **own}


def _mean(group: Group, column: str, measure: Measure, level: float) -> str:
    found = group.estimate(column, level)
    return MISSING if found is None else measure.show(found.mean, found.half)
