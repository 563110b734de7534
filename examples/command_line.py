r"""The command line with a network and data of your own: losses, schedules, metrics and reports come with it.

    pip install 'ls-lightning[data,plot]'
    cd examples
    python -m ls_lightning.train model._target_=command_line.Net data._target_=command_line.Digits loss=kl eps=0.1
    python -m ls_lightning.train model._target_=command_line.Net data._target_=command_line.Digits loss=none \
        +model.width=32

The + adds an option that the defaults do not have. Each run prints what it measured and leaves a folder with its
configuration, metrics, checkpoint, reliability diagram and result.
"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Sequential):
    """Any nn.Module; ``num_classes`` is filled in from the data."""

    def __init__(self, num_classes: int, width: int = 128) -> None:
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))


class Digits(L.LightningDataModule):
    """Any LightningDataModule; ``num_classes`` tells the network how many outputs it needs."""

    num_classes = 10

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        pixels, labels = load_digits(return_X_y=True)
        digits = TensorDataset(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels))
        self.parts = random_split(digits, [0.6, 0.2, 0.2], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.parts[0], self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.parts[1], self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.parts[2], self.batch_size)
