"""Two or more jobs side by side, mini-batch by mini-batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ls_lightning.errors import ConfigError
from ls_lightning.report.options import NO_MATPLOTLIB, Options
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.history import HISTORY, Curve, read_history
from ls_lightning.sweep.jobs import Job, read_job
from ls_lightning.sweep.settings import NO_SMOOTHING

MOST_COMPARED = 12
COMPARED = ("train/loss", "train/acc", "val/loss", "val/nll", "val/acc", "val/ece")


def compare(options: Options, console: Console) -> int:
    """Print the last values of each job and draw their curves into ``compare.png``, ...; return the exit code.

    Raises:
        ConfigError: there are no two jobs, one has no ``metrics.csv``, or there is nothing that two have logged.
    """
    folders = _jobs_in(options.compare)
    jobs = [read_job(folder) for folder in folders]
    curves = [read_history(folder) for folder in folders]
    for job, found in zip(jobs, curves, strict=True):
        if not found:
            raise ConfigError(f"{job.folder} has no {HISTORY} with numbers in it: compare needs a job with logger=csv.")
    keys = shared_keys(curves)
    if not keys:
        raise ConfigError(f"nothing was logged by two of the jobs; looked for {', '.join(COMPARED)}.")
    names, note = job_names(jobs), why_not_comparable(jobs)
    console.print(_table(names, curves, keys))
    if note:
        console.print(Text(note, style="yellow"))
    if options.figures and find_spec("matplotlib") is None:
        console.print(NO_MATPLOTLIB)
    elif options.figures:
        from ls_lightning.plots import save_figure
        from ls_lightning.report.compare_figure import overlay

        out, figure = options.out or Path("report"), overlay(names, curves, keys, options.smooth, bool(note))
        for form in options.figures:
            save_figure(figure, out / f"compare.{form}")
        console.print(f"{out}: {', '.join(f'compare.{form}' for form in options.figures)}", style="dim")
    return 0


def _jobs_in(folders: Sequence[Path]) -> list[Path]:
    """Jobs as they are named; of the folder of a sweep all of its jobs."""
    found = list(dict.fromkeys(job for folder in folders for job in find_jobs([folder]) or [folder]))
    if len(found) < 2:
        raise ConfigError(f"compare must name two or more jobs, e.g. compare=sweep/0,sweep/3; found {found[0]}.")
    if len(found) > MOST_COMPARED:
        raise ConfigError(
            f"compare can tell {MOST_COMPARED} jobs apart, got {len(found)}. Name some: "
            f"compare={','.join(map(str, found[:2]))}."
        )
    return found


def job_names(jobs: Sequence[Job]) -> list[str]:
    """What tells the jobs apart: eps and schedule; loss, seed and folder where these are the same."""
    several = len({job.loss for job in jobs}) > 1
    names = []
    for job in jobs:
        loss = f"{job.loss}, " if several else ""
        schedule = "" if job.schedule in (NO_SMOOTHING, "constant") else f", {job.schedule}"
        names.append(f"{loss}eps {job.eps:g}{schedule}")
    for more in ([f", seed {job.seed}" for job in jobs], [f" ({job.folder})" for job in jobs]):
        if len(set(names)) < len(names):
            names = [name + words for name, words in zip(names, more, strict=True)]
    return names


def why_not_comparable(jobs: Sequence[Job]) -> str:
    """Why training losses must not be compared; empty where they may.

    A smoothed cross-entropy cannot fall below the entropy of its target, which grows with eps; the KL form subtracts
    that entropy, so its minimum is 0 for every eps.
    """
    for a, b in combinations(jobs, 2):
        same = (a.loss, a.eps, a.schedule) == (b.loss, b.eps, b.schedule)
        if not same and not (_ends_at_zero(a) and _ends_at_zero(b)):
            first, second = (f"{job.loss} at eps {job.eps:g} ({job.schedule})" for job in (a, b))
            return (
                f"Training losses are not comparable: {first} and {second} have different minima. Compare accuracy "
                "and NLL on validation, or train with loss=kl, whose minimum is 0 for every eps."
            )
    return ""


def _ends_at_zero(job: Job) -> bool:
    return job.loss == "kl" or (job.eps == 0 and job.loss in ("none", "ce", "soft_ce"))


def shared_keys(curves: Sequence[dict[str, Curve]]) -> list[str]:
    """What at least two jobs have logged; the NLL is left away where it is the validation loss."""
    keys = [key for key in COMPARED if sum(key in found for found in curves) > 1]
    if {"val/loss", "val/nll"} <= set(keys):
        both = [(found["val/loss"].values[-1], found["val/nll"].values[-1]) for found in curves if "val/nll" in found]
        if all(math.isclose(loss, nll, rel_tol=1e-4) for loss, nll in both):
            keys.remove("val/nll")
    return keys


def _table(names: Sequence[str], curves: Sequence[dict[str, Curve]], keys: Sequence[str]) -> Table:
    table = Table(title="Last value of each", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("job", overflow="fold")
    table.add_column("last step", justify="right")
    for key in keys:
        table.add_column(key, justify="right")
    for name, found in zip(names, curves, strict=True):
        cells = [f"{found[key].values[-1]:.4f}" if key in found else "-" for key in keys]
        table.add_row(Text(name), f"{max(curve.steps[-1] for curve in found.values()):,}", *cells)
    return table
