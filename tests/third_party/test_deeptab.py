"""Estimators like scikit-learn's, which hand further arguments of ``fit`` to the Trainer."""

import numpy as np
import pytest
import torch
from theirs import EPS, Suite, WeightsOnly

import ls_lightning as ls

models = pytest.importorskip("deeptab.models")
pytestmark = pytest.mark.third_party


class TestMLP(WeightsOnly, Suite):
    """``self.loss_fct`` is an nn.CrossEntropyLoss."""

    model = "MLPClassifier"
    options = {}

    def fit(self, callbacks):
        x, y = np.random.default_rng(3).normal(size=(96, 4)), np.arange(96) % 3
        getattr(models, self.model)().fit(
            x,
            y,
            max_epochs=1,
            batch_size=16,
            random_state=0,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            **self.options,
        )

    def hooked(self, module):
        return [*module.estimator.modules()][-1]  # the forward of the whole is called past its hooks


class TestClassWeights(TestMLP):
    """A loss class of its own around nn.CrossEntropyLoss."""

    options = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}

    def loss(self, step):
        weight = torch.tensor([1.0, 2.0, 0.5])
        return ls.functional.smoothed_cross_entropy(self.logits(step), self.target(step), EPS, weight=weight)


class TestTabM(TestMLP):
    """32 heads: the step sums their losses, and the metrics are told that their mean is the prediction."""

    model = "TabMClassifier"
    calls = 32
    monitor = {"read": lambda module, batch, outputs: (module(*batch[0]).mean(1), batch[1])}

    def logits(self, step):
        return step.outputs[0].mean(1)

    def loss(self, step):
        heads = step.outputs[0].unbind(1)
        return sum(ls.functional.smoothed_cross_entropy(logits, self.target(step), EPS) for logits in heads)
