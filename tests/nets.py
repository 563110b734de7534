"""Small LightningModules as users write them, and a Trainer for tests."""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 5
CLOSE = {"rtol": 1e-6, "atol": 1e-7}  # eps is held in float32


def blobs(n=48, dtype=torch.float64, classes=CLASSES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, 6, generator=generator, dtype=dtype)
    x[torch.arange(n), y % 6] += 1.5
    return x, y


class Data(L.LightningDataModule):
    def __init__(self, n=48, batch_size=8, dtype=torch.float64, target=None):
        super().__init__()
        x, y = blobs(n, dtype)
        self.set = TensorDataset(x, y if target is None else target(y))
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.set, self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.set, self.batch_size)

    test_dataloader = val_dataloader


class Net(L.LightningModule):
    """A plain classifier; ``criterion`` is the author's."""

    def __init__(self, criterion=None, classes=CLASSES, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(6, classes, dtype=dtype)
        with torch.no_grad():
            for p in self.layer.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype))
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.seen = []

    def forward(self, x):
        return self.layer(x)

    def loss(self, batch):
        x, y = batch
        return self.criterion(self(x), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.seen.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("author_loss", self.loss(batch), batch_size=len(batch[1]))

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class LogProbNet(Net):
    def __init__(self, **kwargs):
        super().__init__(nn.NLLLoss(), **kwargs)

    def forward(self, x):
        return torch.log_softmax(self.layer(x), dim=1)


class Silent(Net):
    """Never calls the loss that it holds."""

    def loss(self, batch):
        return self(batch[0]).square().mean()


def trainer(tmp_path, *callbacks, **kwargs):
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": tmp_path,
    }
    return L.Trainer(callbacks=list(callbacks), **{**options, **kwargs})
