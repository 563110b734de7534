import pytest
import torch
from theirs import EPS, Suite, direct_binary

import ls_lightning as ls

data = pytest.importorskip("chemprop.data")
models = pytest.importorskip("chemprop.models")
nn = pytest.importorskip("chemprop.nn")
pytestmark = pytest.mark.third_party
MOLECULES = ["C" * n + tail for n in range(1, 9) for tail in ("O", "N", "c1ccccc1", "C(=O)O")]
UNKNOWN = float("nan")


def loaders(labels):
    """Molecules with their labels, nan for those that nobody measured."""
    points = [data.MoleculeDatapoint.from_smi(text, y=y.numpy()) for text, y in zip(MOLECULES, labels, strict=True)]
    parts = (data.MoleculeDataset(part) for part in (points[:20], points[20:]))
    return tuple(data.build_dataloader(part, batch_size=5, shuffle=False) for part in parts)


class Molecules(Suite):
    """The loss is a torchmetrics.Metric: unreduced losses of torch, weighted, masked and divided in ``update``."""

    def predictor(self):
        raise NotImplementedError

    def unreduced(self, logits, target):
        raise NotImplementedError

    def make(self):
        return models.MPNN(nn.BondMessagePassing(d_h=16), nn.MeanAggregation(), self.predictor())

    def hooked(self, module):
        return module.predictor.ffn

    def logits(self, step):
        return step.outputs[0]

    def target(self, step):
        return step.batch.Y

    def loss(self, step):
        known = step.batch.Y.isfinite()
        return self.unreduced(self.logits(step), self.target(step).nan_to_num(0))[known].sum() / known.sum()


class TestBinary(Molecules):
    """Two labels a molecule, F.binary_cross_entropy_with_logits."""

    smoothing = {"loss": "bce", "eps": EPS}

    def predictor(self):
        return nn.BinaryClassificationFFN(n_tasks=2, input_dim=16, hidden_dim=16)

    def labels(self):
        return torch.randint(2, (len(MOLECULES), 2), generator=torch.Generator().manual_seed(3)).double()

    def loaders(self):
        return loaders(self.labels())

    def unreduced(self, logits, target):
        return ls.functional.smoothed_binary_cross_entropy_with_logits(logits, target, EPS, reduction="none")

    def direct(self, logits, target):
        return direct_binary(logits, target)


class TestBinaryWithUnknownLabels(TestBinary):
    """The module calls its loss with 0 for an unknown label and masks later, so the metrics have to be told."""

    monitor = {
        "read": lambda module, batch, outputs: (
            module.predictor.train_step(module.fingerprint(*batch[:3])),
            batch.Y.nan_to_num(-100),
        )
    }

    def labels(self):
        labels = super().labels()
        labels[::3, 0] = UNKNOWN
        return labels

    def direct(self, logits, target):
        return direct_binary(logits, target.nan_to_num(-100))


class TestMulticlass(Molecules):
    """F.cross_entropy."""

    def predictor(self):
        return nn.MulticlassClassificationFFN(n_classes=3, n_tasks=1, input_dim=16, hidden_dim=16)

    def loaders(self):
        labels = torch.randint(3, (len(MOLECULES), 1), generator=torch.Generator().manual_seed(3))
        return loaders(labels.double())

    def logits(self, step):
        return super().logits(step).reshape(-1, 1, 3).transpose(1, 2)

    def unreduced(self, logits, target):
        return ls.functional.smoothed_cross_entropy(logits, target.long(), EPS, reduction="none")
