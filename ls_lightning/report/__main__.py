"""``python -m ls_lightning.report``: read jobs, print the answer, leave it as files. Torch is never imported."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ls_lightning.errors import ConfigError, as_config_error, one_line
from ls_lightning.report.content import Report, make_report
from ls_lightning.report.markdown import markdown
from ls_lightning.report.options import HELP, NO_MATPLOTLIB, NO_PLOTLY, Options, parse_options
from ls_lightning.report.terminal import print_left_out, print_report
from ls_lightning.sweep.find import find_jobs, newest_sweep
from ls_lightning.sweep.groups import group_jobs
from ls_lightning.sweep.jobs import COMPLETE, Job, read_job
from ls_lightning.sweep.results import write_text
from ls_lightning.sweep.tidy import tidy_csv


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 2 and one line for a mistake in it, 1 if no job is finished."""
    words = sys.argv[1:] if words is None else words
    if "--help" in words or "-h" in words:
        print(HELP, end="")
        return 0
    try:
        options = parse_options(words)
        if options.watch is not None:
            return _watch(options, options.watch)
        return _once(options, Console(highlight=False, markup=False))
    except (ConfigError, FileNotFoundError, PermissionError) as error:
        if os.environ.get("LS_DEBUG") == "1":
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _once(options: Options, console: Console) -> int:
    if options.compare:
        from ls_lightning.report.compare import compare

        return compare(options, console)
    folders = options.folders or (_newest(),)
    jobs = _read(find_jobs(folders))
    if not jobs:
        raise ConfigError(
            f"no job was found in {', '.join(map(str, folders))}. A job is a folder with result.json; make some with "
            "python -m ls_lightning.train -m eps=0,0.1 seed=0,1,2."
        )
    if not any(job.status == COMPLETE for job in jobs):
        print_left_out(group_jobs(jobs)[1], console)
        console.print(f"\nNone of {len(jobs)} jobs is complete, so there is nothing to compare yet.")
        return 1
    report = make_report(jobs, options.select, options.level, options.columns)
    print_report(report, console)
    _write(report, options, options.out or _usual_out(folders), console)
    return 0


def _newest() -> Path:
    found = newest_sweep(Path.cwd())
    if found is None:
        raise ConfigError(
            f"no sweep was found in {Path.cwd()}, its multirun or outputs. Name its folder, or make one with "
            "python -m ls_lightning.train -m eps=0,0.1 seed=0,1,2."
        )
    return found


def _read(folders: Sequence[Path]) -> list[Job]:
    console = Console(stderr=True)
    shown = track(folders, "reading jobs", console=console, transient=True, disable=not console.is_terminal)
    return [read_job(folder) for folder in shown]


def _usual_out(folders: Sequence[Path]) -> Path:
    return folders[0] / "report" if len(folders) == 1 else Path("report")


def _write(report: Report, options: Options, out: Path, console: Console) -> None:
    with as_config_error("out"):
        out.mkdir(parents=True, exist_ok=True)
    write_text(out / "sweep.csv", tidy_csv(report.jobs))
    figures: list[tuple[str, str]] = []
    if options.figures and find_spec("matplotlib") is None:
        console.print(NO_MATPLOTLIB)
    elif options.figures:
        from ls_lightning.report.figures import draw_figures

        figures = draw_figures(report, out, options.figures)
    write_text(out / "report.md", markdown(report, figures))
    files = [out / "report.md", out / "sweep.csv"]
    names = [*(file.name for file in files), *([f"{len(figures)} figures"] if figures else [])]
    if options.html and find_spec("plotly") is None:
        console.print(NO_PLOTLY)
    elif options.html:
        from ls_lightning.report.html import html_report

        files.append(write_text(out / "report.html", html_report(report, options.watch)))
        names.insert(0, "report.html")
    console.print(f"\n{out}: {', '.join(names)}", style="dim")
    if options.upload:
        from ls_lightning.report.upload import upload

        files += [(out / path).with_suffix(f".{form}") for _, path in figures for form in options.figures]
        console.print(upload(report, out, figures, files, options.select.text), style="dim", soft_wrap=True)


def _watch(options: Options, seconds: float) -> int:
    """Again and again, until Ctrl-C; a sweep that has no job yet is waited for."""
    console = Console(highlight=False, markup=False)
    code = 0
    with _noted_interrupt() as interrupted:
        while not interrupted:
            with console.capture() as capture:
                try:
                    code = _once(options, console)
                except ConfigError as error:
                    code = 2
                    console.print(f"not yet: {error}")
            console.clear()
            sys.stdout.write(capture.get())
            console.print(f"{time.strftime('%H:%M:%S')}, refreshed every {seconds:g} s; Ctrl-C ends it.", style="dim")
            time.sleep(seconds)
    return code


@contextmanager
def _noted_interrupt() -> Iterator[list[int]]:
    """Ctrl-C ends the block at once; where Python drops the exception (in a ``__del__``), the list still has it."""
    interrupted: list[int] = []

    def interrupt(signum: int, _frame: object) -> None:
        interrupted.append(signum)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends quietly, as with other programs
    sys.exit(main())
