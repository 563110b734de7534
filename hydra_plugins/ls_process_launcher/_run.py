"""Run the jobs of a batch side by side, each to its end, whatever happens to the others."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig

from hydra_plugins.ls_process_launcher._folders import claim_folder, free_folder
from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._machine import free_port, gpu_slices, job_environment
from hydra_plugins.ls_process_launcher._process import JobProcess, job_command
from hydra_plugins.ls_process_launcher._returned import read_returned
from hydra_plugins.ls_process_launcher._status import Status, duration
from hydra_plugins.ls_process_launcher._warm import Warm

_POLL = 0.05
_BAD_CONFIGURATION = 2


@dataclass(frozen=True)
class Limits:
    """How jobs are run; see ``ProcessLauncherConf``."""

    n_jobs: int
    devices_per_job: int | None
    timeout: float | None
    retries: int
    grace: float


@dataclass
class Running:
    """An attempt at a job."""

    job: Job
    process: JobProcess
    slot: int
    port: int
    timed_out: bool = False


class Batch:
    """The jobs of one call of the launcher.

    Args:
        jobs: those that are queued are run.
        config: of the sweep.
        limits: how.
        warm: which of them are forked from what.
    """

    def __init__(self, jobs: list[Job], config: DictConfig, limits: Limits, warm: Warm) -> None:
        self.jobs = jobs
        self.last_lines: dict[int, list[str]] = {}
        self._config = config
        self._limits = limits
        self._warm = warm
        self._devices = gpu_slices(limits.n_jobs, limits.devices_per_job, os.environ)
        self._queue = deque(job for job in jobs if job.state == State.QUEUED)
        self._running: list[Running] = []
        self._signals: list[int] = []

    def run(self) -> int | None:
        """Until no job is left. Returns the signal that stopped it, or None."""
        deadline: float | None = None
        with caught_signals(self._signals.append), Status(self.jobs, self._limits.n_jobs) as status:
            for job in self.jobs:
                if job.state == State.SKIPPED:
                    status.event(job, "skipped, it is done")
            try:
                while (self._queue and not self._signals) or self._running:
                    while self._queue and not self._signals and len(self._running) < self._limits.n_jobs:
                        self._start(self._queue.popleft(), status)
                    for attempt in list(self._running):
                        self._look_after(attempt, status)
                    if self._signals and deadline is None:
                        deadline = time.monotonic() + self._limits.grace
                        for attempt in self._running:
                            attempt.process.interrupt()
                    if deadline is not None and (time.monotonic() > deadline or len(self._signals) > 1):
                        for attempt in self._running:
                            attempt.process.kill()
                    time.sleep(_POLL)
            finally:
                for attempt in self._running:
                    attempt.process.kill()
        return self._signals[0] if self._signals else None

    def _start(self, job: Job, status: Status) -> None:
        taken = {attempt.slot for attempt in self._running}
        slot = next(k for k in range(self._limits.n_jobs) if k not in taken)
        port = free_port({attempt.port for attempt in self._running})
        extra = claim_folder(job)
        env = job_environment(os.environ, job.cfg, self._limits.n_jobs, self._devices[slot], port)
        job.state, job.started, job.attempts = State.RUNNING, time.monotonic(), job.attempts + 1
        command = job_command(job, self._config, extra)
        process = JobProcess(job, command, env, self._warm.template(job, command, env))
        self._running.append(Running(job, process, slot, port))
        status.event(job, "continued from its last checkpoint" if extra else "started")

    def _look_after(self, attempt: Running, status: Status) -> None:
        job = attempt.job
        timeout = self._limits.timeout
        if timeout is not None and job.elapsed > timeout and not attempt.timed_out:
            attempt.timed_out = True
            attempt.process.kill()
        code = attempt.process.poll()
        if code is None:
            return
        self._running.remove(attempt)
        job.seconds = time.monotonic() - job.started
        returned = read_returned(job.folder)  # whatever ended it after that
        if returned is not None:
            job.state, job.value = State.DONE, returned.value
            status.event(job, f"done in {duration(job.seconds)}")
        elif self._signals:
            job.state, job.error = State.STOPPED, "stopped"
            status.event(job, "stopped")
        else:
            self._failed(attempt, code, status)

    def _failed(self, attempt: Running, code: int, status: Status) -> None:
        job = attempt.job
        job.error = f"timeout after {duration(job.seconds)}" if attempt.timed_out else _reason(code)
        if code == _BAD_CONFIGURATION:
            free_folder(job)
        self.last_lines[job.num] = attempt.process.last_lines(1 if code == _BAD_CONFIGURATION else 5)
        if job.attempts <= self._limits.retries and code != _BAD_CONFIGURATION:
            job.state = State.QUEUED
            self._queue.appendleft(job)
            status.event(job, f"failed: {job.error}; tried again")
        else:
            job.state = State.FAILED
            status.event(job, f"failed: {job.error}")


def _reason(code: int) -> str:
    if code == 0:
        return "exit code 0, but no return value"
    if code == _BAD_CONFIGURATION:
        return "bad configuration"
    if code > 128:
        name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code - 128)
        return f"killed by {name}" + (", out of memory?" if name == "SIGKILL" else "")
    return f"exit code {code}"


@contextmanager
def caught_signals(note: Callable[[int], None]) -> Iterator[None]:
    """SIGINT and SIGTERM are noted instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, lambda signum, _frame: note(signum)) for signum in _STOPPING}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


_STOPPING = (signal.SIGINT, signal.SIGTERM)
