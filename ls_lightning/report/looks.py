"""Colours and marks of loss and schedule, the same in every figure of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ls_lightning.plots.figure import BLUE, DASHED, FAINT, INK, ORANGE
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.settings import NO_SMOOTHING

# Okabe and Ito's palette; with a mark of its own each, for print and for any colour vision.
LOOKS = (
    (BLUE, "o"),
    (ORANGE, "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    (INK, "X"),
)


class Family(NamedTuple):
    """The groups of one loss and schedule, by eps."""

    label: str
    groups: list[Group]
    look: dict[str, Any]


def families(groups: Sequence[Group]) -> list[Family]:
    """All that smooth, by loss and schedule; looks come round again after seven."""
    several = len({group.loss for group in groups if group.smooths}) > 1
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.smooths:
            found.setdefault((group.loss, group.schedule), []).append(group)
    families = []
    for number, ((loss, schedule), members) in enumerate(found.items()):
        colour, mark = LOOKS[number % len(LOOKS)]
        words = [loss] if several or schedule == NO_SMOOTHING else []
        label = ", ".join(words + [schedule] * (schedule != NO_SMOOTHING))
        families.append(Family(label, sorted(members, key=lambda group: group.eps), {"color": colour, "marker": mark}))
    return families


def plain_of(groups: Sequence[Group]) -> Group | None:
    """Plain training, with the most seeds if several losses have it."""
    return max((group for group in groups if not group.smooths), key=lambda group: len(group.jobs), default=None)


def dashed() -> Any:
    """For a legend: the line of what was measured after temperature scaling."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=FAINT, linestyle=DASHED, linewidth=1.2)
