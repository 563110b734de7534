import pytest
import torch
from theirs import EPS, Suite, WeightsOnly, direct_binary
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning as ls

routines = pytest.importorskip("torch_uncertainty.routines")
methods = pytest.importorskip("torch_uncertainty.methods")
transforms = pytest.importorskip("torch_uncertainty.transforms")
pytestmark = pytest.mark.third_party


def network(outputs):
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def routine(model, num_classes, loss, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return routines.ClassificationRoutine(model, num_classes=num_classes, loss=loss, optim_recipe=optimizer, **kwargs)


def loaders(classes):
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(40, 6, generator=generator), torch.randint(classes, (40,), generator=generator)
    return DataLoader(TensorDataset(x[:24], y[:24]), 8), DataLoader(TensorDataset(x[24:], y[24:]), 8)


class TestClassificationRoutine(WeightsOnly, Suite):
    """Gets its loss as argument and calls none in validation, but its metrics call F.nll_loss there."""

    def make(self):
        return routine(network(4), 4, nn.CrossEntropyLoss())

    def loaders(self):
        return loaders(4)

    def hooked(self, module):
        return module.model

    def test_the_metrics_are_those_that_the_module_logs(self, run):
        theirs = {"acc": "val/cls/Acc", "nll": "val/cls/NLL", "brier": "val/cls/Brier", "ece": "val/cal/ECE"}
        for ours, key in theirs.items():
            assert run.logged[f"val/{ours}"].item() == pytest.approx(run.logged[key].item(), rel=1e-5), key


class TestEnsemble(TestClassificationRoutine):
    """Two networks: the loss is that of all their logits, the metrics those of their mean probability."""

    def make(self):
        model = methods.deep_ensembles([network(4), network(4)])
        return routine(model, 4, nn.CrossEntropyLoss(), is_ensemble=True, format_batch_fn=transforms.RepeatTarget(2))

    def target(self, step):
        return step.batch[1]

    def loss(self, step):
        return ls.functional.smoothed_cross_entropy(self.logits(step), self.target(step).repeat(2), EPS)

    def direct(self, logits, target):
        probs = torch.softmax(logits.double(), 1)
        of_batches = [batch.unflatten(0, (2, -1)).mean(0) for batch in probs.split(16)]
        return super().direct(torch.cat(of_batches).log(), target)


class TestBinary(WeightsOnly, Suite):
    """One logit; the routine asks for the class of its loss. Its metrics call F.nll_loss on two classes, which would
    count the Brier score twice: ours are told what to read.
    """

    smoothing = {"loss": "bce", "eps": EPS}
    monitor = {"read": lambda module, batch, outputs: (module(batch[0]).squeeze(-1), batch[1])}

    def make(self):
        return routine(network(1), 1, nn.BCEWithLogitsLoss())

    def loaders(self):
        return loaders(2)

    def hooked(self, module):
        return module.model

    def logits(self, step):
        return step.outputs[0].squeeze(-1)

    def loss(self, step):
        target = self.target(step).float()
        return ls.functional.smoothed_binary_cross_entropy_with_logits(self.logits(step), target, EPS)

    def direct(self, logits, target):
        return direct_binary(logits, target)


class TestBinaryByName(TestBinary):
    smoothing = {"loss": "bce", "eps": EPS, "target": "loss"}
