"""Lightning's wandb logger, with the runs of a sweep in one group and the files of a job among those of its run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf

from ls_lightning.sweep.find import CONFIG, OVERRIDES
from ls_lightning.sweep.history import HISTORY
from ls_lightning.sweep.results import write_result

_LONGEST = 128  # that wandb takes


def wandb_logger(group: str | None = None, **options: Any) -> WandbLogger:
    """Lightning's ``WandbLogger``; a run of a sweep is in the group of its sweep.

    Args:
        group: of the run; None for that of :func:`sweep_group`.
        options: those of ``WandbLogger`` and ``wandb.init``.
    """
    return WandbLogger(group=sweep_group() if group is None else group, **options)


def sweep_group(environ: Mapping[str, str] = os.environ) -> str | None:
    """The id of the sweep that ``wandb agent`` runs, or the folder of a Hydra multirun; None in a job by itself.

    Example:
        >>> sweep_group({"WANDB_SWEEP_ID": "abc123"})
        'abc123'
        >>> sweep_group({"WANDB_SWEEP_ID": "abc123", "WANDB_RUN_GROUP": "mine"}) is None  # wandb reads it itself
        True
    """
    if environ.get("WANDB_RUN_GROUP"):
        return None
    if environ.get("WANDB_SWEEP_ID"):
        return environ["WANDB_SWEEP_ID"]
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().job, "num"):
        return None
    folder = Path(HydraConfig.get().runtime.output_dir).absolute().parent
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return str(near)[-_LONGEST:]


def keep_job(logger: WandbLogger, folder: Path, result: dict[str, Any]) -> None:
    """Put the files of a finished job among those of its run, as ``job/result.json``, ``job/metrics.csv``, ....

    Copies, not links: a report can be made of runs, downloaded or never uploaded, when the job's folder is gone.

    Args:
        logger: of the job, still open.
        folder: of the job.
        result: what its ``result.json`` will hold.
    """
    run = logger.experiment
    kept = Path(run.dir) / "job"
    kept.mkdir(parents=True, exist_ok=True)
    for path in (folder / name for name in (CONFIG, OVERRIDES, HISTORY)):
        if path.exists():
            shutil.copyfile(path, kept / path.name)
    write_result(kept, result)
    run.save(str(kept / "*"), base_path=run.dir, policy="now")
