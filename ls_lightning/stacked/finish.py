"""Finish: measure all members after training, and write their results."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
from typing_extensions import override

from ls_lightning.callbacks.quiet_pass import quiet_pass
from ls_lightning.callbacks.step_outputs import Stage as Name
from ls_lightning.job import job_result
from ls_lightning.stacked.history import StackedHistory
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.module import StackedModule
from ls_lightning.stacked.stage import Stage
from ls_lightning.sweep.results import write_result
from ls_lightning.zoo.data_base import ClassificationData

Done = Callable[[Member, dict[str, Any]], None]


class EndedTrainer:
    """What :func:`~ls_lightning.job.job_result` asks of a Trainer, with the callbacks of one member."""

    world_size = 1

    def __init__(self, trainer: L.Trainer, member: Member) -> None:
        self.callbacks, self.global_step = member.callbacks, trainer.global_step


class Finish(L.Callback):
    """Validate and test the final weights; leave ``result.json`` in each folder.

    Args:
        members: of the module that was trained.
        history: of their rows.
        data: what every member has alone.
        started: when, by ``time.time``.
        done: called with each member that is finished and its result.

    Attributes:
        failed: members that could not be finished; their checkpoints are there.
    """

    def __init__(
        self, members: Sequence[Member], history: StackedHistory, data: ClassificationData, started: float, done: Done
    ) -> None:
        super().__init__()
        self._members, self._history, self._data = list(members), history, data
        self._started, self._done = started, done
        self.failed: list[Member] = []

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StackedModule)
        val = self._rows(trainer, pl_module, "val", self._data.val_dataloader())
        test = self._rows(trainer, pl_module, "test", self._data.test_dataloader())
        for k, (member, *rows) in enumerate(zip(self._members, val, test, strict=True)):
            try:
                for row in rows:
                    self._history.add(k, trainer.global_step, {**row, "epoch": trainer.max_epochs})
                self._history.write(k)
                self._done(member, self._write(trainer, member))
            except Exception:
                print(f"{member.folder}:", file=sys.stderr)
                traceback.print_exc()
                self.failed.append(member)

    def _rows(self, trainer: L.Trainer, module: StackedModule, name: Name, loader: Any) -> list[dict[str, float]]:
        stage = Stage(name, self._members)
        for _ in quiet_pass(trainer, module, loader, math.inf):
            stage.add(*module.outputs)
        return stage.rows(trainer)

    def _write(self, trainer: L.Trainer, member: Member) -> dict[str, Any]:
        member.scaling._fit.warn_of_boundary()
        ended = cast(L.Trainer, EndedTrainer(trainer, member))
        seconds = (time.time() - self._started) / len(self._members)  # its share
        result = job_result(ended, self._data, member.config, member.folder, member.choices, self._started, seconds)
        write_result(member.folder, result)
        member.claim.close()
        return result
