"""``train/acc`` is the accuracy of each mini-batch as the module computed it."""

import csv
import math

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from no_sync import NoSync
from sklearn.metrics import accuracy_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.train_loss import TrainLoss, count_hits
from ls_lightning.loggers import CSVHistory

ROWS, BATCH, CLASSES = 60, 10, 4


class Net(L.LightningModule):
    """Keeps what it predicted."""

    outputs = CLASSES

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(6, self.outputs), nn.Dropout(0.3))
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.layer(x)
        self.seen.append((logits.detach().argmax(1).tolist(), y.tolist()))
        return F.cross_entropy(logits, y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Binary(Net):
    outputs = 1

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.layer(x).squeeze(1)
        self.seen.append(((logits.detach() > 0).long().tolist(), (y % 2).tolist()))
        return F.binary_cross_entropy_with_logits(logits, (y % 2).float())


class Soft(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.layer(x)
        self.seen.append((logits.detach().argmax(1).tolist(), y.tolist()))
        return F.cross_entropy(logits, 0.8 * F.one_hot(y, CLASSES) + 0.05)


def fit(folder, module, *callbacks, loss="ce", logger=None, **options):
    L.seed_everything(0, verbose=False)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(ROWS, 6, generator=generator), torch.randint(CLASSES, (ROWS,), generator=generator)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=CSVHistory(folder) if logger is None else logger,
        callbacks=[*(callbacks or [TrainLoss()]), LabelSmoothing(loss, eps=0.1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"log_every_n_steps": 1, **options},
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=BATCH))
    return module


def column(path, key="train/acc"):
    with path.open() as file:
        return {int(row["step"]): float(row[key]) for row in csv.DictReader(file) if row.get(key)}


@pytest.mark.parametrize("net", [Net, Binary, Soft])
@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.filterwarnings("ignore:The targets are smooth already")
def test_every_step_against_sklearn(tmp_path, net, batches):
    module = fit(tmp_path, net(), loss="bce" if net is Binary else "ce", accumulate_grad_batches=batches)
    found = column(tmp_path / "metrics.csv")
    steps = [module.seen[k : k + batches] for k in range(0, len(module.seen), batches)]
    pairs = [[np.concatenate(lists) for lists in zip(*step, strict=True)] for step in steps]
    wanted = {k: accuracy_score(true, predicted) for k, (predicted, true) in enumerate(pairs)}
    assert found == pytest.approx(wanted, abs=1e-7)
    assert len(set(found.values())) > 2
    assert found.keys() == column(tmp_path / "metrics.csv", "train/loss").keys()


def test_it_is_counted_only_where_it_is_logged(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "ls_lightning.callbacks.train_loss.count_hits", lambda *args: counted.append(1) or count_hits(*args)
    )
    fit(tmp_path / "some", Net(), log_every_n_steps=4)
    assert len(column(tmp_path / "some" / "metrics.csv")) == len(counted) == 3
    fit(tmp_path / "none", Net(), logger=False)
    assert len(counted) == 3


def test_off_there_is_no_column(tmp_path):
    callback = TrainLoss(accuracy=False)
    module = fit(tmp_path, Net(), callback)
    assert column(tmp_path / "metrics.csv") == {}
    assert len(column(tmp_path / "metrics.csv", "train/loss")) == len(module.seen)


def test_the_loss_is_what_it_was_and_other_loggers_get_both(tmp_path):
    with_it = fit(tmp_path / "with", Net())
    without = fit(tmp_path / "without", Net(), TrainLoss(accuracy=False))
    torch.testing.assert_close(with_it.state_dict(), without.state_dict(), rtol=0, atol=0)
    losses = [column(tmp_path / name / "metrics.csv", "train/loss") for name in ("with", "without")]
    assert losses[0] == losses[1]
    logger = CSVLogger(tmp_path, name="theirs", version="")
    fit(tmp_path / "x", Net(), logger=logger)
    theirs = column(tmp_path / "theirs" / "metrics.csv")
    assert theirs == pytest.approx(column(tmp_path / "with" / "metrics.csv"), abs=1e-6)


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 4, 5)])
def test_hits_of_classes(shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(3, (shape[0], *shape[2:]), generator=generator)
    target[::3] = -1
    hits, counted = count_hits(logits, target, {"task": "multiclass", "ignore_index": -1}).tolist()
    kept = target.numpy() != -1
    assert counted == kept.sum()
    assert hits == (np.argmax(logits.numpy(), 1) == target.numpy())[kept].sum()


def test_hits_of_probabilities_and_missing_labels():
    p, y = torch.tensor([[0.9, 0.2], [0.6, 0.7]]), torch.tensor([[1.0, 1.0], [0.0, -100.0]])
    assert count_hits(p, y, {"task": "multilabel", "input": "probs"}).tolist() == [1, 3]
    assert count_hits(p - 0.5, y, {"task": "multilabel"}).tolist() == [1, 3]


def test_nothing_counted_is_no_number():
    hits, counted = count_hits(torch.zeros(2, 3), torch.tensor([-100, -100]), {"task": "multiclass"})
    assert math.isnan(hits / counted)


@pytest.mark.parametrize(
    ("logits", "target"), [(torch.zeros(4), torch.zeros(4, 1)), (torch.zeros(4, 3), torch.zeros(4, 1))]
)
def test_a_loss_of_no_classes_has_no_accuracy(logits, target):
    assert count_hits(logits, target, {"task": "multiclass"}) is None


def test_the_host_does_not_wait():
    with NoSync():
        count_hits(torch.randn(4, 3), torch.tensor([0, 1, 2, -100]), {"task": "multiclass"})
        count_hits(torch.randn(4), torch.tensor([0.0, 1, 1, -100]), {"task": "binary"})
