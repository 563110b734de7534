"""A stack of jobs: train them as one model, and leave their folders as they are if each runs alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ls_lightning import job as one_job
from ls_lightning.assemble import build_data
from ls_lightning.callbacks.idle_hooks import skip_idle_hooks
from ls_lightning.stacked.data import StackedData
from ls_lightning.stacked.finish import Finish
from ls_lightning.stacked.history import StackedHistory
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.module import StackedModule
from ls_lightning.stacked.record import Record
from ls_lightning.zoo.data_base import ClassificationData

_FEW = 2**27
"""Products of a weight and a number in one forward pass; about ten milliseconds of a processor in a step."""


class StackedJob(NamedTuple):
    """One job of a stack.

    Attributes:
        num: its number in the sweep.
        config: as :func:`ls_lightning.config.settle` returns it, as plain values.
        folder: absolute.
        choices: the option chosen in each config group.
    """

    num: int
    config: dict[str, Any]
    folder: str
    choices: dict[str, str]


def run_stack(jobs: Sequence[StackedJob], done: Callable[[int, dict[str, Any]], None]) -> list[int]:
    """Train jobs that :func:`~ls_lightning.stacked.groups.plan` has put together; leave their folders complete.

    Args:
        jobs: two or more.
        done: called with the number and the result of each job that is finished.

    Returns:
        The numbers of the jobs that could not be finished; they can go on from their checkpoints.

    Raises:
        Exception: what went wrong in training; nothing is left but ``config.yaml`` and a part of ``metrics.csv``.
    """
    started = time.time()
    one_job.quieten()
    jobs = sorted(jobs, key=lambda job: repr(job.config["optimizer"]))  # blocks of equal settings
    cfg = OmegaConf.create(jobs[0].config)
    data = build_data(cfg)
    if not isinstance(data, ClassificationData):
        raise TypeError(f"a stack needs data that this package holds in memory, got {type(data).__name__}.")
    data.setup("fit")
    members = [Member(job.config, Path(job.folder), job.choices, data) for job in jobs]
    nums = {member.folder: job.num for member, job in zip(members, jobs, strict=True)}
    history = StackedHistory([member.folder for member in members])
    _use_threads(members, data.batch_size)
    finish = Finish(members, history, data, started, lambda member, result: done(nums[member.folder], result))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer: L.Trainer = instantiate(cfg.trainer, callbacks=[Record(members, history, started), finish], **quiet)
    data.trainer = trainer
    skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
    try:
        trainer.fit(StackedModule(members), datamodule=StackedData(data, [job.config["seed"] for job in jobs]))
    finally:
        for member in members:
            member.claim.close()
    return [nums[member.folder] for member in finish.failed]


def _use_threads(members: Sequence[Member], batch_size: int) -> None:
    """One, where a step is so small that threads would wait for each other longer than they work."""
    weights = sum(parameter.numel() for parameter in members[0].classifier.model.parameters())
    if "OMP_NUM_THREADS" not in os.environ and len(members) * batch_size * weights < _FEW:
        torch.set_num_threads(1)
