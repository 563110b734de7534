"""Record: what each member of a stack leaves of its training, as if it were alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from ls_lightning.stacked.checkpoint import save_member
from ls_lightning.stacked.history import StackedHistory
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.module import StackedModule
from ls_lightning.stacked.schedules import StackedSchedules
from ls_lightning.stacked.stage import Stage


class Record(L.Callback):
    """Set each member's eps, fill its ``metrics.csv``, and write its checkpoint after the last epoch.

    Args:
        members: of the module that is trained.
        history: where their rows go.
        started: when, by ``time.time``.
    """

    def __init__(self, members: Sequence[Member], history: StackedHistory, started: float) -> None:
        super().__init__()
        self._members, self._history = list(members), history
        self._started = started
        self._validation = Stage("val", members, final=False)
        self._steps: list[tuple[int, list[float], Tensor]] = []
        self._schedules: StackedSchedules | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for member in self._members:
            member.loss.to(pl_module.device)
            member.smoothing.on_train_start(trainer, pl_module)
        self._schedules = StackedSchedules([member.smoothing for member in self._members])

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StackedModule)
        assert self._schedules is not None
        self._schedules.advance(trainer.global_step, batch_idx)
        pl_module.criterion.set_eps(self._schedules.eps)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StackedModule)
        assert self._schedules is not None
        if trainer._logger_connector.should_update_logs:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            self._steps.append((step, list(self._schedules.eps), pl_module.logged))

    @override
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation.start()

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, StackedModule)
        self._validation.add(*pl_module.outputs)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write_steps(trainer.current_epoch)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        for k, row in enumerate(self._validation.rows(trainer)):
            self._history.add(k, step, {**row, "epoch": trainer.current_epoch})

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StackedModule)
        self._write_steps(trainer.current_epoch)
        self._history.show()
        if trainer.current_epoch + 1 != trainer.max_epochs:
            return
        assert self._schedules is not None
        self._schedules.hand_back(trainer.global_step)
        optimizer = trainer.optimizers[0].state_dict()
        seconds = (time.time() - self._started) / len(self._members)  # its share
        for k, member in enumerate(self._members):
            self._history.write(k)  # or a run that goes on from the checkpoint would miss rows
            save_member(trainer, member, *pl_module.states_of(k, optimizer), seconds)

    def _write_steps(self, epoch: int) -> None:
        """What LabelSmoothing and TrainLoss log, fetched from the device once an epoch."""
        if not self._steps:
            return
        logged = torch.stack([values for _, _, values in self._steps], 1).double().tolist()
        for k, rows in enumerate(logged):
            for (step, eps, _), values in zip(self._steps, rows, strict=True):
                found = dict(zip(_NAMES, values, strict=False))  # the accuracy may be left away
                self._history.add(k, step, {"ls/eps": eps[k], "epoch": epoch, **found})
        self._steps = []


_NAMES = ("train/loss", "train/acc")
