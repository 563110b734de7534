"""The result of one job for a person: a table and a sentence."""

from __future__ import annotations

from typing import Any

from rich.table import Table

_ROWS = {
    "acc": ("accuracy", "{:.2%}"),
    "nll": ("NLL", "{:.4f}"),
    "brier": ("Brier", "{:.4f}"),
    "ece": ("ECE", "{:.2%}"),
    "mce": ("MCE", "{:.2%}"),
    "gap": ("gap (confidence - accuracy)", "{:+.2%}"),
    "overconfidence": ("overconfidence error", "{:.2%}"),
}


def result_table(metrics: dict[str, dict[str, float]]) -> Table:
    """One row a metric, one column a split, n below.

    Args:
        metrics: ``{"val": {"acc": 0.97, ..., "n": 270}, "test": {...}}``; values are shares of 1.
    """
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("")
    for split in metrics:
        table.add_column(split, justify="right")
    names = {
        **_ROWS,
        **{name: (name, "{:.4f}") for values in metrics.values() for name in values if name != "n"},
    }
    for name, (label, form) in {**names, **_ROWS}.items():
        values = [split.get(name) for split in metrics.values()]
        if any(value is not None for value in values):
            table.add_row(label, *("-" if value is None else form.format(value) for value in values))
    table.add_row("n", *(f"{int(split['n']):,}" for split in metrics.values()), style="dim")
    return table


def direction(values: dict[str, Any]) -> str:
    """In which direction a model is off, e.g. ``"underconfident by 11.4 points"``.

    Args:
        values: metrics of one split, with ``gap``, mean confidence minus accuracy, in [-1, 1].

    Example:
        >>> direction({"gap": -0.114, "acc": 0.975})
        'underconfident by 11.4 points (mean confidence 86.1 %, accuracy 97.5 %)'
    """
    gap, acc = values["gap"], values["acc"]
    numbers = f"(mean confidence {100 * (acc + gap):.1f} %, accuracy {100 * acc:.1f} %)"
    points = f"{abs(100 * gap):.1f}"
    if points == "0.0":
        return f"neither over- nor underconfident on average {numbers}"
    return f"{'over' if gap > 0 else 'under'}confident by {points} points {numbers}"
