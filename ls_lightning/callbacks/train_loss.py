"""TrainLoss: loss and accuracy of every optimizer step in training, for all loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.step_outputs import read_call
from ls_lightning.loggers import CSVHistory
from ls_lightning.tap import LossCall


class TrainLoss(L.Callback):
    """Log ``train/loss``, the loss that the optimizer saw, and ``train/acc`` at the pace of ``log_every_n_steps``.

    The loss is the mean over the mini-batches of an accumulated step, the accuracy that of all their samples as the
    step was computed (with dropout, augmentation); under DDP those of rank 0. They go to the loggers past
    ``self.log``, which costs about 1 ms a step, and are not fetched from the device here. Accuracy is of the calls
    that a :class:`~ls_lightning.LabelSmoothing` in the same Trainer answers; without one, or in compiled code,
    there is none.

    Args:
        accuracy: False leaves ``train/acc`` away.

    Example:
        >>> trainer = L.Trainer(callbacks=[TrainLoss()], logger=False, barebones=False)
    """

    def __init__(self, accuracy: bool = True) -> None:
        self.accuracy = accuracy
        self._sum: Tensor | None = None
        self._hits: Tensor | None = None
        self._counts_hits = False

    @property
    def logged_keys(self) -> set[str]:
        """What it logs in each step, and nobody else should beside it."""
        return {"train/loss", "train/acc"} if self.accuracy else {"train/loss"}

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, LabelSmoothing):
                callback.watch = self._see if self.accuracy and trainer.is_global_zero else None

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._counts_hits = bool(trainer.loggers) and trainer._logger_connector.should_update_logs

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sum = self._hits = None
        _flush(trainer)  # what was logged at the end of the epoch before, after its checkpoint was written

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
            if self._hits is not None:
                values["train/acc"] = torch.div(*self._hits.unbind())
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
        self._sum = self._hits = None

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        _flush(trainer)

    def _see(self, call: LossCall) -> None:
        if self._counts_hits:
            found = count_hits(*read_call(call))
            if found is not None:
                self._hits = found if self._hits is None else self._hits + found


def _flush(trainer: L.Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, CSVHistory):
            logger.flush()


def count_hits(logits: Tensor, target: Tensor, options: Mapping[str, Any]) -> Tensor | None:
    """How many decisions are right, and how many there are, as one int64 tensor ``(2,)`` on the device.

    Args:
        logits: ``(N, K, d1, ...)`` for classes; of any shape for binary decisions.
        target: class indices ``(N, d1, ...)``; or 0 and 1 in the shape of the logits, a missing label -100.
        options: ``task``, ``ignore_index`` and ``input``, as the metrics take them.

    Returns:
        None where the shapes do not fit, as with a loss that is of no classes.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, -100])
        >>> count_hits(logits, target, {"task": "multiclass", "ignore_index": -100})
        tensor([1, 2])
    """
    if options["task"] == "multiclass":
        if logits.ndim < 2:
            return None
        predicted, counted = logits.argmax(1), target != options.get("ignore_index", -100)
    else:
        predicted, counted = logits > (0.5 if options.get("input") == "probs" else 0), target != -100
        target = target > 0.5
    if predicted.shape != target.shape:
        return None
    hit = predicted == target
    if options["task"] != "multiclass" or options.get("ignore_index", -100) >= 0:
        hit &= counted  # what is not a class is never predicted
    return torch.stack([hit, counted]).flatten(1).sum(1)
