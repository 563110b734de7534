"""The schedule of a configuration: built, and held against its eps."""

from __future__ import annotations

import inspect
import math

from omegaconf import DictConfig

from ls_lightning.config.schema import NEGATIVE, is_ours
from ls_lightning.config.targets import locate
from ls_lightning.errors import ConfigError, one_line
from ls_lightning.schedules import Feedback, Schedule, peak
from ls_lightning.schedules.checks import name_of


def build_schedule(cfg: DictConfig) -> Schedule | Feedback:
    """The schedule of the configuration, which may be a function of the user's own.

    Raises:
        ConfigError: it cannot be built, or is neither a function of progress nor a Feedback.
    """
    from hydra.utils import instantiate

    try:
        schedule: object = instantiate(cfg.schedule)
    except Exception as error:
        raise ConfigError(f"schedule: {error.__cause__ or error}".splitlines()[0]) from error
    if isinstance(schedule, Feedback) or callable(schedule):
        return schedule
    raise ConfigError(f"schedule._target_ must give a function of progress, got {schedule!r}.")


def warm_up(cfg: DictConfig) -> None:
    """Negative smoothing begins with plain cross-entropy: ``loss.warmup`` is its schedule."""
    schedule = str(cfg.schedule.get("_target_", ""))
    warmup = cfg.loss.get("warmup")
    if not is_ours(schedule):  # a schedule of the user's own; LabelSmoothing looks where it starts
        return
    if not schedule.endswith((".Constant", ".Delayed")):
        raise ConfigError(
            f"schedule must be left away with loss=negative, got {schedule.rpartition('.')[2]}. loss.warmup says when "
            "eps falls below 0."
        )
    if warmup is None:
        raise ConfigError(
            "loss=negative needs a warm-up of plain cross-entropy, got none: loss.warmup=0.5 for half of training."
        )
    cfg.schedule = {"_target_": "ls_lightning.schedules.Delayed", "eps": cfg.eps, "start_at": warmup}


def leave_progress_open(cfg: DictConfig) -> None:
    """A function that still needs an argument is the curve itself; one that needs none returns it."""
    target = str(cfg.schedule.get("_target_", ""))
    if is_ours(target) or "_partial_" in cfg.schedule:
        return
    function = locate("schedule._target_", target)
    try:
        parameters = {} if isinstance(function, type) else inspect.signature(function).parameters
    except ValueError as error:  # of a builtin
        raise ConfigError(f"schedule: {one_line(error)}") from error
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.default is p.empty and p.name not in cfg.schedule for p in positional):
        cfg.schedule["_partial_"] = True


def check_schedule(cfg: DictConfig) -> None:
    """Build the schedule, and see that the eps of the results is the eps of the training."""
    schedule, ours = build_schedule(cfg), is_ours(str(cfg.schedule.get("_target_", "")))
    if cfg.loss.get("_target_") == NEGATIVE and not ours:  # LabelSmoothing judges it
        return
    try:
        named = schedule.start if isinstance(schedule, Feedback) else peak(schedule)
    except Exception as error:
        raise ConfigError(f"schedule: {one_line(error)}") from error
    # The highest eps of a function of the user's own is known from its values at some points.
    if not math.isclose(cfg.eps, named, rel_tol=1e-9 if ours else 1e-3):
        follow = "" if ours else " Or let the schedule follow it by 'schedule.<key>=${eps}'."
        raise ConfigError(
            f"eps={cfg.eps} is not that of the schedule {name_of(schedule)}, so results would name an eps that was not "
            f"trained. Set eps={named:.6g}.{follow}"
        )
