"""The demo that Lightning ships, in both of its namespaces."""

import importlib

import pytest
import torch
from theirs import EPS, Training
from torch.utils.data import DataLoader

import ls_lightning as ls

pytestmark = pytest.mark.third_party
WORDS = 23


class TestTransformer(Training):
    """F.nll_loss on the log_softmax of every word; no validation."""

    namespace = "lightning.pytorch"

    @property
    def Trainer(self):  # noqa: N802
        return importlib.import_module(self.namespace).Trainer

    def make(self):
        demo = importlib.import_module(f"{self.namespace}.demos.transformer")
        module = demo.LightningTransformer(vocab_size=WORDS)
        module.prepare_data = lambda: None  # it downloads a text
        return module

    def loaders(self):
        texts = torch.randint(WORDS, (9, 2, 35), generator=torch.Generator().manual_seed(3))
        return (DataLoader([tuple(text) for text in texts], batch_size=3),)

    def hooked(self, module):
        return module.model.decoder

    def target(self, step):
        return step.batch[1].view(-1)

    def logits(self, step):
        return step.outputs[0].view(-1, WORDS)

    def loss(self, step):
        log_probs = torch.log_softmax(self.logits(step), dim=1)
        return ls.functional.smoothed_cross_entropy(log_probs, self.target(step), EPS, input="log_probs")

    def load(self, path, module):
        return type(module).load_from_checkpoint(path, vocab_size=WORDS)


class TestTransformerOfPytorchLightning(TestTransformer):
    namespace = "pytorch_lightning"
