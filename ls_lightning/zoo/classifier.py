"""The LightningModule that the command line trains: a plain classifier that knows nothing of smoothing."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from .checks import TASKS, check_choice
from .counted_bce import CountedBCE


class Classifier(L.LightningModule):
    r"""Train a network on ``criterion(model(x), y)``.

    .. math:: -\log p_y \quad\text{or}\quad -y \log \sigma(z) - (1 - y) \log(1 - \sigma(z))

    that is ``nn.CrossEntropyLoss`` for multiclass, ``nn.BCEWithLogitsLoss`` for binary and multilabel. Every
    step calls ``self.criterion`` as a module: callbacks smooth there in training, and measure in evaluation.
    Labels may be dense: logits ``(N, K, d1, ...)`` and targets ``(N, d1, ...)``, those of a pixel or a token.

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; for binary to ``(N, 1)`` or ``(N,)``.
        task: ``"multiclass"`` (targets int64 ``(N,)``), ``"binary"`` (0 or 1, ``(N,)``) or ``"multilabel"``
            (0 or 1, ``(N, K)``).
        ignore_index: what stands in the targets where there is no label; None: there always is one.
        optimizer: called with the parameters; None is ``AdamW`` with torch's defaults.
        scheduler: called with the optimizer; None keeps the learning rate. A plateau scheduler watches
            ``val/loss``.
        scheduler_interval: step the scheduler after each ``"epoch"`` or each optimizer ``"step"``.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.
        ValueError: ``task`` or ``scheduler_interval`` is unknown.

    Example:
        >>> import torch
        >>> classifier = Classifier(nn.Linear(4, 3))
        >>> classifier.training_step((torch.zeros(2, 4), torch.tensor([0, 2])), 0).shape
        torch.Size([])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        task: str = "multiclass",
        ignore_index: int | None = None,
        optimizer: Callable[[Any], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        scheduler_interval: str = "epoch",
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}.")
        self.task = check_choice("task", task, TASKS)
        self.scheduler_interval = check_choice("scheduler_interval", scheduler_interval, ("epoch", "step"))
        self.save_hyperparameters("task", "scheduler_interval")
        self.model = model
        self.ignore_index = ignore_index
        self.criterion = _criterion(task, ignore_index)
        self.optimizer = optimizer
        self.scheduler = scheduler

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)``; ``(N,)`` for binary."""
        logits: Tensor = self.model(x)
        return logits.squeeze(-1) if self.task == "binary" and logits.ndim == 2 else logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; recording it is a callback's work, ``self.log`` costs 1 ms a step."""
        return self._loss(batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``val/loss``."""
        self._log_loss("val/loss", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``test/loss``."""
        self._log_loss("test/loss", batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with its scheduler if there is one."""
        optimizer = (self.optimizer or AdamW)(self.parameters())
        if self.scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.scheduler(optimizer),
                "interval": self.scheduler_interval,
                "monitor": "val/loss",
            },
        }

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, target = batch
        logits = self(x)
        if self.task != "multiclass" and not target.is_floating_point():
            target = target.float()
        if self.task == "binary" and target.ndim == logits.ndim - 1:  # dense: (N, 1, d1, ...)
            target = target.unsqueeze(1)
        loss: Tensor = self.criterion(logits, target)
        return loss

    def _log_loss(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        """The mean over labels, so that a batch weighs as much as it has."""
        loss, count = self._loss(batch), batch[1].numel()
        if self.ignore_index is not None:
            count = int((batch[1] != self.ignore_index).sum())
            loss = loss if count else torch.zeros_like(loss)  # torch's mean over nothing is nan
        self.log(name, loss, on_epoch=True, sync_dist=True, batch_size=count)


def _criterion(task: str, ignore_index: int | None) -> nn.Module:
    if task == "multiclass":
        return nn.CrossEntropyLoss() if ignore_index is None else nn.CrossEntropyLoss(ignore_index=ignore_index)
    return nn.BCEWithLogitsLoss() if ignore_index is None else CountedBCE(ignore_index)
