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

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sum = None

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        # Lightning has divided it by the number of accumulated batches already.
        self._sum = loss.detach() if self._sum is None else self._sum + loss.detach()
        if trainer.fit_loop._should_accumulate():
            return
        if trainer._logger_connector.should_update_logs:
            values: dict[str, Any] = {"train/loss": self._sum, "epoch": trainer.current_epoch}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._sum = None

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CSVHistory):
                logger.flush()
