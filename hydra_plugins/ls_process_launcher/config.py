"""The options of ``hydra/launcher=process``."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class ProcessLauncherConf:
    """Every field is a key: ``hydra.launcher.n_jobs=4``."""

    _target_: str = "hydra_plugins.ls_process_launcher.process_launcher.ProcessLauncher"
    n_jobs: int = 1
    """Jobs side by side."""
    devices_per_job: int | None = None
    """Visible GPUs that each job has for itself; null leaves CUDA_VISIBLE_DEVICES as it is."""
    timeout: float | None = None
    """Seconds after which a job is killed and counts as failed."""
    retries: int = 0
    """How often a failed job is started again, from its last checkpoint if there is one."""
    grace: float = 30.0
    """Seconds that jobs have to save a checkpoint after Ctrl-C or SIGTERM."""
    resume: str | None = None
    """The folder of an earlier sweep: its finished jobs are skipped, the others continued."""
    warm: Any = "auto"
    """Whether jobs are forked from a process that has done their imports: auto (if they cannot tell), true, false."""


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="ls_lightning")
