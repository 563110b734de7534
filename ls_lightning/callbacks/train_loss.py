"""TrainLoss: the training loss of every optimizer step, for all loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import Tensor
from typing_extensions import override

from ls_lightning.loggers import CSVHistory


class TrainLoss(L.Callback):
    """Log ``train/loss``, the loss that the optimizer saw, at the pace of ``log_every_n_steps``.

    The value is the mean over the mini-batches of an accumulated step; under DDP that of rank 0. It goes to the
    loggers past ``self.log``, which costs about 1 ms a step, and is not fetched from the device here.

    Example:
        >>> trainer = L.Trainer(callbacks=[TrainLoss()], logger=False, barebones=False)
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._steps = 0
        self._restored: int | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["steps"]

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Resumed from a checkpoint that an error left amid a step, Lightning counts that step twice.
        if self._restored is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped, self._restored = self._restored, None

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sum = None

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Lightning has divided it by the number of accumulated batches already.
            self._sum = loss.detach() if self._sum is None else self._sum + loss.detach()
        if trainer.fit_loop._should_accumulate():
            return
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self._sum is not None and trainer._logger_connector.should_update_logs:
            values: dict[str, Any] = {"train/loss": self._sum, "epoch": trainer.current_epoch}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
        self._sum = None
        self._steps = step + 1

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CSVHistory):
                logger.flush()
