"""report.md: the whole report as a file."""

from __future__ import annotations

from collections.abc import Sequence

from ls_lightning.report.content import Report
from ls_lightning.sweep.table import Row, difference_rows, header, mean_rows, stage_of


def markdown(report: Report, figures: Sequence[tuple[str, str]] = ()) -> str:
    """The text of ``report.md``.

    Args:
        report: what it says.
        figures: title and path of each picture.
    """
    lines = ["# Which eps, and why", ""]
    for setting, title, paragraphs in report.answers:
        lines += [f"## {setting}", ""] if setting else []
        lines += [f"**{title}**", ""]
        for paragraph in paragraphs:
            text, *command = paragraph.split("\n")
            lines += [text, ""]
            lines += ["```text", *command, "```", ""] if command else []
    if report.groups:
        lines += _tables(report)
    for title, path in figures:
        lines += [f"## {title}", "", f"![{title}]({path})", ""]
    lines += ["## Jobs", "", report.counts, ""]
    if report.left_out:
        lines += ["| status | folder | why it is not counted |", "|---|---|---|"]
        lines += [f"| {job.status} | `{job.folder}` | {_cell(job.note)} |" for job in report.left_out]
        lines += [""]
    return "\n".join(lines)


def _tables(report: Report) -> list[str]:
    groups, level = report.groups, report.level
    stage = stage_of(groups)
    lines = [
        f"## On {stage} data",
        "",
        f"Mean and {100 * level:g} % t interval over n seeds. Rows *scaled* are the same networks with the temperature "
        "T fitted on validation. The gap is mean confidence minus accuracy: above 0 is overconfident. "
        f"{report.spread}",
        "",
        *_table(mean_rows(groups, report.measures, level), report),
    ]
    differences = difference_rows(groups, report.measures, level)
    if differences:
        lines += ["## Minus plain training (eps 0)", "", "Paired over the n seeds that both have.", ""]
        lines += _table(differences, report)
    return lines


def _table(rows: Sequence[Row], report: Report) -> list[str]:
    measures = report.measures
    keys = list(dict.fromkeys(key for row in rows for key in row.keys))
    right = ["---:" if key in ("eps", "n") else "---" for key in keys] + ["---:"] * len(measures)
    lines = [_line([*keys, *map(header, measures)]), f"|{'|'.join(right)}|"]
    for row in rows:
        cells = [row.keys.get(key, "").strip() for key in keys] + [row.cells[measure.key] for measure in measures]
        lines.append(_line([f"*{cell}*" if row.scaled and cell else cell for cell in cells]))
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
