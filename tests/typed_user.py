"""A user's own file, which type checkers must find in order against the installed wheel: `.ci/resolution` runs mypy."""

from typing import assert_type

import lightning as L
import torch
from torch import Tensor, nn

import ls_lightning as ls


class Mine(ls.LabelSmoothingMixin, L.LightningModule):
    smoothing = {"loss": "ce", "eps": 0.1, "schedule": ls.schedules.Linear(0.1, 0.0)}

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = self.smoothing_loss(self.net(x), y)
        assert_type(loss, Tensor)
        return loss


def fit(module: L.LightningModule) -> float:
    smoothing = ls.LabelSmoothing(loss="kl", eps=0.1, schedule="cosine")
    callbacks: list[L.Callback] = [smoothing, ls.CalibrationMonitor(), ls.TemperatureScaling()]
    L.Trainer(callbacks=callbacks, max_epochs=1).fit(module)
    assert_type(smoothing.eps, float)
    return smoothing.eps


def measure(logits: Tensor, target: Tensor) -> Tensor:
    criterion: nn.Module = ls.losses.SmoothedCrossEntropy(eps=0.1)
    metric: torch.nn.Module = ls.metrics.CalibrationError(num_bins=15)
    assert_type(ls.functional.smoothed_cross_entropy(logits, target, 0.1), Tensor)
    assert_type(ls.schedules.Linear(0.1, 0.0)(0.5), float)
    total: Tensor = criterion(logits, target) + metric(logits, target)
    return total
