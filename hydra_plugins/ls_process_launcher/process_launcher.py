"""``hydra/launcher=process``: what Hydra calls."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class ProcessLauncher(Launcher):
    """Each job is a plain run of the same program in a process group and a folder of its own.

    Args:
        n_jobs: jobs side by side, at least 1.
        devices_per_job: GPUs that each job has for itself; None leaves ``CUDA_VISIBLE_DEVICES`` as it is.
        timeout: seconds after which a job is killed and counts as failed; None for no limit.
        retries: how often a failed job is started again.
        grace: seconds that jobs have to save a checkpoint after Ctrl-C or SIGTERM.
        resume: folder of an earlier sweep to go on with.
        warm: whether jobs are forked from a process that has done their imports: "auto" does so where a job cannot
            tell the difference, True refuses jobs that could, False starts each as a fresh process.
    """

    def __init__(
        self,
        n_jobs: int = 1,
        devices_per_job: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        grace: float = 30.0,
        resume: str | None = None,
        warm: bool | str = "auto",
    ) -> None:
        # Hydra imports this file at the start of every app of the environment: the rest waits until it is used.
        from hydra_plugins.ls_process_launcher._run import Limits
        from hydra_plugins.ls_process_launcher._warm import Warm

        _check(n_jobs=n_jobs, devices_per_job=devices_per_job, timeout=timeout, retries=retries, grace=grace)
        self._limits = Limits(n_jobs, devices_per_job, timeout, retries, grace)
        self._warm = Warm(warm, devices_per_job)
        self._resume = resume
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called once, before the sweeper makes its folder."""
        from hydra_plugins.ls_process_launcher._errors import LauncherError
        from hydra_plugins.ls_process_launcher._machine import refuse_ranks

        if os.name != "posix":
            raise LauncherError("hydra/launcher=process needs Linux or macOS. Use hydra/launcher=basic.")
        refuse_ranks(os.environ)
        typed: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
        if any(word.startswith("hydra.run.dir=") for word in typed):
            raise LauncherError(
                "hydra.run.dir is of a single job. Name the folder of a sweep: hydra.sweep.dir=<folder>."
            )
        batch = OmegaConf.select(config, "hydra.sweeper.max_batch_size")
        if batch is not None:
            raise LauncherError(
                f"hydra.sweeper.max_batch_size ends a sweep after a batch with a failure, got {batch}. Leave it null: "
                "hydra.launcher.n_jobs says how many jobs run side by side."
            )
        if self._resume is not None:
            if not (self._resume and (Path(self._resume) / "multirun.yaml").is_file()):
                raise LauncherError(
                    "hydra.launcher.resume must be the folder of a sweep, which has a multirun.yaml, got "
                    f"{self._resume!r} (from {Path.cwd()})."
                )
            with read_write(config), open_dict(config):
                config.hydra.sweep.dir = self._resume
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; those that fail do not stop the others."""
        from hydra_plugins.ls_process_launcher._folders import only_sweep, settle_folders
        from hydra_plugins.ls_process_launcher._jobs import compose_jobs
        from hydra_plugins.ls_process_launcher._run import Batch
        from hydra_plugins.ls_process_launcher._status import failures

        if self._context is None or self._config is None:
            raise RuntimeError("launch needs setup before it.")
        jobs = compose_jobs(self._context, self._config, job_overrides, initial_job_idx)
        with only_sweep(Path(str(self._config.hydra.sweep.dir))):
            settle_folders(jobs)
            self._warm.check(jobs)
            batch = Batch(jobs, self._config, self._limits, self._warm)
            stopped_by = batch.run()
        table = failures(jobs, batch.last_lines)
        if table:
            print(table, file=sys.stderr)
        if stopped_by is not None:
            print(f"\nStopped. Go on with:\n  {self._how_to_resume()}", file=sys.stderr)
            sys.exit(128 + stopped_by)
        return [job.as_return() for job in jobs]

    def _how_to_resume(self) -> str:
        from hydra_plugins.ls_process_launcher._process import program

        assert self._config is not None
        keys = ("hydra.launcher.resume=", "hydra.sweep.dir=")
        typed = [word for word in sys.argv[1:] if not word.lstrip("+").startswith(keys)]
        folder = self._config.hydra.sweep.dir
        return shlex.join(["python", *program()[1:], *typed, f"hydra.launcher.resume={folder}"])


def _check(**options: float | None) -> None:
    from hydra_plugins.ls_process_launcher._errors import LauncherError

    for name, value in options.items():
        least = 1 if name in ("n_jobs", "devices_per_job") else 0
        if value is not None and not value >= least:
            raise LauncherError(f"hydra.launcher.{name} must be at least {least}, got {value}.")
    if options["timeout"] == 0:
        raise LauncherError("hydra.launcher.timeout must be above 0, got 0. null is no limit.")
