"""The report on a terminal of any width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ls_lightning.report.content import Report
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.measures import Measure
from ls_lightning.sweep.table import Row, difference_rows, header, mean_rows, stage_of

_GAP = 2
_MOST_LEFT_OUT = 12


def print_report(report: Report, console: Console) -> None:
    """Table, differences, the jobs that are not counted, and last what to do."""
    groups, level = report.groups, report.level
    if groups:
        measures, title = (
            report.measures,
            f"On {stage_of(groups)} data, mean and {100 * level:g} % t interval over seeds",
        )
        _print_tables(console, title, mean_rows(groups, measures, level), measures)
        differences = difference_rows(groups, measures, level)
        if differences:
            _print_tables(console, "Minus plain training (eps 0), paired over seeds", differences, measures)
    print_left_out(report.left_out, console)
    console.print(f"\n{report.counts}", style="dim")
    for setting, title, paragraphs in report.answers:
        if setting:
            console.print(f"\n{setting}", style="bold")
        console.print()
        console.print(Text(title, style="bold green"))
        for paragraph in paragraphs:
            console.print()
            text, *command = paragraph.split("\n")
            console.print(Text(text))
            for line in command:
                console.print(Text(f"  {line}", style="cyan"), soft_wrap=True)


def print_left_out(jobs: Sequence[Job], console: Console) -> None:
    """The jobs that are not counted, a line each; of very many the first of every kind, and their number."""
    if not jobs:
        return
    table = Table(title="Not counted", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("status", "folder", "why"):
        table.add_column(name, overflow="fold")
    rest: Counter[str] = Counter()
    for job in sorted(jobs, key=lambda job: job.status):
        if sum(rest.values()) + table.row_count >= _MOST_LEFT_OUT and len(jobs) > _MOST_LEFT_OUT:
            rest[job.status] += 1
            continue
        table.add_row(job.status, str(job.folder), Text(job.note))
    for status, count in rest.items():
        table.add_row(status, f"and {count} more", "all of them are in report.md", style="dim")
    console.print()
    console.print(table)


def _print_tables(console: Console, title: str, rows: Sequence[Row], measures: Sequence[Measure]) -> None:
    """As many metrics side by side as fit; the others in tables below."""
    keys = list(dict.fromkeys(key for row in rows for key in row.keys))
    left = sum(_width([key, *(row.keys.get(key, "") for row in rows)]) for key in keys)
    for number, part in enumerate(_parts(console.width - left, rows, measures)):
        console.print()
        console.print(Text(title + (", continued" if number else ""), style="bold"))
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for key in keys:
            table.add_column(key, justify="right" if key in ("eps", "n") else "left", overflow="fold")
        for measure in part:
            table.add_column(header(measure), justify="right", no_wrap=True)
        for row in rows:
            cells = [row.keys.get(key, "") for key in keys] + [row.cells[measure.key] for measure in part]
            table.add_row(*map(Text, cells), style="dim" if row.scaled else "")
        console.print(table)


def _parts(width: int, rows: Sequence[Row], measures: Sequence[Measure]) -> list[list[Measure]]:
    parts: list[list[Measure]] = []
    free = 0
    for measure in measures:
        needed = _width([header(measure), *(row.cells[measure.key] for row in rows)])
        if not parts or needed > free + _GAP:
            parts.append([])
            free = width
        parts[-1].append(measure)
        free -= needed
    return parts


def _width(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts)) + _GAP
