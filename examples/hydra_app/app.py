"""A Hydra app of your own that takes losses, schedules, data and trainers from the config groups of ls_lightning.

    pip install 'ls-lightning[data]'
    python examples/hydra_app/app.py
    python examples/hydra_app/app.py loss=ce schedule=constant eps=0.2 lr=0.003

Prints what it measures on digits that it was not trained on. The gap is mean confidence minus accuracy: below 0 the
network is underconfident.
"""

import hydra
import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

import ls_lightning as ls


class Net(L.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
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
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


@hydra.main(config_path=".", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    L.seed_everything(0, verbose=False)
    smoothing = ls.LabelSmoothing(instantiate(cfg.loss), schedule=instantiate(cfg.schedule))
    trainer: L.Trainer = instantiate(cfg.trainer, callbacks=[smoothing, ls.CalibrationMonitor()])
    trainer.fit(Net(cfg.lr), instantiate(cfg.data))
    found = trainer.callback_metrics
    print(smoothing.schedule)
    print(f"accuracy {found['val/acc']:.1%}  ECE {found['val/ece']:.1%}  gap {found['val/gap']:+.1%}")


if __name__ == "__main__":
    main()
