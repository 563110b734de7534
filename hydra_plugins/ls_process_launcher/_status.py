"""What the person who started a sweep sees: one line per job on a terminal, one line per event elsewhere."""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._progress import progress

_STYLES = {
    State.QUEUED: "dim",
    State.RUNNING: "bold cyan",
    State.DONE: "green",
    State.SKIPPED: "dim green",
    State.FAILED: "bold red",
    State.STOPPED: "yellow",
}


class Status:
    """The state of all jobs, for a person.

    Args:
        jobs: of the sweep, or of its present batch.
        n_jobs: how many run side by side.
    """

    def __init__(self, jobs: Sequence[Job], n_jobs: int) -> None:
        self._jobs = jobs
        self._n_jobs = n_jobs
        self._live: Any = None
        self._seen: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> "Status":
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(highlight=False), get_renderable=self._screen, refresh_per_second=4, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _over(self) -> int:
        return sum(job.state not in (State.QUEUED, State.RUNNING, State.STOPPED) for job in self._jobs)

    def event(self, job: Job, what: str) -> None:
        """Something happened to a job."""
        if self._live is None:
            print(
                f"[{self._over()}/{len(self._jobs)}] {job.num}: {job.description or '(no overrides)'}: {what}",
                flush=True,
            )

    def _screen(self) -> Any:
        from rich.columns import Columns
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for _ in range(4):
            table.add_column(no_wrap=True)
        for job in self._rows():
            table.add_row(
                Text(str(job.num), style="dim"), Text(job.state.value, style=_STYLES[job.state]), job.description,
                Text(self._detail(job), style="dim"),
            )  # fmt: skip
        bar = ProgressBar(total=len(self._jobs), completed=self._over(), width=24)
        return Group(table, Columns([bar, Text(self.summary(), style="bold")]))

    def _rows(self) -> Sequence[Job]:
        """All jobs if the terminal is high enough, else those that one wants to see."""
        height = max(3, os.get_terminal_size(sys.stdout.fileno()).lines - 2)
        if len(self._jobs) <= height:
            return self._jobs
        order = (State.RUNNING, State.FAILED, State.STOPPED, State.QUEUED, State.DONE, State.SKIPPED)
        first = sorted(self._jobs, key=lambda job: (order.index(job.state), job.num))[:height]
        return sorted(first, key=lambda job: job.num)

    def _detail(self, job: Job) -> str:
        if job.state == State.RUNNING:
            text, read = self._seen.get(job.num, ("", 0.0))
            if time.monotonic() - read > 1:
                text = " ".join(f"{name} {value}" for name, value in progress(job.folder).items())
                self._seen[job.num] = (text, time.monotonic())
            return f"{text}  {duration(job.elapsed)}".strip()
        if job.state == State.FAILED:
            return f"{job.error}  {_near(job.folder)}/job.log"
        return duration(job.seconds) if job.state == State.DONE else ""

    def summary(self) -> str:
        """The totals and the time left, in one line."""
        counts = Counter(job.state for job in self._jobs)
        words = [f"{self._over()}/{len(self._jobs)} jobs"]
        words += [f"{counts[state]} {state.value}" for state in State if counts[state] and state != State.QUEUED]
        left = time_left(self._jobs, self._n_jobs)
        return ", ".join(words) + (f", about {duration(left)} left" if left else "")


def time_left(jobs: Sequence[Job], n_jobs: int) -> float | None:
    """Seconds until the last job ends, if the others take as long as those that are done; None if none is."""
    done = [job.seconds for job in jobs if job.state == State.DONE]
    if not done:
        return None
    each = sum(done) / len(done)
    running = [max(0.0, each - job.elapsed) for job in jobs if job.state == State.RUNNING]
    return (sum(running) + each * sum(job.state == State.QUEUED for job in jobs)) / n_jobs


def duration(seconds: float) -> str:
    """In words for a person.

    Example:
        >>> duration(42.4), duration(400), duration(9000)
        ('42 s', '6 min 40 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def failures(jobs: Sequence[Job], lines: dict[int, list[str]]) -> str:
    """The table of what went wrong; empty if nothing did.

    Args:
        jobs: all of them.
        lines: the last lines of the log of each failed job, by its number.
    """
    failed = [job for job in jobs if job.state == State.FAILED]
    if not failed:
        return ""
    width = max(len(job.description) for job in failed)
    text = [f"\n{len(failed)} of {len(jobs)} jobs failed:"]
    said: dict[tuple[str, ...], int] = {}
    for job in failed:
        text.append(f"  {job.num:>3}  {job.description:<{width}}  {job.error}  {_near(job.folder)}/job.log")
        last = tuple(lines.get(job.num, []))
        first = said.setdefault(last, job.num)
        text += [f"         {line[:200]}" for line in (last if first == job.num else (f"as {first}",))]
    return "\n".join(text)


def _near(folder: Path) -> str:
    """As one would type it from here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
