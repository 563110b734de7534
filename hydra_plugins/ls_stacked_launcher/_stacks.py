"""Run stacks in processes of their own, and leave what they could not finish to the process launcher."""

import json
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from omegaconf import DictConfig

from hydra_plugins.ls_process_launcher._folders import claim_folder
from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._machine import free_port, gpu_slices, job_environment
from hydra_plugins.ls_process_launcher._process import JobProcess
from hydra_plugins.ls_process_launcher._returned import read_returned
from hydra_plugins.ls_process_launcher._run import Limits, caught_signals
from hydra_plugins.ls_process_launcher._status import Status, duration
from hydra_plugins.ls_stacked_launcher._plan import Stacked, plan_stacks
from hydra_plugins.ls_stacked_launcher._worker import JOBS

_POLL = 0.05
_FOLDER = ".stacked"


@dataclass
class Worker:
    """A process that trains one stack, as soon as it is told of it."""

    folder: Path
    process: JobProcess
    slot: int
    port: int
    jobs: list[Job]
    started: float = 0.0
    timed_out: bool = False


class Stacks:
    """The stacks of a sweep, and their processes, which live until the context is left.

    Args:
        config: of the sweep.
        limits: how jobs are run.
        gpu: whether a GPU is a place for stacks.
    """

    def __init__(self, config: DictConfig, limits: Limits, gpu: bool) -> None:
        self._config, self._limits, self._gpu = config, limits, gpu
        self._devices = gpu_slices(limits.n_jobs, limits.devices_per_job, os.environ)
        self._idle: list[Worker] = []
        self._running: list[Worker] = []
        self._signals: list[int] = []

    def __enter__(self) -> "Stacks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill(self._idle + self._running)
        self._idle, self._running = [], []

    def prepare(self, count: int) -> None:
        """Start processes until there are ``count`` stacks, or ``n_jobs``, that need not wait for imports."""
        for slot in range(len(self._idle), min(self._limits.n_jobs, count)):
            self._idle.append(self._start(slot))

    def run(self, jobs: list[Job]) -> int | None:
        """Until no stack is left; jobs that are queued then need a process. Returns the signal that stopped it."""
        stacks, alone = plan_stacks(jobs, self._limits.n_jobs, self._gpu)
        if stacks or alone:
            print(_sentence(stacks, alone), flush=True)
        queue, deadline = deque(stacks), float("inf")
        self._kill(self._idle[len(stacks) :])
        self._idle = self._idle[: len(stacks)]
        with caught_signals(self._signals.append), Status(jobs, self._limits.n_jobs) as status:
            for job in jobs:
                if job.state == State.SKIPPED:
                    status.event(job, "skipped, it is done")
            while (queue and not self._signals) or self._running:
                while queue and not self._signals and len(self._running) < self._limits.n_jobs:
                    self._tell(queue.popleft())
                for worker in list(self._running):
                    self._look_after(worker, status)
                if self._signals and deadline == float("inf"):
                    deadline = time.monotonic() + self._limits.grace
                    for worker in self._running:
                        worker.process.interrupt()
                if time.monotonic() > deadline or len(self._signals) > 1:
                    self._kill(self._running)
                time.sleep(_POLL)
        return self._signals[0] if self._signals else None

    def _start(self, slot: int) -> Worker:
        sweep, number = Path(str(self._config.hydra.sweep.dir)).absolute(), 0
        while (folder := sweep / _FOLDER / str(number)).exists():
            number += 1
        folder.mkdir(parents=True)
        port = free_port({worker.port for worker in self._idle + self._running})
        env = job_environment(os.environ, self._config, self._limits.n_jobs, self._devices[slot], port)
        command = [sys.executable, "-m", "hydra_plugins.ls_stacked_launcher._worker", str(folder)]
        stand_in = Job(-1, [], self._config, self._config, folder)
        return Worker(folder, JobProcess(stand_in, command, env, None), slot, port, [])

    def _tell(self, stack: list[Stacked]) -> None:
        taken = {worker.slot for worker in self._running}
        slot = next(k for k in range(self._limits.n_jobs) if k not in taken)
        worker = self._idle.pop(0) if self._idle else self._start(slot)
        worker.jobs, worker.started = [job for job, _ in stack], time.monotonic()
        for job in worker.jobs:
            claim_folder(job)
            (job.folder / "job.log").write_text(f"One of {len(stack)} jobs in one process: {worker.folder}/job.log\n")
            job.state, job.started, job.attempts = State.RUNNING, time.monotonic(), job.attempts + 1
        partial = worker.folder / f"{JOBS}.part"
        partial.write_text(json.dumps([told for _, told in stack]))
        partial.replace(worker.folder / JOBS)
        self._running.append(worker)

    def _look_after(self, worker: Worker, status: Status) -> None:
        timeout = self._limits.timeout
        if timeout is not None and time.monotonic() - worker.started > timeout and not worker.timed_out:
            worker.timed_out = True
            worker.process.kill()
        code = worker.process.poll()
        for job in worker.jobs:
            returned = read_returned(job.folder) if job.state == State.RUNNING else None
            if returned is not None:
                job.seconds = time.monotonic() - job.started
                job.state, job.value = State.DONE, returned.value
                status.event(job, f"done in {duration(job.seconds)}")
        if code is None:
            return
        self._running.remove(worker)
        left = [job for job in worker.jobs if job.state == State.RUNNING]
        for job in left:
            job.state, job.error = (State.STOPPED, "stopped") if self._signals else (State.QUEUED, "")
            status.event(job, "stopped" if self._signals else "not finished by its stack, so it becomes a process")
        if left and not self._signals:
            why = "timeout" if worker.timed_out else f"exit code {code}"
            print(f"{len(left)} jobs were not finished ({why}): {worker.folder}/job.log", file=sys.stderr)
            print("\n".join(f"    {line[:200]}" for line in worker.process.last_lines(3)), file=sys.stderr)

    def _kill(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.process.kill()


def _sentence(stacks: list[list[Stacked]], alone: dict[str, list[Job]]) -> str:
    """What becomes of the jobs."""
    lines = [f"{len(stack)} jobs are trained as one model (without pictures)." for stack in stacks]
    for reason, jobs in alone.items():
        words = "1 job is a process" if len(jobs) == 1 else f"{len(jobs)} jobs are processes"
        lines.append(f"{words}, since {reason}: {', '.join(str(job.num) for job in jobs)}.")
    return "\n".join(lines)
