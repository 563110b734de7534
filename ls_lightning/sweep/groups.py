"""Jobs that differ in their seed alone are one group: the unit of every table, figure and choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ls_lightning.sweep.estimate import Estimate, difference, mean_interval
from ls_lightning.sweep.jobs import COMPLETE, Job
from ls_lightning.sweep.settings import NO_SMOOTHING

PLAIN_AT_ZERO = {
    "none",
    "ce",
    "kl",
    "soft_ce",
    "bce",
    "prior",
    "confidence_penalty",
    "max_suppression",
    "margin",
    "relaxation",
    "negative",
}
"""Losses that are plain cross-entropy at eps 0."""


@dataclass(frozen=True, eq=False)
class Group:
    """What was trained with one loss, schedule, eps and setting, over seeds.

    Args:
        setting: what else differs between the jobs of the report, e.g. ``"data.label_noise=0.4"``; mostly empty.
        loss: its name, with those of its options that differ between jobs.
        schedule: its form, e.g. ``"linear decay"``; ``"-"`` where nothing is smoothed.
        eps: its peak.
        jobs: one a seed.
    """

    setting: str
    loss: str
    schedule: str
    eps: float
    jobs: tuple[Job, ...]

    def by_seed(self, column: str) -> dict[int, float]:
        """The values of a column such as ``test/ece`` where they were measured."""
        return {job.seed: job.values[column] for job in self.jobs if column in job.values}

    def estimate(self, column: str, level: float = 0.95) -> Estimate | None:
        """Mean over seeds and t interval; None if no job has the column."""
        values = self.by_seed(column)
        return mean_interval(list(values.values()), level) if values else None

    def difference(self, other: Group, column: str, level: float = 0.95) -> Estimate | None:
        """This group minus another, paired where seeds match; None if one of them lacks the column."""
        mine, theirs = self.by_seed(column), other.by_seed(column)
        return difference(mine, theirs, level) if mine and theirs else None

    @property
    def smooths(self) -> bool:
        """False for plain cross-entropy."""
        return not (self.eps == 0 and self.schedule == NO_SMOOTHING and self.plain_at_zero)

    @property
    def plain_at_zero(self) -> bool:
        """Whether the loss is plain cross-entropy at eps 0, so that curves over eps begin there."""
        return self.loss.split("(")[0] in PLAIN_AT_ZERO

    @property
    def label(self) -> str:
        """For a sentence, e.g. ``"eps 0.05 with linear decay"``."""
        named = "" if self.schedule in (NO_SMOOTHING, "constant") else f" with {self.schedule}"
        return f"eps {self.eps:g}{named}"


def group_jobs(jobs: Iterable[Job]) -> tuple[list[Group], list[Job]]:
    """Groups in the order of a table, and the jobs that are not counted, each with its status and note.

    Of several jobs that differ in nothing the one begun last is taken.
    """
    jobs = list(jobs)
    done = [job for job in jobs if job.status == COMPLETE]
    left_out = [job for job in jobs if job.status != COMPLETE]
    settings, losses = _settings(done), _losses(done)
    found: dict[tuple[str, str, str, float], dict[int, Job]] = defaultdict(dict)
    for job, setting, loss in zip(done, settings, losses, strict=True):
        seeds = found[setting, loss, job.schedule, job.eps]
        if job.seed not in seeds:
            seeds[job.seed] = job
            continue
        older, newer = sorted((seeds[job.seed], job), key=_begun)
        seeds[job.seed] = newer
        left_out.append(replace(older, status="duplicate", note=_why(older, newer)))
    groups = [
        Group(*key, jobs=tuple(job for _, job in sorted(seeds.items())))
        for key, seeds in sorted(found.items(), key=lambda item: (item[0][0], item[0][1], item[0][2], item[0][3]))
    ]
    return groups, left_out


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """Plain training in the same setting, of the same loss at eps 0 if there is one; None if nobody ran it."""
    plain = [other for other in groups if other.setting == group.setting and not other.smooths]
    return max(plain, key=lambda other: (other.loss == group.loss, len(other.jobs)), default=None)


def _begun(job: Job) -> tuple[str, float]:
    try:
        written = job.folder.stat().st_mtime
    except OSError:
        written = 0.0
    return str(job.result.get("started", "")), written


def _why(older: Job, newer: Job) -> str:
    digest = older.result.get("digest")
    same = f"digest {digest}" if digest is not None and digest == newer.result.get("digest") else "training"
    return f"the same {same} as {newer.folder}, which began later and is counted"


def _settings(jobs: Sequence[Job]) -> list[str]:
    """What differs beside loss, schedule, eps and seed: model and data, and among jobs of the same ones the rest."""
    kinds = [key for key in _varying(jobs) if key in ("model", "data")]
    alike: dict[tuple[object, ...], list[Job]] = defaultdict(list)
    for job in jobs:
        alike[tuple(job.settings.get(key) for key in kinds)].append(job)
    varying = {kind: [key for key in _varying(few) if not key.startswith("loss.")] for kind, few in alike.items()}
    return [
        " ".join(f"{key}={job.settings[key]}" for key in [*kinds, *varying[kind]] if key in job.settings)
        for job in jobs
        for kind in [tuple(job.settings.get(key) for key in kinds)]
    ]


def _losses(jobs: Sequence[Job]) -> list[str]:
    same: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        same[job.loss].append(job)
    varying = {loss: [key for key in _varying(few) if key.startswith("loss.")] for loss, few in same.items()}
    return [
        job.loss + (f"({', '.join(f'{key[5:]}={job.settings.get(key)}' for key in keys)})" if keys else "")
        for job in jobs
        for keys in [varying[job.loss]]
    ]


def _varying(jobs: Sequence[Job]) -> list[str]:
    """Keys of the settings with several values among the jobs that have them.

    Not a seed that is the job's own in all of them: ``data.split_seed=${seed}`` makes the split part of what a seed
    decides.
    """
    values: dict[str, set[object]] = defaultdict(set)
    others = set[str]()
    for job in jobs:
        for key, value in job.settings.items():
            values[key].add(value)
            if not (key.endswith("seed") and value == job.seed):
                others.add(key)
    return [key for key, found in values.items() if len(found) > 1 and key in others]
