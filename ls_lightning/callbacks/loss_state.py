"""What a loss gets from training besides eps: a prior from the data, the number of the epoch, a warm-up."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from ls_lightning.callbacks.train_labels import class_frequencies, class_names
from ls_lightning.functional.hierarchy import class_similarity
from ls_lightning.losses import NegativeSmoothing, OnlineLabelSmoothing, PriorSmoothing
from ls_lightning.schedules import Delayed, Feedback, Schedule


def read_data(loss: nn.Module, trainer: L.Trainer) -> None:
    """Give a prior that is named by its source the values that this run's data has."""
    if not isinstance(loss, PriorSmoothing) or loss.source is None:
        return
    if loss.source == "frequencies":
        loss.set_prior(class_frequencies(trainer))
    else:
        loss.set_prior(class_similarity(class_names(trainer), loss.beta))


def start_epoch(loss: nn.Module, trainer: L.Trainer) -> None:
    """Tell a loss that learns from epoch to epoch that one begins."""
    if isinstance(loss, OnlineLabelSmoothing):
        loss.start_epoch(trainer.current_epoch)


def save(loss: nn.Module, checkpoint: dict[str, Any], over_ranks: bool) -> None:
    """Put what the loss has learnt into a checkpoint."""
    if isinstance(loss, OnlineLabelSmoothing):
        checkpoint[_KEY] = loss.epoch_state(over_ranks)


def saved(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint holds of a loss."""
    return checkpoint.get(_KEY)


def restore(loss: nn.Module, state: dict[str, Any] | None, rank: int) -> None:
    """Let the loss go on from a checkpoint's state; None is a run that begins."""
    if isinstance(loss, OnlineLabelSmoothing):
        loss.reset()
        loss.load_epoch_state(state or {}, rank)
        if state and state.get("part"):
            rank_zero_warn(
                f"The checkpoint comes from an exception, so of epoch {int(state['epoch'])} loss=online has what "
                "rank 0 counted alone: the soft labels of the next epoch are learnt from fewer samples than in an "
                "unbroken run. For the same bits resume from a checkpoint of an epoch's end."
            )


def warm_up(loss: object, eps: float | None, schedule: str | Schedule | Feedback | None) -> Schedule:
    """Check that plain cross-entropy comes before negative smoothing.

    Raises:
        ValueError: there is no warm-up, or two of them.
    """
    own = loss if isinstance(loss, NegativeSmoothing) else NegativeSmoothing()
    if own.eps.ndim:
        raise ValueError(
            f"eps of NegativeSmoothing must be a number, which LabelSmoothing can schedule, got {tuple(own.eps.shape)}."
        )
    level = round(float(own.eps), 7) if eps is None else eps
    if not level <= 0:
        raise ValueError(f"eps of loss=negative must be at most 0, got {level}. -0.4 to -6 are usual.")
    if schedule is None and own.warmup is not None:
        return Delayed(level, own.warmup)
    if schedule is None or isinstance(schedule, str | Feedback) or schedule(0.0) != 0:
        raise ValueError(
            "loss=negative needs a warm-up of plain cross-entropy: NegativeSmoothing(eps, warmup=0.5) for half of "
            f"training, or a schedule that starts at 0, e.g. Delayed({level:g}, 0.5); got schedule={schedule!r}."
        )
    least, most = min(curve := [schedule(t / 100) for t in range(101)]), max(curve)
    if not -math.inf < least <= most <= 0:
        raise ValueError(f"a schedule of loss=negative must stay at most 0, got {least} to {most} from {schedule!r}.")
    if own.warmup is not None and getattr(schedule, "start_at", None) != own.warmup:
        raise ValueError(f"give warmup or a schedule, got warmup={own.warmup} and {schedule!r}.")
    return schedule


_KEY = "ls_lightning.loss"
