"""The tables of report.html. They are whole without JavaScript, which sorts and filters their rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ls_lightning.report.against_eps import PANELS
from ls_lightning.sweep.choose import Choice
from ls_lightning.sweep.estimate import Estimate
from ls_lightning.sweep.groups import Group, baseline_of
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.measures import MEASURES, Measure
from ls_lightning.sweep.table import MISSING, header, stage_of

_TEXTS = {"setting", "loss", "schedule", "seeds", "status", "folder", "why it is not counted", "overrides"}


class _Cell(NamedTuple):
    text: str
    value: float | None = None
    css: str = ""

    def __str__(self) -> str:
        css = f' class="{self.css}"' if self.css else ""
        value = "" if self.value is None else f' data-value="{self.value:.9g}"'
        mean, plus_minus, half = self.text.partition(" ±")
        interval = f" <small>±{escape(half)}</small>" if plus_minus else ""
        return f"<td{css}{value}>{escape(minus(mean))}{interval}</td>"


def minus(text: str) -> str:
    """The hyphens before numbers as minus signs.

    Example:
        >>> minus("seed-wise -0.5, from -1 to 1")
        'seed-wise −0.5, from −1 to 1'
    """
    return re.sub(r"(?<!\S)-(?=\d)", "\N{MINUS SIGN}", text)


def glance_table(choice: Choice, level: float) -> str:
    """Plain training, the same after temperature scaling, and the recommended eps, in the metrics that matter most."""
    stage = choice.stage
    models = [(choice.chosen, stage, "recommended")]
    if choice.baseline is not None:
        models.insert(0, (choice.baseline, f"{stage}_scaled", "plain, temperature-scaled"))
        models.insert(0, (choice.baseline, stage, "plain training"))
    rows = []
    for group, source, name in models[: 2 if choice.chosen is choice.baseline else 3]:
        found = [(MEASURES[key], group.estimate(f"{source}/{key}", level)) for key in PANELS]
        if any(one for _, one in found):
            cells = "".join(str(_estimate(measure, one)) for measure, one in found)
            css = ' class="chosen"' if group is choice.chosen else ""
            rows.append(f'<tr{css}><th scope="row">{name}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col" class="number">{escape(header(MEASURES[key]))}</th>' for key in PANELS)
    head = f'<thead><tr><th scope="col">on {stage} data</th>{heads}</tr></thead>'
    return f'<div class="glance"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def mean_table(groups: Sequence[Group], measures: Sequence[Measure], choices: Sequence[Choice], level: float) -> str:
    """Mean and interval of every group, as trained and after temperature scaling; the recommended one is marked."""
    stage, rows = stage_of(groups), []
    chosen = [choice.chosen for choice in choices]
    for number, group in enumerate(groups):
        mark = " chosen" if any(group is one for one in chosen) else ""
        plain = [_estimate(measure, group.estimate(f"{stage}/{measure.key}", level)) for measure in measures]
        rows.append(_row(number, f"plain{mark}", [*_keys(groups, group), _Cell("1", 1.0, "number"), *plain]))
        temperature = group.estimate("temperature", level)
        found = [group.estimate(f"{stage}_scaled/{measure.key}", level) for measure in measures]
        if temperature is not None and any(found):
            scaled = [_estimate(measure, one) for measure, one in zip(measures, found, strict=True)]
            number_t = _Cell(f"{temperature.mean:.2f}", temperature.mean, "number")
            rows.append(_row(number, "scaled", [*_keys(groups, group), number_t, *scaled]))
    return _table("means", [*_key_names(groups), "T", *map(header, measures)], rows)


def difference_table(groups: Sequence[Group], measures: Sequence[Measure], level: float) -> str:
    """Each group minus plain training in its setting; empty text where there is none."""
    stage, rows = stage_of(groups), []
    for number, group in enumerate(groups):
        base = baseline_of(group, groups)
        if base is None or base is group or not group.smooths:
            continue
        found = [group.difference(base, f"{stage}/{measure.key}", level) for measure in measures]
        first = next((one for one in found if one is not None), None)
        how = "-" if first is None else "paired" if first.paired else "unpaired"
        cells = [_estimate(measure, one, signed=True) for measure, one in zip(measures, found, strict=True)]
        keys = _keys(groups, group, len(group.jobs) if first is None else first.n)
        rows.append(_row(number, "plain", [*keys, _Cell(how), *cells]))
    names = [*_key_names(groups), "seeds", *map(header, measures)]
    return _table("differences", names, rows) if rows else ""


def left_out_table(jobs: Sequence[Job]) -> str:
    """The jobs that are not counted, and why; empty text where there is none."""
    rows = [
        f"<tr><td>{escape(job.status)}</td><td>{_code(str(job.folder))}</td><td>{escape(job.note)}</td>"
        f"<td>{_code(' '.join(job.overrides))}</td></tr>"
        for job in sorted(jobs, key=lambda job: job.status)
    ]
    return _table("left-out", ["status", "folder", "why it is not counted", "overrides"], rows) if rows else ""


def _estimate(measure: Measure, found: Estimate | None, *, signed: bool = False) -> _Cell:
    if found is None:
        return _Cell(MISSING, css="number")
    return _Cell(measure.show(found.mean, found.half, signed=signed), found.mean, "number")


def _key_names(groups: Sequence[Group]) -> list[str]:
    several = len({group.setting for group in groups}) > 1
    return [*(["setting"] if several else []), "loss", "schedule", "eps", "n"]


def _keys(groups: Sequence[Group], group: Group, n: int | None = None) -> list[_Cell]:
    n = len(group.jobs) if n is None else n
    setting = [_Cell(group.setting)] if "setting" in _key_names(groups) else []
    own = [_Cell(group.loss), _Cell(group.schedule), _Cell(f"{group.eps:g}", group.eps, "number eps")]
    return [*setting, *own, _Cell(str(n), float(n), "number")]


def _row(number: int, css: str, cells: Sequence[_Cell]) -> str:
    return f'<tr data-group="{number}" class="{css}">{"".join(map(str, cells))}</tr>'


def _table(name: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(map(_head, columns))
    body = "\n".join(rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}-title">'
        f'<table id="{name}"><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _head(name: str) -> str:
    css = "" if name in _TEXTS else ' class="number eps"' if name == "eps" else ' class="number"'
    unbroken = name.replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<th scope="col" aria-sort="none"{css}><button type="button">{escape(unbroken)}</button></th>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
