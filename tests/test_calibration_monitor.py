import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from nets import Data, LogProbNet, Net, Silent, trainer
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import ls_lightning as ls

KEYS = ["acc", "nll", "brier", "ece", "mce", "gap", "overconfidence", "aurc"]


def expected(net, x, y, bins=15):
    with torch.no_grad():
        p = net.layer(x).softmax(1).double().numpy()
    y = y.numpy()
    conf, hit = p.max(1), p.argmax(1) == y
    index = np.ceil(conf * bins).astype(int) - 1
    gaps = [
        (np.mean(index == b), conf[index == b].mean() - hit[index == b].mean(), conf[index == b].mean())
        for b in range(bins)
        if (index == b).any()
    ]
    return {
        "acc": accuracy_score(y, p.argmax(1)),
        "nll": log_loss(y, p, labels=range(p.shape[1])),
        "brier": ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean(),
        "ece": sum(w * abs(g) for w, g, _ in gaps),
        "mce": max(abs(g) for _, g, _ in gaps),
        "gap": conf.mean() - hit.mean(),
        "overconfidence": sum(w * c * max(g, 0) for w, g, c in gaps),
        "aurc": np.mean(np.cumsum(~hit[np.argsort(-conf)]) / np.arange(1, len(y) + 1)),
        "n": len(y),
    }


@pytest.mark.parametrize("make", [Net, LogProbNet])
@pytest.mark.parametrize("batch_size", [8, 7, 48])
def test_values(tmp_path, make, batch_size):
    monitor = ls.CalibrationMonitor()
    data, net = Data(batch_size=batch_size), make()
    t = trainer(tmp_path, monitor)
    t.fit(net, datamodule=data)
    t.test(net, datamodule=data, verbose=False)
    for stage in ("val", "test"):
        wanted = expected(net, *data.set.tensors)
        assert monitor.results[stage].keys() == wanted.keys()
        for key, value in wanted.items():
            # aurc's sketch does not order samples whose odds agree in 16 bits.
            assert monitor.results[stage][key] == pytest.approx(value, abs=1e-3 if key == "aurc" else 1e-8)
        assert int(monitor.reliability[stage].counts.sum()) == 48
    assert {f"test/{key}" for key in KEYS} <= t.callback_metrics.keys()
    assert t.callback_metrics["test/ece"].item() == pytest.approx(wanted["ece"], abs=1e-6)


def test_same_bits_for_any_batch_size(tmp_path):
    results = []
    for batch_size in (1, 5, 48):
        monitor = ls.CalibrationMonitor()
        trainer(tmp_path, monitor).validate(Net(), datamodule=Data(batch_size=batch_size), verbose=False)
        results.append(monitor.results["val"])
    assert results[0] == results[1] == results[2]


def test_measures_while_training_is_smoothed(tmp_path):
    monitor, net = ls.CalibrationMonitor(), Net()
    trainer(tmp_path, ls.LabelSmoothing(eps=0.2), monitor, max_epochs=3).fit(net, datamodule=Data())
    assert monitor.results["val"]["nll"] == pytest.approx(expected(net, *Data().set.tensors)["nll"], abs=1e-8)


@pytest.mark.parametrize(("labels", "task_n"), [(1, 48), (5, 240)])
def test_binary_and_multilabel(tmp_path, labels, task_n):
    def target(y):
        hot = F.one_hot(y, 5).double()
        return hot[:, 0] if labels == 1 else hot

    class Binary(Net):
        def forward(self, x):
            return self.layer(x).squeeze(-1)

    monitor, net = ls.CalibrationMonitor(), Binary(nn.BCEWithLogitsLoss(), classes=labels)
    data = Data(target=target)
    trainer(tmp_path, monitor).validate(net, datamodule=data, verbose=False)
    x, y = data.set.tensors
    with torch.no_grad():
        p = torch.sigmoid(net(x)).flatten().numpy()
    y = y.flatten().numpy()
    values = monitor.results["val"]
    assert values["n"] == task_n
    assert values["acc"] == pytest.approx(accuracy_score(y, p > 0.5))
    assert values["nll"] == pytest.approx(log_loss(y, p), abs=1e-8)
    assert values["gap"] == pytest.approx(np.maximum(p, 1 - p).mean() - ((p > 0.5) == y).mean(), abs=1e-8)


def test_every_epoch_is_measured_and_logged_anew(tmp_path):
    class Each(L.Callback):
        def __init__(self):
            self.seen = []

        def on_validation_end(self, trainer, pl_module):
            logged = {key: trainer.callback_metrics[f"val/{key}"].item() for key in KEYS}
            x, y = trainer.datamodule.set.tensors
            self.seen.append((logged, dict(monitor.results["val"]), expected(pl_module, x, y)))

    monitor, each = ls.CalibrationMonitor(), Each()
    trainer(tmp_path, monitor, each, max_epochs=4).fit(Net(), datamodule=Data())
    assert len({logged["nll"] for logged, _, _ in each.seen}) == 4
    for logged, measured, wanted in each.seen:
        assert measured["nll"] == pytest.approx(wanted["nll"], abs=1e-8)
        assert measured["n"] == 48
        assert logged == {key: pytest.approx(measured[key], abs=1e-7) for key in KEYS}


def test_ignored_targets_are_not_counted(tmp_path):
    monitor, net = ls.CalibrationMonitor(), Net(nn.CrossEntropyLoss(ignore_index=2))
    trainer(tmp_path, monitor).validate(net, datamodule=Data(), verbose=False)
    x, y = Data().set.tensors
    wanted = expected(net, x[y != 2], y[y != 2])
    assert monitor.results["val"]["n"] == wanted["n"] < 48
    assert monitor.results["val"]["ece"] == pytest.approx(wanted["ece"], abs=1e-8)


def test_several_loaders(tmp_path):
    class Two(Data):
        def val_dataloader(self):
            return [DataLoader(Data(20).set, 8), DataLoader(Data(30).set, 8)]

    class Net2(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx):
            self.loss(batch)

    monitor = ls.CalibrationMonitor()
    t = trainer(tmp_path, monitor)
    t.validate(Net2(), datamodule=Two(), verbose=False)
    assert {name: values["n"] for name, values in monitor.results.items()} == {
        "val/dataloader_idx_0": 20,
        "val/dataloader_idx_1": 30,
    }
    assert "val/ece/dataloader_idx_1" in t.callback_metrics


def test_checkpoints_and_early_stopping_on_our_keys(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/ece", filename="{epoch}")
    stop = EarlyStopping("val/nll", patience=1)
    t = trainer(tmp_path, ls.CalibrationMonitor(), checkpoint, stop, enable_checkpointing=True)
    t.fit(Net(), datamodule=Data())
    assert checkpoint.best_model_score is not None
    assert torch.isfinite(stop.best_score)


def test_sanity_check_leaves_nothing(tmp_path):
    monitor = ls.CalibrationMonitor()
    t = trainer(tmp_path, monitor, num_sanity_val_steps=2, limit_train_batches=1, max_epochs=1, limit_val_batches=2)
    t.fit(Net(), datamodule=Data(batch_size=3))
    assert monitor.results["val"]["n"] == 6


def test_module_is_left_as_it_was_after_an_exception(tmp_path):
    class Breaks(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            raise RuntimeError("broken")

    net = Breaks()
    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, ls.CalibrationMonitor()).validate(net, datamodule=Data(), verbose=False)
    assert not net.criterion._forward_pre_hooks


def test_a_diverged_model_is_measured_as_nan_and_goes_on(tmp_path):
    class Diverged(Net):
        def forward(self, x):
            return super().forward(x) * torch.nan

    monitor = ls.CalibrationMonitor()
    with pytest.warns(UserWarning, match="cannot be measured"):
        trainer(tmp_path, monitor).validate(Diverged(), datamodule=Data(), verbose=False)
    assert np.isnan(monitor.results["val"]["ece"])


def test_errors(tmp_path):
    with pytest.raises(LookupError, match=r"no loss was called in Silent\.validation_step"):
        trainer(tmp_path, ls.CalibrationMonitor()).validate(Silent(), datamodule=Data(), verbose=False)

    class Two(Net):
        def __init__(self):
            super().__init__()
            self.auxiliary = nn.CrossEntropyLoss()

        def loss(self, batch):
            return super().loss(batch) + self.auxiliary(self(batch[0]), batch[1])

    with pytest.raises(LookupError, match="calls 2 losses"):
        trainer(tmp_path, ls.CalibrationMonitor()).validate(Two(), datamodule=Data(), verbose=False)
    for target in ("auxiliary", lambda call: call.position == 1):
        monitor = ls.CalibrationMonitor(target=target)
        trainer(tmp_path, monitor).validate(Two(), datamodule=Data(), verbose=False)
        assert monitor.results["val"]["n"] == 48
    with pytest.raises(ValueError, match="num_bins"):
        ls.CalibrationMonitor(num_bins=0)
    for metrics in ("full", ls.metrics.CalibrationError, ls.metrics.default_metrics(task="multiclass", num_classes=2)):
        with pytest.raises(TypeError, match="metrics must be a function of"):
            ls.CalibrationMonitor(metrics=metrics)


def test_own_set_of_metrics(tmp_path):
    from ls_lightning.metrics import full_metrics

    monitor = ls.CalibrationMonitor(metrics=full_metrics)
    trainer(tmp_path, monitor).validate(Net(), datamodule=Data(), verbose=False)
    values = monitor.results["val"]
    assert values["ece"] <= values["rmsce"] <= values["mce"]
    assert isinstance(monitor, L.Callback)


class Tokens(Net):
    """One decision a token, of sequences whose length changes from batch to batch; padding has weight 0."""

    padding = 0

    def validation_step(self, batch, batch_idx):
        x, y = batch
        length = 5 - batch_idx
        z, y = x[:, :1].expand(-1, length), (y[:, None] == 0).double().expand(-1, length)
        weight = torch.ones_like(z)
        weight[:, length - self.padding :] = 0
        return torch.nn.functional.binary_cross_entropy_with_logits(z, y, weight=weight)


@pytest.mark.parametrize("padding", [0, 1])
def test_tokens_of_any_number_and_labels_without_weight(tmp_path, padding):
    net = Tokens()
    net.padding = padding
    monitor = ls.CalibrationMonitor()
    data = Data(n=24, batch_size=8)
    trainer(tmp_path, monitor, ls.TemperatureScaling()).validate(net, datamodule=data)
    x, y = data.set.tensors
    counts = torch.tensor([5, 4, 3]).repeat_interleave(8) - padding
    p, a = x[:, 0].sigmoid().double(), (y == 0).double()
    assert monitor.results["val"]["n"] == counts.sum()
    right = ((p > 0.5).double() == a).double()
    assert monitor.results["val"]["acc"] == pytest.approx(((right * counts).sum() / counts.sum()).item(), abs=1e-12)
