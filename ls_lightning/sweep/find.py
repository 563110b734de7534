"""Find the folders of jobs below the folders that a user names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ls_lightning.sweep.results import RESULT

CONFIG = "config.yaml"
OVERRIDES = "overrides.yaml"
SWEEP = "multirun.yaml"
DOWNLOADED = "wandb-summary.json"
"""Among the files of a wandb run that were downloaded."""
ROOTS = ("multirun", "outputs")
"""Where the command line puts its jobs unless told otherwise."""


def find_jobs(folders: Sequence[Path]) -> list[Path]:
    """The folders of jobs in or below ``folders``, each once, in the order of their numbers.

    Runs of wandb keep the files of their jobs. Those in folders called ``wandb``, where a job that is there keeps its
    own, are looked at where no job is found.

    Raises:
        FileNotFoundError: one of ``folders`` is not there.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} must be a folder of jobs, and there is none (from {Path.cwd()}).")
        for job in sorted([*_jobs_below(folder)] or _jobs_below(folder, skip=("checkpoints",)), key=natural):
            found.setdefault(job.resolve(), job)
    return list(found.values())


def newest_sweep(root: Path) -> Path | None:
    """The last sweep begun below ``root``; without one the last day's, or the last job's, folder of jobs.

    Args:
        root: the working directory; sweeps are searched in it, in ``multirun`` and in ``outputs``.
    """
    sweeps = [path.parent for path in root.glob(f"*/{SWEEP}")]
    for name in ROOTS:
        sweeps += [Path(path) for path, folders, files in _walk(root / name) if SWEEP in files]
    if sweeps:
        return max(sweeps, key=lambda folder: (folder / SWEEP).stat().st_mtime)
    jobs = [job for name in ROOTS for job in _jobs_below(root / name)]
    return max(jobs, key=lambda job: job.stat().st_mtime).parent if jobs else None


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key with which ``9`` comes before ``10``.

    Example:
        >>> [path.name for path in sorted([Path("10"), Path("9"), Path("b1")], key=natural)]
        ['9', '10', 'b1']
    """
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def is_job(folder: Path, files: Sequence[str]) -> bool:
    """Whether this is the folder of one job, finished or not; a folder of configuration groups is none."""
    if RESULT in files or OVERRIDES in files:
        return True
    if CONFIG not in files:
        return False
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    keys = set(re.findall(r"^(\w+):", text, re.MULTILINE))
    return not keys & {"defaults", "_wandb"} and {"eps", "seed", "ckpt_path"} <= keys


def job_of_run(folder: Path, files: Sequence[str]) -> Path | None:
    """Where a run of wandb has the files of its job; the run itself if it has none; None if this is no run.

    Args:
        folder: as wandb leaves it beside its program, or with the files of a run that were downloaded.
        files: that are in it.
    """
    for part, known in (("files/job", any(name.endswith(".wandb") for name in files)), ("job", DOWNLOADED in files)):
        if known:
            return folder / part if (folder / part / RESULT).exists() else folder
    return None


def _jobs_below(folder: Path, skip: Sequence[str] = ("checkpoints", "wandb")) -> Iterator[Path]:
    for path, folders, files in _walk(folder, skip):
        found = Path(path) if is_job(Path(path), files) else job_of_run(Path(path), files)
        if found is not None:
            folders.clear()
            yield found


def _walk(folder: Path, skip: Sequence[str] = ("checkpoints", "wandb")) -> Iterator[tuple[str, list[str], list[str]]]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skip]
        yield path, folders, files
