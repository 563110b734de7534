"""The jobs of a sweep as stacks: read their configurations, sort them, say what does not fit."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from hydra_plugins.ls_process_launcher._folders import LAST
from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._machine import visible_gpus
from ls_lightning.config import settle
from ls_lightning.stacked.groups import Candidate, plan

Stacked = tuple[Job, dict[str, Any]]
"""A job and what the process of its stack is told of it."""


def plan_stacks(
    jobs: Sequence[Job], n_jobs: int, gpu: bool = False
) -> tuple[list[list[Stacked]], dict[str, list[Job]]]:
    """Sort the jobs that are queued.

    Args:
        jobs: of the sweep.
        n_jobs: processes that share a stack.
        gpu: whether one is a place for stacks.

    Returns:
        The stacks, of two jobs or more; and for each reason the jobs that are alone by it.
    """
    queued = [job for job in jobs if job.state == State.QUEUED]
    alone: dict[str, list[Job]] = {}
    told: list[Stacked] = []
    for job in queued:
        found = _describe(job, gpu)
        if isinstance(found, str):
            alone.setdefault(found, []).append(job)
        else:
            told.append((job, found))
    stacks, reasons = plan([Candidate(found["config"], job.folder, gpu and _uses_gpu(job)) for job, found in told])
    for k, reason in reasons.items():
        alone.setdefault(reason, []).append(told[k][0])
    return [part for members in stacks for part in _divide([told[k] for k in members], n_jobs)], alone


def _describe(job: Job, gpu: bool) -> dict[str, Any] | str:
    """What the process of a stack is told of a job; or why it cannot be in one."""
    if (job.folder / LAST).is_file():
        return "it goes on from its checkpoint"
    if _uses_gpu(job) and (sys.platform == "darwin" or not gpu):
        other = "" if sys.platform == "darwin" else ", or hydra.launcher.gpu=true"
        return f"it would be trained on a GPU, where this has not been tried (trainer=cpu{other})"
    before = HydraConfig.instance().cfg
    hydra = job.hydra_cfg.copy()
    with read_write(hydra.hydra.runtime):
        hydra.hydra.runtime.output_dir = str(job.folder)
    try:
        HydraConfig.instance().set_config(hydra)
        config = _settled(job)
    except Exception as error:  # the job's own process says it better
        return f"its configuration cannot be read ({type(error).__name__})"
    finally:
        HydraConfig.instance().cfg = before
    choices = {str(key): str(value) for key, value in hydra.hydra.runtime.choices.items()}
    return {"num": job.num, "config": config, "folder": str(job.folder), "choices": choices}


def _uses_gpu(job: Job) -> bool:
    """Whether it would be trained on one."""
    named = OmegaConf.select(job.cfg, "trainer.accelerator", throw_on_missing=False)
    return named in ("gpu", "cuda") or (
        named == "auto" and (sys.platform == "darwin" or bool(visible_gpus(os.environ)))
    )


def _settled(job: Job) -> Any:
    cfg: DictConfig = job.cfg.copy()
    cfg.name = cfg.name or job.folder.name
    return OmegaConf.to_container(settle(cfg, job.overrides), resolve=True)


def _divide(members: list[Stacked], n_jobs: int) -> list[list[Stacked]]:
    """Into as many parts as there are processes, of two members at least."""
    parts = max(1, min(n_jobs, len(members) // 2))
    return [members[k::parts] for k in range(parts)]
