"""What eps a LabelSmoothing follows: its arguments, read together."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn

from ls_lightning.callbacks import loss_state
from ls_lightning.losses import NegativeSmoothing, usual_eps
from ls_lightning.schedules import Constant, Feedback, Schedule, build_schedule, eps_at


def resolve_schedule(
    loss: object, eps: float | None, schedule: str | Schedule | Feedback | None
) -> Schedule | Feedback | None:
    """Return the schedule of a loss; None where a loss module keeps the eps that it has.

    Raises:
        TypeError: ``schedule`` is neither a name nor a schedule.
        ValueError: the arguments contradict each other.
    """
    if loss == "negative" or isinstance(loss, NegativeSmoothing):
        return loss_state.warm_up(loss, eps, schedule)
    if isinstance(schedule, str):
        if isinstance(loss, str) and eps is None and usual_eps(loss) == 0:
            raise ValueError(f"loss={loss!r} takes no eps, so there is nothing for schedule={schedule!r} to move.")
        return build_schedule(schedule, eps_of(loss) if eps is None else eps)
    if schedule is not None:
        if not callable(schedule) and not isinstance(schedule, Feedback):
            raise TypeError(f"schedule must be a name or a schedule such as Linear(0.1, 0.0), got {schedule!r}.")
        first = first_eps(schedule)
        if eps is not None and not math.isclose(first, eps):
            raise ValueError(f"give eps or a schedule, got eps={eps} and {schedule!r}, which starts at {first}.")
        return schedule
    if eps is None and isinstance(loss, nn.Module):
        return None
    return Constant(eps_of(loss) if eps is None else eps)


def first_eps(schedule: Schedule | Feedback) -> float:
    """Return the eps with which a run starts."""
    if isinstance(schedule, Feedback):
        return schedule.start
    return eps_at(schedule, 0.0)


def eps_of(loss: object) -> float:
    """Return the eps that a loss has or, if it is a name, that is usual for it."""
    if isinstance(loss, nn.Module):
        eps = getattr(loss, "eps", None)
        return float(eps.mean()) if isinstance(eps, Tensor) else 0.0
    return usual_eps(loss) if isinstance(loss, str) else 0.1


def check_settable(given: object, loss: nn.Module, schedule: Schedule | Feedback | None) -> None:
    """Raise a ValueError now, not in the middle of a run, if the loss cannot take what the schedule gives it.

    Args:
        given: as the user gave it.
        loss: the module made of it.
        schedule: None for a loss that keeps its own eps.
    """
    if schedule is None:
        return
    if not hasattr(loss, "set_eps"):
        raise ValueError(
            f"eps is set by LabelSmoothing, got the loss {type(given).__name__}, which has no set_eps(eps). "
            "Pass a function of (logits, target, eps), or give eps to the loss alone."
        )
    if isinstance(schedule, Feedback):
        copy.deepcopy(loss).set_eps(schedule.eps_max)  # type: ignore[operator]
        return
    for t in range(101):
        eps_at(schedule, t / 100, isinstance(loss, NegativeSmoothing))
