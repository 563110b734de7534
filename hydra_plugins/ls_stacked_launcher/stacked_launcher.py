"""``hydra/launcher=stacked``: what Hydra calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.ls_process_launcher.process_launcher import ProcessLauncher

if TYPE_CHECKING:
    from hydra_plugins.ls_stacked_launcher._once import ComposedOnce
    from hydra_plugins.ls_stacked_launcher._stacks import Stacks


class StackedLauncher(ProcessLauncher):
    """Train the jobs that differ only in eps, loss, schedule, seed or learning rate as one model.

    Each leaves the folder that it leaves alone, but for pictures. A job that does not fit, with a line that says why,
    and one whose stack failed, is a process of its own.

    Args:
        gpu: stack jobs that are trained on a GPU, too.
        options: of :class:`~hydra_plugins.ls_process_launcher.process_launcher.ProcessLauncher`. ``n_jobs`` processes
            share the jobs of a stack; ``timeout`` is of such a process, too.
    """

    def __init__(self, gpu: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._gpu = gpu
        self._stacks: Stacks | None = None
        self._once: ComposedOnce | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called once; the process of the first stack imports torch while the jobs are composed."""
        from hydra_plugins.ls_stacked_launcher._alike import ComposedAlike
        from hydra_plugins.ls_stacked_launcher._once import ComposedOnce
        from hydra_plugins.ls_stacked_launcher._stacks import Stacks

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        stacks = self._stacks = Stacks(config, self._limits, self._gpu)
        loader: Any = hydra_context.config_loader
        self._once = ComposedOnce(ComposedAlike(loader.load_sweep_config), lambda: stacks.prepare(1))
        loader.load_sweep_config = self._once

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs."""
        from hydra_plugins.ls_process_launcher._folders import only_sweep, settle_folders
        from hydra_plugins.ls_process_launcher._jobs import State, compose_jobs

        if self._context is None or self._config is None or self._stacks is None or self._once is None:
            raise RuntimeError("launch needs setup before it.")
        self._once.launching = True
        with only_sweep(Path(str(self._config.hydra.sweep.dir))), self._stacks as stacks:
            stacks.prepare(len(job_overrides) // 2)
            jobs = compose_jobs(self._context, self._config, job_overrides, initial_job_idx)
            settle_folders(jobs)
            stopped_by = stacks.run(jobs)
        self._once.launching = False
        if stopped_by is not None:
            print(f"\nStopped. Go on with:\n  {self._how_to_resume()}", file=sys.stderr)
            sys.exit(128 + stopped_by)
        if any(job.state == State.QUEUED for job in jobs):
            return super().launch(job_overrides, initial_job_idx)
        return [job.as_return() for job in jobs]
