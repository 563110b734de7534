"""The report as a run of wandb: tables, answer, figures and files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ls_lightning.report.content import Report
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.table import header, stage_of
from ls_lightning.sweep.tidy import tidy_csv
from ls_lightning.wandb_run import Rows, log_run

_WORDS = ("folder", "status", "note", "name", "loss", "schedule", "schedule_form", "model", "data", "digest", "started")
_KEYS = ("setting", "loss", "schedule", "eps", "seeds", "temperature")


def upload(report: Report, out: Path, figures: Sequence[tuple[str, str]], files: Sequence[Path], select: str) -> str:
    """Log the report to a run in ``out/wandb``, offline unless ``WANDB_MODE`` says otherwise.

    Args:
        report: what it says.
        out: where its files are.
        figures: title and path, relative to ``out``, of each.
        files: that go along.
        select: what eps was chosen by.

    Returns:
        A line that says where the run is.

    Raises:
        ConfigError: wandb cannot start.
    """
    answers = [(setting, title, "\n\n".join(paragraphs)) for setting, title, paragraphs in report.answers]
    summary: dict[str, Any] = {"jobs": report.counts, "answer": "\n".join(title for _, title, _ in answers)}
    if len(report.choices) == 1:
        (choice,) = report.choices.values()
        found = choice.chosen
        summary |= {"recommended": {"loss": found.loss, "schedule": found.schedule, "eps": found.eps}}
    return log_run(
        out,
        name=f"report {out.absolute().parent.name}",
        config={"select": select, "level": report.level},
        tables={
            "report/table": _table(report),
            "report/answers": (("setting", "answer", "why"), answers),
            "report/jobs": _jobs(report),
        },
        images={f"report/{Path(path).stem}": out / path for _, path in figures if path.endswith(".png")},
        summary=summary,
        files=files,
    )


def _table(report: Report) -> Rows:
    """Mean and half of the interval of each measure, as numbers; below each group the same after scaling."""
    stage = stage_of(report.groups)
    measures = report.measures
    columns = [*_KEYS, *(name for measure in measures for name in (header(measure), f"{header(measure)} ±"))]
    rows: list[list[Any]] = []
    for group in report.groups:
        temperature = group.estimate("temperature")
        for scaled in (False, True):
            found = [group.estimate(f"{stage}{'_scaled' * scaled}/{m.key}", report.level) for m in measures]
            numbers = [
                _number(measure.scale * value)
                for measure, one in zip(measures, found, strict=True)
                for value in ((math.nan, math.nan) if one is None else (one.mean, one.half))
            ]
            if any(number is not None for number in numbers):
                rows.append([*_keys(group), temperature.mean if scaled and temperature else None, *numbers])
    return columns, rows


def _keys(group: Group) -> list[Any]:
    return [group.setting, group.loss, group.schedule, group.eps, len(group.jobs)]


def _jobs(report: Report) -> Rows:
    columns, *rows = csv.reader(io.StringIO(tidy_csv(report.jobs)))
    return columns, [[_cell(name, text) for name, text in zip(columns, row, strict=True)] for row in rows]


def _cell(column: str, text: str) -> float | str | None:
    if column in _WORDS:  # a digest may look like a number
        return text
    try:
        return _number(float(text))
    except ValueError:
        return text or None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
