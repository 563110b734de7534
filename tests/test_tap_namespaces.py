"""``lightning`` and ``pytorch_lightning`` are two packages with classes of the same names: both work."""

import pytest
import torch
from nets import CLOSE, Data, blobs
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import ls_lightning as ls
from ls_lightning.schedules import Linear

pl = pytest.importorskip("pytorch_lightning")


class Net(pl.LightningModule):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 5, dtype=torch.float64)
        self.criterion = nn.CrossEntropyLoss(**options)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("author_loss", loss, batch_size=len(batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Mine(ls.LabelSmoothingMixin, Net):
    smoothing = {"eps": 0.2, "schedule": "linear"}


def loader():
    return DataLoader(TensorDataset(*blobs()), 8)


def fit(net, tmp_path, *callbacks, train=None, ckpt_path=None, **kwargs):
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": tmp_path}
    t = pl.Trainer(callbacks=list(callbacks), **{**options, **kwargs})
    t.fit(net, loader() if train is None else train, loader(), ckpt_path=ckpt_path, weights_only=False)
    return t


def test_trains_as_torch_smooths(tmp_path):
    monitor, stop = ls.CalibrationMonitor(), pl.callbacks.EarlyStopping("val/nll", patience=5)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/ece", save_last=True)
    callbacks = ls.LabelSmoothing(eps=0.2), monitor, stop, checkpoint
    net, judge = Net(), Net(label_smoothing=0.2)
    t = fit(net, tmp_path, *callbacks, enable_checkpointing=True)
    fit(judge, tmp_path)
    torch.testing.assert_close(net.layer.weight, judge.layer.weight, **CLOSE)
    assert monitor.results["val"]["n"] == 48
    assert t.callback_metrics["val/nll"].item() == pytest.approx(t.callback_metrics["author_loss"].item())
    assert checkpoint.best_model_score is not None
    assert torch.isfinite(stop.best_score)
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert state["callbacks"]["LabelSmoothing"] == {"eps": 0.2, "steps": 12, "total_steps": None, "feedback": None}


def test_a_checkpoint_continues_the_schedule(tmp_path):
    whole = ls.LabelSmoothing(schedule=Linear(0.3, 0.0))
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    expected = fit(Net(), tmp_path, whole, checkpoint, enable_checkpointing=True)
    net, parts = Net(), ls.LabelSmoothing(schedule=Linear(0.3, 0.0))
    fit(net, tmp_path, parts, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert parts.eps == whole.eps > 0
    torch.testing.assert_close(net.layer.weight, expected.model.layer.weight)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_reaches_our_callbacks(tmp_path, error):
    class Breaks(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise error
            return super().training_step(batch, batch_idx)

    closed = []

    class Smoothing(ls.LabelSmoothing):
        def on_exception(self, *args):
            super().on_exception(*args)
            closed.append(args)

    with pytest.raises((error, SystemExit)):
        fit(Breaks(), tmp_path, Smoothing(), ls.CalibrationMonitor())
    ((trainer, _, _),) = closed
    assert not [name for name in vars(trainer.precision_plugin) if name.endswith("step_context")]


def test_the_horizon_that_nobody_knows(tmp_path):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield from Data().set

    callback = ls.LabelSmoothing(schedule="linear")
    with pytest.raises(ValueError, match="total_steps"):
        fit(Net(), tmp_path, callback, train=DataLoader(Endless(), 8), max_epochs=-1, max_time="00:00:01:00")
    changing = pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(ValueError, match="total_steps"):
        fit(Net(), tmp_path, callback, changing)


@pytest.mark.parametrize("several", [True, False])
def test_the_mixin(tmp_path, several):
    class Extra(pl.Callback):
        started = False

        def on_train_start(self, *args):
            self.started = True

    extra = Extra()

    class Theirs(Net):
        def configure_callbacks(self):
            return [extra] if several else extra

    class Smoothed(ls.LabelSmoothingMixin, Theirs):
        smoothing = {"eps": 0.2}

    net, judge = Smoothed(), Net(label_smoothing=0.2)
    t = fit(net, tmp_path)
    fit(judge, tmp_path)
    torch.testing.assert_close(net.layer.weight, judge.layer.weight, **CLOSE)
    assert extra.started
    assert "val/ece" in t.callback_metrics


def test_the_mixin_in_the_wrong_order_is_refused():
    with pytest.raises(TypeError, match=r"class Wrong\(LabelSmoothingMixin, Net\)"):

        class Wrong(Net, ls.LabelSmoothingMixin):
            pass
