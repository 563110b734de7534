"""Read the folder of a job, whatever state it is in. A folder is never dropped: what is wrong with it is its note."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ls_lightning.sweep.debias import debiased_ece
from ls_lightning.sweep.find import CONFIG, OVERRIDES, is_job, job_of_run
from ls_lightning.sweep.results import RESULT, SCHEMA
from ls_lightning.sweep.settings import read_settings, read_yaml, schedule_label

COMPLETE = "complete"
LOG = "job.log"


@dataclass(frozen=True, eq=False)
class Job:
    """One job as it was found.

    Args:
        folder: where.
        status: ``complete``; or why it is not counted: ``pruned``, ``failed``, ``running``, ``unfinished``,
            ``unreadable``, ``duplicate``.
        note: what there is to say of it.
        result: what is in ``result.json``, if it can be read.
        settings: everything else that decides its numbers, by dotted key, without eps and seed.
    """

    folder: Path
    status: str
    note: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def eps(self) -> float:
        """As trained with; NaN if unknown."""
        value: Any = self.result.get("eps")
        return float(value) if _is_number(value) else math.nan

    @property
    def seed(self) -> int:
        """Of the training; 0 if it is not said."""
        value = self.result.get("seed")
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    @property
    def loss(self) -> str:
        """The loss's config name or class."""
        return str(self.result.get("loss") or "none")

    @property
    def schedule(self) -> str:
        """The form of the schedule, the same for every eps."""
        return schedule_label(self.result.get("schedule"), self.eps)

    @cached_property
    def values(self) -> dict[str, float]:
        """Every number that was measured: ``val/nll``, ``test/ece``, ``test_scaled/ece``, ``temperature``."""
        found = dict(_flat(self.result.get("metrics"), ""))
        scaled = self.result.get("temperature")
        if isinstance(scaled, dict):
            found |= dict(_flat(scaled.get("metrics"), "_scaled"))
            for key, name in (("T", "temperature"), ("nll_after", "val_scaled/nll")):
                if _is_number(scaled.get(key)):
                    found[name] = float(scaled[key])
        for stage, scaled in (("val", False), ("test", False), ("test", True)):
            stem = f"{stage}{'_scaled' * scaled}"
            bins = self.bins(stage, scaled=scaled) if f"{stem}/ece" in found else None
            value = math.nan if bins is None else debiased_ece(**bins)
            if _is_number(value):  # the usual metrics leave it out
                found.setdefault(f"{stem}/ece_debiased", value)
        return found

    @cached_property
    def overrides(self) -> list[str]:
        """What makes it this job, as typed; empty if that is not known."""
        stored = read_yaml(self.folder / OVERRIDES) or self.result
        typed = stored.get("overrides") if isinstance(stored, dict) else None
        return [str(override) for override in typed] if isinstance(typed, list) else []

    def bins(self, stage: str = "test", *, scaled: bool = False) -> dict[str, list[float]] | None:
        """Reliability bins of a stage: counts, confidence and accuracy, NaN where a bin is empty; None if absent."""
        return self._columns("reliability", ("counts", "confidence", "accuracy"), stage, scaled)

    def risk_coverage(self, stage: str = "test", *, scaled: bool = False) -> dict[str, list[float]] | None:
        """The error rates ``risk`` of the surest samples at each ``coverage``, and their bounds ``lower`` and
        ``upper``; None if absent, as in results of earlier versions.
        """
        return self._columns("risk_coverage", ("coverage", "risk", "lower", "upper"), stage, scaled)

    def _columns(self, key: str, names: Sequence[str], stage: str, scaled: bool) -> dict[str, list[float]] | None:
        """Lists of one length, of numbers and NaN."""
        source = self.result.get("temperature") if scaled else self.result
        stages = source.get(key) if isinstance(source, dict) else None
        found = stages.get(stage) if isinstance(stages, dict) else None
        if not isinstance(found, dict) or not all(isinstance(found.get(name), list) for name in names):
            return None
        if not all(value is None or _is_number(value) for name in names for value in found[name]):
            return None
        columns = {name: [math.nan if value is None else float(value) for value in found[name]] for name in names}
        return columns if len({len(column) for column in columns.values()}) == 1 else None


def read_job(folder: Path) -> Job:
    """The job in ``folder``; every trouble with it becomes its status and note."""
    path = folder / RESULT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _without_result(folder)
    except (OSError, UnicodeDecodeError) as error:
        return Job(folder, "unreadable", f"{RESULT} cannot be read: {error}")
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Job(folder, "unreadable", f"{RESULT} is not whole JSON ({error}); train the job again")
    if problem := _foreign(result):
        return Job(folder, "unreadable", f"{RESULT} is not of this program: {problem}")
    note = "" if result["schema"] == SCHEMA else f"schema {result['schema']}, read as far as schema {SCHEMA} goes"
    job = Job(folder, str(result.get("status", COMPLETE)), note, result, read_settings(folder, result))
    if job.status == COMPLETE and not any(key.startswith(("val/", "test/")) for key in job.values):
        return Job(folder, "unreadable", "nothing was measured", result, job.settings)
    return job


def _foreign(result: Any) -> str | None:
    if not isinstance(result, dict):
        return f"a {type(result).__name__} instead of keys and values"
    if not isinstance(result.get("schema"), int) or isinstance(result.get("schema"), bool):
        return "it has no schema version"
    if not _is_number(result.get("eps")):
        return f"eps must be a number, got {result.get('eps')!r}"
    return None if isinstance(result.get("metrics"), dict) else "it has no metrics"


def _flat(metrics: Any, suffix: str) -> Iterator[tuple[str, float]]:
    for stage, values in metrics.items() if isinstance(metrics, dict) else ():
        head, _, loader = str(stage).partition("/")
        for name, value in values.items() if isinstance(values, dict) else ():
            if _is_number(value):
                yield "/".join(filter(None, [head + suffix, loader, name])), float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # neither infinite, nor NaN, nor an integer that is no float


def _without_result(folder: Path) -> Job:
    files = os.listdir(folder) if folder.is_dir() else []
    if not is_job(folder, files) and job_of_run(folder, files) is not None:
        return Job(folder, "unfinished", "a run of wandb without the files of its job: it broke off, or is not of ours")
    settings = read_yaml(folder / CONFIG)
    known = settings if isinstance(settings, dict) else {}
    result = {key: known[key] for key in ("eps", "seed") if _is_number(known.get(key))}
    if _is_locked(folder / CONFIG):
        return Job(folder, "running", "no result yet", result)
    line = _last_line(folder / LOG)
    if "error" in line.lower() or "killed" in line.lower():
        return Job(folder, "failed", line, result)
    last = f"; its log ends with: {line}" if line else ""
    return Job(folder, "unfinished", f"no result: stopped, or just begun{last}", result)


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2].strip() for line in text.replace("\r\n", "\n").split("\n")]
    return next((line for line in reversed(lines) if line), "")


def _is_locked(path: Path) -> bool:
    """Whether a running job holds its file; asked without touching the lock, which would stop a job that begins."""
    try:
        inode, locks = path.stat().st_ino, Path("/proc/locks").read_text()
    except OSError:
        return False
    held = {line.split()[5].rpartition(":")[2] for line in locks.splitlines() if "FLOCK" in line}
    return str(inode) in held and os.access(path, os.R_OK)
