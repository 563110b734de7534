"""Label smoothing for a LightningModule that stays as its author wrote it: two callbacks.

    pip install 'ls-lightning[data]'
    python examples/callback.py

Trains one network three times on 8x8 handwritten digits: on hard labels, on smoothed ones, and with an eps that
fades out over the run. Prints what it measures on digits that it was not trained on. The gap is mean confidence
minus accuracy: below 0 the network is underconfident.
"""

import lightning as L
import torch
from torch import Tensor, nn

import ls_lightning as ls
from ls_lightning.zoo import DigitsData


class Net(L.LightningModule):
    """Knows nothing of label smoothing."""

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
        self.log("val/loss", self.criterion(self.layers(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(title: str, *smoothing: ls.LabelSmoothing) -> None:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=[*smoothing, ls.CalibrationMonitor()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DigitsData())
    found = trainer.callback_metrics
    print(f"{title:12}  accuracy {found['val/acc']:.1%}  ECE {found['val/ece']:.1%}  gap {found['val/gap']:+.1%}")


train("hard labels")
train("eps 0.1", ls.LabelSmoothing(loss="kl", eps=0.1))
train("eps 0.1 to 0", ls.LabelSmoothing(loss="kl", eps=0.1, schedule="linear"))
