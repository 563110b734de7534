"""Whether what is compared was trained to the end: a network that still learns may change its place."""

from __future__ import annotations

from collections.abc import Sequence

from ls_lightning.sweep.choose import Choice
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.history import Curve, read_history
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.settings import NO_SMOOTHING

_COLUMN = "val/nll"
_BEFORE = 0.8
_FALL = 0.01


def undertrained(choice: Choice) -> str:
    """A sentence, if in most jobs of what is compared validation was still falling at the end; else nothing.

    Where eps decays, its end lowers the NLL by itself, so only the others are looked at.
    """
    compared = [group for group in (choice.reference, choice.asked) if group is not None]
    found = [words for group in compared if group.schedule in ("constant", NO_SMOOTHING) for words in _said(group)]
    if not found:
        return ""
    epochs = {job.settings.get("trainer.max_epochs") for group in compared for job in group.jobs}
    known = [one for one in epochs if isinstance(one, int) and one > 0]
    more = f" Train longer: trainer.max_epochs={2 * max(known)}." if known else " Train longer."
    return (
        f"Not trained to the end: the NLL on validation was still falling in the last epoch in {' and '.join(found)}, "
        f"so more epochs may change the answer.{more}"
    )


def still_falling(curve: Curve) -> bool:
    """Whether the last epoch is the best, and by more than 1 % better than the first four fifths of them.

    Args:
        curve: of a value that is better when it is lower, by epoch.

    Example:
        >>> still_falling(Curve([9, 19, 29], [0.9, 0.5, 0.3])), still_falling(Curve([9, 19, 29], [0.9, 0.3, 0.31]))
        (True, False)
    """
    values = curve.values
    if len(values) < 2:
        return False
    before = min(values[: max(1, int(_BEFORE * len(values)))])
    return values[-1] == min(values) < (1 - _FALL) * before


def _said(group: Group) -> Sequence[str]:
    """How many of its jobs, if they are most."""
    falling = sum(still_falling(_epochs(job)) for job in group.jobs)
    return [f"{falling} of {len(group.jobs)} jobs of {group.label}"] if 2 * falling > len(group.jobs) else []


def _epochs(job: Job) -> Curve:
    """Without the measurement behind the last epoch, which repeats it."""
    steps, values = read_history(job.folder).get(_COLUMN, Curve([], []))
    repeated = len(steps) > 2 and steps[-1] - steps[-2] < steps[-2] - steps[-3]
    return Curve(steps[:-1], values[:-1]) if repeated else Curve(steps, values)
