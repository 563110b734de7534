"""sweep.csv: one row a job, every metric a column, for pandas, R or a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ls_lightning.sweep.jobs import Job

_FIRST = ("folder", "status", "note", "name", "loss", "schedule", "schedule_form", "eps", "seed", "model", "data")
_LAST = ("digest", "steps", "devices", "started", "duration_s")


def tidy_csv(jobs: Sequence[Job]) -> str:
    """All jobs, counted or not; empty where a job lacks a value. Values are shares of 1, as in ``result.json``.

    Settings that differ between the jobs are columns, too.
    """
    metrics = sorted({column for job in jobs for column in job.values}, key=_order)
    settings = [key for key in dict.fromkeys(key for job in jobs for key in job.settings) if _differs(key, jobs)]
    settings = [key for key in settings if key not in (*_FIRST, *_LAST)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_FIRST, *settings, *metrics, *_LAST])
    for job in jobs:
        known: dict[str, Any] = {**job.result, "folder": job.folder, "status": job.status, "note": job.note}
        if "loss" in job.result:
            known["schedule_form"] = job.schedule
        first, last = ([known.get(key, "") for key in keys] for keys in (_FIRST, _LAST))
        own = [job.settings.get(key, "") for key in settings]
        writer.writerow([*first, *own, *(job.values.get(column, "") for column in metrics), *last])
    return out.getvalue()


def _order(column: str) -> tuple[int, str]:
    stages = ("val", "val_scaled", "test", "test_scaled")
    stage = column.partition("/")[0]
    return stages.index(stage) if stage in stages else len(stages), column


def _differs(key: str, jobs: Sequence[Job]) -> bool:
    return len({job.settings[key] for job in jobs if key in job.settings}) > 1
