"""One job of a sweep: what it is, where it lives, how it went."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.ls_process_launcher._errors import JobFailed


class State(Enum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Job:
    """One job.

    Args:
        num: its number in the sweep.
        overrides: what makes it this job, e.g. ``["eps=0.1", "seed=0"]``.
        cfg: its configuration as composed, not resolved.
        hydra_cfg: Hydra's part of it.
        folder: absolute; where it works.
        description: its overrides that other jobs do not have, in one line.
    """

    num: int
    overrides: list[str]
    cfg: DictConfig
    hydra_cfg: DictConfig
    folder: Path
    description: str = ""
    state: State = State.QUEUED
    attempts: int = 0
    started: float = 0.0
    seconds: float = 0.0
    value: Any = None
    error: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = OmegaConf.to_yaml(self.cfg, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def elapsed(self) -> float:
        """Seconds of the present or last attempt."""
        return time.monotonic() - self.started if self.state == State.RUNNING else self.seconds

    def as_return(self) -> JobReturn:
        """As a sweeper wants it."""
        finished = self.state in (State.DONE, State.SKIPPED)
        error = JobFailed(f"job {self.num} ({self.description}) failed: {self.error}. See {self.folder / 'job.log'}")
        job_return = JobReturn(
            overrides=self.overrides,
            cfg=self.cfg,
            hydra_cfg=self.hydra_cfg,
            working_dir=str(Path.cwd()),
            task_name=self.hydra_cfg.hydra.job.name,
            status=JobStatus.COMPLETED if finished else JobStatus.FAILED,
        )
        job_return.return_value = self.value if finished else error
        return job_return


def compose_jobs(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Job]:
    """The jobs of one batch, each with its own configuration and the folder that ``hydra.sweep`` gives it."""
    # Not resolved: it may differ from job to job. Not composed anew: hydra.launcher.resume has changed it.
    sweep_dir = OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]  # type: ignore[index,call-overload]
    before = HydraConfig.instance().cfg
    jobs: list[Job] = []
    common = set.intersection(*(set(overrides) for overrides in job_overrides)) if len(job_overrides) > 1 else set()
    try:
        for num, overrides in enumerate(job_overrides, first):
            cfg = context.config_loader.load_sweep_config(config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.sweep.dir = sweep_dir
                cfg.hydra.job.id = str(num)
                cfg.hydra.job.num = num
            HydraConfig.instance().set_config(cfg)  # the resolver of ${hydra:job.num} reads it
            folder = (Path(str(cfg.hydra.sweep.dir)) / str(cfg.hydra.sweep.subdir)).absolute()
            with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
                cfg.hydra.runtime.output_dir = str(folder)
            typed = list(overrides)
            own = [override for override in filter_overrides(typed) if override not in common]
            task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            jobs.append(Job(num, typed, task, OmegaConf.masked_copy(cfg, ["hydra"]), folder, " ".join(own)))
    finally:
        HydraConfig.instance().cfg = before
    return jobs
