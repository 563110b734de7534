"""Label smoothing by subclassing: an existing LightningModule, and one of your own.

    pip install 'ls-lightning[data]'
    python examples/mixin.py
    python examples/mixin.py 0.3

Trains three modules on 8x8 handwritten digits, smoothed by the eps given (0.1), and prints what it measures on
digits that they were not trained on. The gap is mean confidence minus accuracy: below 0 a network is underconfident.
"""

import sys

import lightning as L
import torch
from torch import Tensor, nn

import ls_lightning as ls
from ls_lightning.zoo import DigitsData

EPS = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1


class Theirs(L.LightningModule):
    """An existing module, on hard labels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        loss: Tensor = self.criterion(self.layers(x), y)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        self.criterion(self.layers(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Smoothed(ls.LabelSmoothingMixin, Theirs):
    """The same, smoothed: its checkpoints load in both classes."""

    smoothing = {"loss": "kl", "eps": EPS}


class Own(ls.LabelSmoothingMixin, L.LightningModule):
    """Calls the scheduled loss itself. In validation it is the plain loss of hard labels."""

    def __init__(self, eps: float = EPS) -> None:
        super().__init__()
        self.smoothing = {"loss": "ce", "eps": eps, "schedule": "cosine"}
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return self.smoothing_loss(self.layers(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        self.log("val/loss", self.smoothing_loss(self.layers(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


for kind in (Theirs, Smoothed, Own):
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=[ls.CalibrationMonitor()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(kind(), DigitsData())
    found = trainer.callback_metrics
    print(f"{kind.__name__:9} accuracy {found['val/acc']:.1%}  ECE {found['val/ece']:.1%}  gap {found['val/gap']:+.1%}")
