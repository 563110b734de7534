"""A framework in the namespace pytorch_lightning that makes the module and the Trainer itself."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from theirs import EPS, Suite, WeightsOnly

import ls_lightning as ls

pd = pytest.importorskip("pandas")
tabular = pytest.importorskip("pytorch_tabular")
config = pytest.importorskip("pytorch_tabular.config")
models = pytest.importorskip("pytorch_tabular.models")
pytestmark = pytest.mark.third_party


def table(rows):
    generator = np.random.default_rng(rows)
    return pd.DataFrame(
        {
            "length": generator.normal(size=rows),
            "width": generator.normal(size=rows),
            "place": generator.choice(["here", "there"], rows),
            "kind": np.arange(rows) % 3,
            "colour": np.arange(rows) % 4,
        }
    )


class TestOneTarget(WeightsOnly, Suite):
    """``self.loss`` is an nn.CrossEntropyLoss made from its name."""

    Trainer = pl.Trainer
    targets = ("kind",)
    classes = (3,)

    def fit(self, callbacks):
        model = tabular.TabularModel(
            data_config=config.DataConfig(
                target=[*self.targets], continuous_cols=["length", "width"], categorical_cols=["place"]
            ),
            model_config=models.CategoryEmbeddingModelConfig(task="classification", layers="16-8", learning_rate=0.01),
            optimizer_config=config.OptimizerConfig(),
            trainer_config=config.TrainerConfig(
                accelerator="cpu",
                batch_size=16,
                max_epochs=2,
                early_stopping=None,
                checkpoints=None,
                load_best=False,
                progress_bar="none",
                trainer_kwargs={"enable_model_summary": False, "num_sanity_val_steps": 0},
            ),
            suppress_lightning_logger=True,
            verbose=False,
        )
        model.fit(train=table(48), validation=table(40), callbacks=callbacks)

    def hooked(self, module):
        return module.head

    def heads(self, step):
        return torch.split(step.outputs[0], self.classes, dim=1)

    def logits(self, step):
        return self.heads(step)[0]

    def target(self, step):
        return step.batch["target"][:, 0]

    def loss(self, step):
        return sum(
            ls.functional.smoothed_cross_entropy(logits, target, EPS)
            for logits, target in zip(self.heads(step), step.batch["target"].T, strict=True)
        )


class TestTwoTargets(TestOneTarget):
    """The loss is called once per target; the metrics are those of the first."""

    targets = ("kind", "colour")
    classes = (3, 4)
    calls = 2
    monitor = {"target": lambda call: call.position == 0}


class TestFromTheEnvironment(TestOneTarget):
    """A script that names no callback."""

    environ = {"LS_EPS": str(EPS)}

    def callbacks(self):
        return []
