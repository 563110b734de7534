"""``hydra/launcher=stacked``: what Hydra calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn

from hydra_plugins.ls_process_launcher.process_launcher import ProcessLauncher


class StackedLauncher(ProcessLauncher):
    """Train the jobs that differ only in eps, loss, schedule, seed or learning rate as one model.

    Each leaves the folder that it leaves alone, but for pictures. A job that does not fit, with a line that says why,
    and one whose stack failed, is a process of its own.

    Args:
        options: of :class:`~hydra_plugins.ls_process_launcher.process_launcher.ProcessLauncher`. ``n_jobs`` processes
            share the jobs of a stack; ``timeout`` is of such a process, too.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; the processes of the stacks import torch while the jobs are composed."""
        from hydra_plugins.ls_process_launcher._folders import only_sweep, settle_folders
        from hydra_plugins.ls_process_launcher._jobs import State, compose_jobs
        from hydra_plugins.ls_stacked_launcher._stacks import Stacks

        if self._context is None or self._config is None:
            raise RuntimeError("launch needs setup before it.")
        sweep = Path(str(self._config.hydra.sweep.dir)).absolute()
        with only_sweep(sweep), Stacks(sweep, self._config, self._limits, len(job_overrides)) as stacks:
            jobs = compose_jobs(self._context, self._config, job_overrides, initial_job_idx)
            settle_folders(jobs)
            stopped_by = stacks.run(jobs)
        if stopped_by is not None:
            print(f"\nStopped. Go on with:\n  {self._how_to_resume()}", file=sys.stderr)
            sys.exit(128 + stopped_by)
        if any(job.state == State.QUEUED for job in jobs):
            return super().launch(job_overrides, initial_job_idx)
        return [job.as_return() for job in jobs]
