"""Folders of jobs: whose they are, whether they are finished, how a job goes on in them.

A folder is known by the configuration stored in it, never by its number: a shuffled sweep numbers its jobs anew.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hydra_plugins.ls_process_launcher._errors import LauncherError
from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._returned import RESULT, RETURNED, read_returned

LOG = "job.log"
OVERRIDES = "overrides.yaml"
_PARTIAL = f"{OVERRIDES}.part"
CHECKPOINTS = "checkpoints"
LAST = Path(CHECKPOINTS) / "last.ckpt"


@contextmanager
def only_sweep(folder: Path) -> Iterator[None]:
    """``LauncherError`` while another sweep runs in the same folder."""
    try:
        file = (folder / "multirun.yaml").open("rb+")  # Hydra's, of every sweep
    except FileNotFoundError:
        yield
        return
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # by process: a sweeper of this one may hold it
        except OSError:
            raise LauncherError(
                f"another sweep is running in {folder}. Wait for it, or choose another hydra.sweep.dir."
            ) from None
        yield


def settle_folders(jobs: list[Job]) -> None:
    """Give each job the folder that it was started in before, and mark those that are finished.

    Raises:
        LauncherError: two jobs would share a folder, or one holds something else.
    """
    own = [job.folder for job in jobs]
    if len(set(own)) < len(own):
        shared = next(folder for folder in own if own.count(folder) > 1)
        raise LauncherError(
            f"two jobs would share the folder {shared}. Let hydra.sweep.subdir contain ${{hydra:job.num}}."
        )
    free: dict[Path, dict[str, Any] | None] = {folder: _stored(folder) for folder in own}
    waiting: list[Job] = []
    for fits in (_in_own_folder, _in_any_folder):
        waiting = [job for job in (waiting or jobs) if not _take(job, fits(job, free), free)]
        if not waiting:
            break
    for folder, stored in free.items():
        if stored is not None:
            whose = " ".join(stored.get("overrides") or [f"it has no {OVERRIDES}"])
            raise LauncherError(
                f"{folder} belongs to a job that is not in this sweep ({whose}). "
                "Give the same overrides, or choose another hydra.sweep.dir."
            )
    for job in waiting:
        _take(job, job.folder if job.folder in free else next(iter(free)), free)
    for job in jobs:
        returned = read_returned(job.folder)
        if returned is not None and (not returned.has_result or _has_complete_result(job.folder)):
            job.state, job.value = State.SKIPPED, returned.value


def _in_own_folder(job: Job, free: dict[Path, dict[str, Any] | None]) -> Path | None:
    stored = free.get(job.folder)
    return job.folder if stored is not None and stored.get("config") == job.digest else None


def _in_any_folder(job: Job, free: dict[Path, dict[str, Any] | None]) -> Path | None:
    return next((folder for folder, stored in free.items() if stored and stored.get("config") == job.digest), None)


def _take(job: Job, folder: Path | None, free: dict[Path, dict[str, Any] | None]) -> bool:
    if folder is None:
        return False
    del free[folder]
    job.folder = folder
    return True


def _stored(folder: Path) -> dict[str, Any] | None:
    """What the folder belongs to; an empty dict if it is not one of ours; None if nothing is in it."""
    try:
        stored = OmegaConf.to_container(OmegaConf.load(folder / OVERRIDES))
    except FileNotFoundError:
        ours = {LOG, _PARTIAL}  # of a job that was killed before it began
        return {} if folder.is_dir() and any(path.name not in ours for path in folder.iterdir()) else None
    except Exception:
        return {}
    return {str(key): value for key, value in stored.items()} if isinstance(stored, dict) else {}


def _has_complete_result(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / RESULT).read_text())["status"] == "complete")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def claim_folder(job: Job) -> list[str]:
    """Make the folder the job's, unfinished.

    Returns:
        What to add to its overrides, so that it goes on from its last checkpoint if there is one.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    partial = job.folder / _PARTIAL
    OmegaConf.save(OmegaConf.create({"overrides": job.overrides, "config": job.digest}), partial)
    partial.replace(job.folder / OVERRIDES)
    (job.folder / RETURNED).unlink(missing_ok=True)
    if "ckpt_path" not in job.cfg:
        return []  # the program has no such key: how it resumes is its own matter
    if (job.folder / LAST).is_file():
        return ["ckpt_path=last"]
    _put_aside(job.folder / CHECKPOINTS)
    (job.folder / RESULT).unlink(missing_ok=True)
    return []


def free_folder(job: Job) -> None:
    """Leave nothing but the log of a job that never began: another may have the folder."""
    (job.folder / OVERRIDES).unlink(missing_ok=True)


def _put_aside(checkpoints: Path) -> None:
    """Checkpoints that nothing can go on from, such as the best of an epoch: the job begins anew beside them."""
    if not checkpoints.is_dir():
        return
    if not any(checkpoints.iterdir()):
        checkpoints.rmdir()
        return
    number = 0
    while (aside := checkpoints.with_name(f"{CHECKPOINTS}.{number}")).exists():
        number += 1
    os.replace(checkpoints, aside)
