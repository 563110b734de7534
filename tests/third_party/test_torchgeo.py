import pytest
import torch
from theirs import EPS, Suite, direct, direct_binary
from torch.utils.data import DataLoader

import ls_lightning as ls

trainers = pytest.importorskip("torchgeo.trainers")
pytestmark = pytest.mark.third_party
WEIGHT = torch.tensor([1.0, 2.0, 0.5])


def loaders(label, target):
    generator = torch.Generator().manual_seed(3)
    samples = [{"image": torch.randn(3, 32, 32, generator=generator), label: target(generator)} for _ in range(22)]
    return DataLoader(samples[:12], 4), DataLoader(samples[12:], 4)


class TestClassification(Suite):
    """``self.criterion`` is an nn.CrossEntropyLoss with class weights; the network is timm's."""

    def make(self):
        return trainers.ClassificationTask("resnet18", num_classes=3, class_weights=WEIGHT)

    def loaders(self):
        return loaders("label", lambda g: torch.randint(3, (), generator=g))

    def hooked(self, module):
        return module.model

    def target(self, step):
        return step.batch["label"]

    def loss(self, step):
        return ls.functional.smoothed_cross_entropy(self.logits(step), self.target(step), EPS, weight=WEIGHT)


class TestClassificationInBfloat16(TestClassification):
    def trainer(self, callbacks, **kwargs):
        return super().trainer(callbacks, precision="bf16-mixed", **kwargs)


class TestMultilabel(TestClassification):
    """nn.BCEWithLogitsLoss."""

    smoothing = {"loss": "bce", "eps": EPS}

    def make(self):
        return trainers.ClassificationTask("resnet18", task="multilabel", num_labels=4, loss="bce")

    def loaders(self):
        return loaders("label", lambda g: torch.randint(2, (4,), generator=g))

    def target(self, step):
        return step.batch["label"].float()

    def loss(self, step):
        return ls.functional.smoothed_binary_cross_entropy_with_logits(self.logits(step), self.target(step), EPS)

    def direct(self, logits, target):
        return direct_binary(logits, target)


class TestSegmentation(Suite):
    """One class a pixel; the loss has ``ignore_index=-1000`` where the user gives none."""

    ignore_index = None

    def make(self):
        return trainers.SemanticSegmentationTask("unet", "resnet18", num_classes=3, ignore_index=self.ignore_index)

    def loaders(self):
        return loaders("mask", lambda g: torch.randint(3, (32, 32), generator=g))

    def hooked(self, module):
        return module.model

    def target(self, step):
        return step.batch["mask"]

    def loss(self, step):
        ignored = -1000 if self.ignore_index is None else self.ignore_index
        return ls.functional.smoothed_cross_entropy(self.logits(step), self.target(step), EPS, ignore_index=ignored)

    def direct(self, logits, target):
        return direct(logits, target, ignore_index=self.ignore_index)


class TestSegmentationThatIgnoresAClass(TestSegmentation):
    ignore_index = 2


class TestBinarySegmentation(TestSegmentation):
    smoothing = {"loss": "bce", "eps": EPS}

    def make(self):
        return trainers.SemanticSegmentationTask("unet", "resnet18", task="binary", loss="bce")

    def loaders(self):
        return loaders("mask", lambda g: torch.randint(2, (32, 32), generator=g))

    def logits(self, step):
        return step.outputs[0].squeeze(1)

    def loss(self, step):
        target = self.target(step).float()
        return ls.functional.smoothed_binary_cross_entropy_with_logits(self.logits(step), target, EPS)

    def direct(self, logits, target):
        return direct_binary(logits, target)


def test_a_loss_without_cross_entropy_is_refused(tmp_path):
    class Jaccard(TestSegmentation):
        def make(self):
            return trainers.SemanticSegmentationTask("unet", "resnet18", num_classes=3, loss="jaccard")

    with pytest.raises(LookupError, match="nothing was smoothed"):
        Jaccard().record(tmp_path, ls.LabelSmoothing(eps=EPS))
