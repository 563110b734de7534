"""A table of methods as Markdown: means over seeds, and paired differences to the first row with their intervals."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from ls_lightning.sweep.student import t_quantile

Run = dict[str, Any]


class Column(NamedTuple):
    """One measure: where it stands in a run, and what it is multiplied by."""

    title: str
    source: str
    key: str
    scale: float
    digits: int


COLUMNS = (
    Column("accuracy %", "plain", "acc", 100, 1),
    Column("ECE %", "plain", "ece", 100, 1),
    Column("ECE % with T", "scaled", "ece", 100, 1),
    Column("gap %", "plain", "gap", 100, 1),
    Column("AURC x 1000", "plain", "aurc", 1000, 2),
    Column("NLL", "plain", "nll", 1, 3),
)


def paired(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences, and half the width of its 95 % t interval; nan of a single pair.

    Example:
        >>> difference, half = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
        >>> round(difference, 2), round(half, 2)
        (2.0, 2.48)
    """
    found = [a - b for a, b in zip(values, others, strict=True)]
    if len(found) < 2:
        return mean(found), math.nan
    return mean(found), t_quantile(0.975, len(found) - 1) * stdev(found) / math.sqrt(len(found))


def table(rows: dict[str, list[Run]], plain: str) -> str:
    """A row for each method, the plain one first, without and with its temperature.

    Args:
        rows: runs of each method, the same seeds in the same order.
        plain: which row the differences are to.
    """
    baseline = rows[plain]
    lines = [
        "| " + " | ".join(["settings", *(column.title for column in COLUMNS)]) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        _line(f"`{plain}`", [_cell(column, baseline) for column in COLUMNS]),
        _line(f"`{plain}`, with T", [_cell(column, _scaled(baseline), baseline) for column in COLUMNS]),
    ]
    for name, runs in rows.items():
        if name != plain:
            lines.append(_line(f"`{name}`", [_cell(column, runs, baseline) for column in COLUMNS]))
    return "\n".join(lines)


def _scaled(runs: list[Run]) -> list[Run]:
    return [{**run, "plain": run["scaled"]} for run in runs]


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _cell(column: Column, runs: list[Run], baseline: list[Run] | None = None) -> str:
    """The mean; in brackets the difference, bold where its interval leaves 0 out. A gap is read by itself."""
    values = [column.scale * run[column.source][column.key] for run in runs]
    shown = f"{mean(values):{'+' if column.key == 'gap' else ''}.{column.digits}f}"
    if baseline is None or column.key == "gap":
        return shown
    difference, half = paired(values, [column.scale * run[column.source][column.key] for run in baseline])
    text = f"{difference:+.{column.digits}f}" + ("" if math.isnan(half) else f" ± {half:.{column.digits}f}")
    return f"{shown} ({f'**{text}**' if abs(difference) > half else text})"
