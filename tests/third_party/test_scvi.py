"""Models of single cells."""

import numpy as np
import pytest
import torch
from theirs import Suite, WeightsOnly
from torch.testing import assert_close
from torch.utils.data import DataLoader

anndata = pytest.importorskip("anndata")
scvi = pytest.importorskip("scvi")
modules = pytest.importorskip("scvi.module")
plans = pytest.importorskip("scvi.train")
pytestmark = pytest.mark.third_party


def cells():
    cells = anndata.AnnData(np.random.default_rng(3).poisson(3.0, (80, 12)).astype(np.float32))
    cells.obs["kind"] = [f"kind {i % 3}" for i in range(80)]
    return cells


class TestScanvi(WeightsOnly, Suite):
    """A variational autoencoder that also classifies: F.cross_entropy is one term of its loss."""

    val_keys = {"validation_classification_loss", "validation_accuracy"}

    def fit(self, callbacks):
        scvi.settings.seed = 0
        data = cells()
        scvi.model.SCANVI.setup_anndata(data, labels_key="kind", unlabeled_category="unknown")
        model = scvi.model.SCANVI(data, n_hidden=8, n_latent=4)
        model.train(
            train_size=0.5,
            batch_size=16,
            max_epochs=2,
            check_val_every_n_epoch=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )

    def hooked(self, module):
        return module.module

    def terms(self, step):
        return step.outputs[0][2]

    def logits(self, step):
        return self.terms(step).logits.detach()

    def target(self, step):
        return self.terms(step).true_labels.view(-1).long()

    def returned(self, step):
        return self.terms(step).classification_loss.detach()

    def test_the_other_terms_of_the_loss_are_kept(self, run, tmp_path):
        ours, plain = run.train[0], self.record(tmp_path).train[0]
        assert_close(self.logits(ours), self.logits(plain), rtol=0, atol=0)
        more = 50 * (self.returned(ours) - self.returned(plain))
        assert_close(ours.result["loss"], plain.result["loss"] + more)
        assert more.abs() > 0.01


class TestClassifierTrainingPlan(WeightsOnly, Suite):
    """What SOLO trains: ``self.loss_fn`` is an instance of the class that the user gives."""

    def make(self):
        classifier = modules.Classifier(n_input=12, n_hidden=8, n_labels=3, logits=True)
        return plans.ClassifierTrainingPlan(classifier, lr=0.01)

    def loaders(self):
        batches = [{"X": x, "labels": torch.tensor([i % 3])} for i, x in enumerate(torch.tensor(cells().X))]
        return DataLoader(batches[:48], 16), DataLoader(batches[48:], 16)

    def hooked(self, module):
        return module.module

    def target(self, step):
        return step.batch["labels"].view(-1)
