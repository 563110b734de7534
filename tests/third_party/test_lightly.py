import pytest
import pytorch_lightning as pl
import torch
from theirs import Suite, WeightsOnly
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

benchmarking = pytest.importorskip("lightly.utils.benchmarking")
pytestmark = pytest.mark.third_party


class TestLinearClassifier(WeightsOnly, Suite):
    """A frozen backbone and a linear head; one shared step for training and validation."""

    Trainer = pl.Trainer

    def make(self):
        backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1))
        return benchmarking.LinearClassifier(
            backbone, batch_size_per_device=8, feature_dim=8, num_classes=5, topk=(1, 2)
        )

    def loaders(self):
        generator = torch.Generator().manual_seed(3)
        x, y = torch.randn(40, 3, 8, 8, generator=generator), torch.randint(5, (40,), generator=generator)
        return DataLoader(TensorDataset(x[:24], y[:24]), 8), DataLoader(TensorDataset(x[24:], y[24:]), 8)

    def hooked(self, module):
        return module.classification_head
