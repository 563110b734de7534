"""Smooth and measure a LightningModule that knows nothing about it: two callbacks, its code stays as it is.

    pip install 'ls-lightning[data]'
    python examples/callback.py

Trains the same network three times on 8x8 handwritten digits: on hard labels, with label smoothing, and with
label smoothing that fades out over the run.
"""

import lightning as L
import torch
from torch import Tensor, nn

import ls_lightning as ls
from ls_lightning.zoo import DigitsData


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        loss: Tensor = self.criterion(self.layers(x), y)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        self.log("test/loss", self.criterion(self.layers(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def train(*callbacks: L.Callback) -> None:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    net, data = Net(), DigitsData()
    trainer.fit(net, data)
    found = trainer.test(net, data, verbose=False)[0]
    print(f"{found['test/acc']:.1%} {found['test/ece']:.1%} {found['test/gap']:+.1%}")


train(ls.CalibrationMonitor())
train(ls.LabelSmoothing(loss="kl", eps=0.1), ls.CalibrationMonitor())
train(ls.LabelSmoothing(loss="kl", eps=0.1, schedule="linear"), ls.CalibrationMonitor())
