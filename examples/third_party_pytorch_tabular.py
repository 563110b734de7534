"""Label smoothing inside of another framework: PyTorch Tabular, which makes the module and the Trainer itself.

    pip install 'ls-lightning[data]' pytorch-tabular
    python examples/third_party_pytorch_tabular.py

Trains a TabularModel twice to tell malignant tumours from benign ones, on hard labels and on smoothed ones. All that it
takes is the argument callbacks of its own fit. Prints what it measures on patients that it was not trained on. The gap
is mean confidence minus accuracy: above 0 the network is overconfident. PyTorch Tabular leaves a folder .pt_tmp.

A script that takes no callbacks is smoothed by environment variables: LS_EPS=0.1 LS_LOSS=kl python their_script.py
"""

import tempfile

from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import ls_lightning as ls

patients = load_breast_cancer(as_frame=True).frame
training, validation = train_test_split(patients, test_size=0.8, random_state=0)


def train(title: str, *smoothing: ls.LabelSmoothing) -> None:
    calibration = ls.CalibrationMonitor()
    model = TabularModel(
        data_config=DataConfig(target=["target"], continuous_cols=[*patients.columns[:-1]]),
        model_config=CategoryEmbeddingModelConfig(task="classification", layers="128-64", learning_rate=0.01),
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(
            max_epochs=30,
            batch_size=32,
            accelerator="cpu",
            early_stopping=None,
            checkpoints=None,
            load_best=False,
            progress_bar="none",
            trainer_kwargs={"default_root_dir": tempfile.gettempdir(), "enable_model_summary": False},
        ),
        verbose=False,
        suppress_lightning_logger=True,
    )
    model.fit(train=training, validation=validation, callbacks=[*smoothing, calibration], seed=0)
    found = calibration.results["val"]
    print(f"{title:14} accuracy {found['acc']:.1%}   ECE {found['ece']:.1%}   gap {found['gap']:+.1%}")


train("hard labels")
train("eps 0.02", ls.LabelSmoothing(loss="kl", eps=0.02))
