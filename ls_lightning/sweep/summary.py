"""The result of one job for a person: a table and a sentence."""

from __future__ import annotations

import math
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
    "aurc": ("AURC", "{:.3%}"),
    "rmsce": ("RMSCE", "{:.2%}"),
    "ece_debiased": ("ECE, debiased", "{:.2%}"),
    "rmsce_debiased": ("RMSCE, debiased", "{:.2%}"),
    "over_part": ("over part of ECE", "{:.2%}"),
    "under_part": ("under part of ECE", "{:.2%}"),
    "underconfidence": ("underconfidence error", "{:.2%}"),
    "oos_confidence": ("confidence, unknown input", "{:.2%}"),
    "oos_auroc": ("AUROC, unknown input", "{:.2%}"),
    "oos_fpr95": ("FPR at 95 % TPR", "{:.2%}"),
    "oos_auroc_max_logit": ("AUROC of max logit", "{:.2%}"),
    "oos_fpr95_max_logit": ("FPR95 of max logit", "{:.2%}"),
    "oos_n": ("n unknown", "{:.0f}"),
}


def columns(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a job's table shows side by side: validation, test, and test with the fitted temperature.

    Args:
        result: as in ``result.json``, of any version of this program.

    Example:
        >>> test = {"ece": 0.1, "n": 5}
        >>> list(columns({"metrics": {"test": test}, "temperature": {"T": 0.5, "metrics": {"test": test}}}))
        ['test', 'test, T = 0.5']
        >>> list(columns({"metrics": {"test": test}}))
        ['test']
    """
    metrics = result.get("metrics") or {}
    fit = result.get("temperature") or {}
    scaled = (fit.get("metrics") or {}).get("test")
    found = {split: metrics[split] for split in ("val", "test") if split in metrics}
    return found if scaled is None else {**found, f"test, T = {fit['T']:.3g}": scaled}


def result_table(metrics: dict[str, dict[str, Any]]) -> Table:
    """One row a metric, one column a split, n below.

    Args:
        metrics: ``{"val": {"acc": 0.97, ..., "n": 270}, "test": {...}}``; shares are of 1, None was not finite.
    """
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("")
    for split in metrics:
        table.add_column(split, justify="right")
    found = dict.fromkeys(name for values in metrics.values() for name in values if name != "n")
    for name in sorted(found, key=lambda name: [*_ROWS, name].index(name)):  # those that have no name here come last
        label, form = _ROWS.get(name, (name.replace("_", " "), "{:.4f}"))
        values = [split.get(name) for split in metrics.values()]
        table.add_row(label, *("-" if value is None else form.format(value) for value in values))
    table.add_row("n", *(f"{int(split['n']):,}" if "n" in split else "-" for split in metrics.values()), style="dim")
    return table


def sentences(result: dict[str, Any]) -> list[str]:
    """What the table means, a sentence each: in which direction the model is off, and what a temperature makes of it.

    Where the data are generated and know the true probabilities, also what those score.

    Args:
        result: as in ``result.json``, of any version of this program.

    Example:
        >>> print(*sentences({"metrics": {"val": {"gap": 0.1, "acc": 0.8}}, "temperature": None}))
        On val the model is overconfident by 10.0 points (mean confidence 90.0 %, accuracy 80.0 %).
    """
    metrics = result.get("metrics") or {}
    split = "test" if "test" in metrics else "val"
    plain = metrics.get(split) or {}
    if plain.get("gap") is None:
        return []
    if math.isnan(plain["gap"]):
        return [f"On {split} the logits are not finite: training diverged, or its input is not finite."]
    said = [f"On {split} the model is {direction(plain)}."]
    best = (result.get("bayes") or {}).get(split)
    if best:
        accuracy = f"{100 * best['acc']:.1f} %"
        said.append(f"The true probabilities score an accuracy of {accuracy} and an NLL of {best['nll']:.4f} there.")
    fit = result.get("temperature") or {}
    scaled = (fit.get("metrics") or {}).get(split) or {}
    if scaled.get("ece") is None or plain.get("ece") is None:
        return said
    if fit.get("at_boundary"):
        return [*said, f"No temperature fits val: T = {fit['T']:.3g} is the end of its range. Do not use it."]
    return [
        *said,
        f"Dividing its logits by T = {fit['T']:.3g}, fitted on val, takes ECE from {plain['ece']:.1%} to "
        f"{scaled['ece']:.1%} on {split}.".replace("%", " %"),
    ]


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
