"""Label smoothing by environment variable, for a training script that nobody edits.

``LS_EPS=0.1 LS_LOSS=kl LS_SCHEDULE=linear:0.1:0 python their_train.py``

Lightning calls :func:`callbacks_from_environment` for every Trainer, through the entry points
``lightning.pytorch.callbacks_factory`` and ``pytorch_lightning.callbacks_factory``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ls_lightning.sweep.trial import VARIABLE as TRIAL

if TYPE_CHECKING:
    from ls_lightning.schedules import Feedback, Schedule

VARIABLES = ("LS_EPS", "LS_LOSS", "LS_SCHEDULE", "LS_TARGET")


def callbacks_from_environment(environ: Mapping[str, str] = os.environ) -> list[Any]:
    """``LabelSmoothing`` and ``CalibrationMonitor`` if one of the variables is set, ``Pruning`` in a sweep that prunes.

    * ``LS_EPS``: eps in [0, 1).
    * ``LS_LOSS``: a name such as ``kl``; ``ce`` if unset.
    * ``LS_SCHEDULE``: a name, which starts at ``LS_EPS``, or ``name:number:number``, e.g. ``linear:0.1:0``.
    * ``LS_TARGET``: the dotted path of the loss module; all calls if unset.

    Raises:
        ValueError: a variable is not one of these values.

    Example:
        >>> callbacks_from_environment({})
        []
    """
    return [*_smoothing(environ), *_pruning(environ)]


def _pruning(environ: Mapping[str, str]) -> list[Any]:
    if not environ.get(TRIAL):
        return []
    from ls_lightning.callbacks.pruning import pruning_from_environment

    return list(pruning_from_environment(environ))


def _smoothing(environ: Mapping[str, str]) -> list[Any]:
    given = {name: environ[name] for name in VARIABLES if environ.get(name)}
    if not given:
        return []
    from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
    from ls_lightning.callbacks.label_smoothing import LabelSmoothing

    smoothing = LabelSmoothing(
        loss=given.get("LS_LOSS", "ce"),
        eps=_number("LS_EPS", given["LS_EPS"]) if "LS_EPS" in given else None,
        schedule=_schedule(given["LS_SCHEDULE"]) if "LS_SCHEDULE" in given else None,
        target=given.get("LS_TARGET", "auto"),
    )
    if environ.get("LOCAL_RANK", "0") == "0":
        said = " ".join(f"{name}={value}" for name, value in given.items())
        print(f"ls_lightning: {said} adds LabelSmoothing and CalibrationMonitor to this Trainer.", file=sys.stderr)
    return [smoothing, CalibrationMonitor(strict=False)]


def _schedule(text: str) -> str | Schedule | Feedback:
    from ls_lightning.schedules import build_schedule

    name, *numbers = text.split(":")
    return build_schedule(name, *(_number("LS_SCHEDULE", number) for number in numbers)) if numbers else name


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, e.g. 0.1, got {text!r}.") from None
