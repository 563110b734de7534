import lightning as L
import pytest
import torch
from nets import Data, Net, trainer
from torch import nn
from torch.nn import functional as F

import ls_lightning as ls


class Mine(ls.LabelSmoothingMixin, Net):
    smoothing = {"loss": "ce", "eps": 0.2}


class Own(ls.LabelSmoothingMixin, Net):
    """Calls the scheduled loss itself; its other attribute is never called."""

    smoothing = {"loss": "ce", "eps": 0.2}

    def loss(self, batch):
        x, y = batch
        return self.smoothing_loss(self(x), y)


def fit(net, tmp_path, *callbacks, **kwargs):
    t = trainer(tmp_path, *callbacks, **kwargs)
    t.fit(net, datamodule=Data())
    return t


def judge(tmp_path, eps):
    net = Net(nn.CrossEntropyLoss(label_smoothing=eps))
    fit(net, tmp_path)
    return net.layer.weight


@pytest.mark.parametrize("cls", [Mine, Own])
def test_smooths(tmp_path, cls):
    net = cls()
    t = fit(net, tmp_path)
    torch.testing.assert_close(net.layer.weight, judge(tmp_path, 0.2), rtol=1e-6, atol=1e-7)
    x, y = Data().set.tensors
    plain = sum(F.cross_entropy(net(a), b) for a, b in zip(x.split(8), y.split(8), strict=True)) / 6
    torch.testing.assert_close(t.callback_metrics["author_loss"].double(), plain.detach(), rtol=1e-6, atol=0)
    assert "val/ece" in t.callback_metrics


@pytest.mark.parametrize("cls", [Mine, Own])
def test_a_callback_of_the_trainer_counts_and_nothing_smooths_twice(tmp_path, cls):
    net = cls()
    t = fit(net, tmp_path, ls.LabelSmoothing(eps=0.1), ls.CalibrationMonitor())
    assert sum(isinstance(callback, ls.LabelSmoothing) for callback in t.callbacks) == 1
    assert sum(isinstance(callback, ls.CalibrationMonitor) for callback in t.callbacks) == 1
    torch.testing.assert_close(net.layer.weight, judge(tmp_path, 0.1), rtol=1e-6, atol=1e-7)


def test_keeps_the_callbacks_of_the_class_above(tmp_path):
    class Extra(L.Callback):
        started = False

        def on_train_start(self, *args):
            self.started = True

    class Theirs(Net):
        def configure_callbacks(self):
            self.extra = Extra()
            return self.extra

    class Smoothed(ls.LabelSmoothingMixin, Theirs):
        pass

    net = Smoothed()
    fit(net, tmp_path)
    assert net.extra.started
    torch.testing.assert_close(net.layer.weight, judge(tmp_path, 0.1), rtol=1e-6, atol=1e-7)


def test_fit_twice_and_then_test(tmp_path):
    net = Mine()
    fit(net, tmp_path)
    t = fit(net, tmp_path)
    t.test(net, datamodule=Data(), verbose=False)
    assert "test/ece" in t.callback_metrics


def test_wrong_order_is_refused_at_class_definition():
    with pytest.raises(TypeError, match=r"class Wrong\(LabelSmoothingMixin, Net\)"):

        class Wrong(Net, ls.LabelSmoothingMixin):
            pass

    class Between(ls.LabelSmoothingMixin):
        pass

    class Fine(Between, Net):
        pass

    assert len(Fine().configure_callbacks()) == 2


def test_checkpoints_load_in_both_classes(tmp_path):
    class Theirs(Net):
        def __init__(self, width=3):
            super().__init__()
            self.save_hyperparameters()

    class Smoothed(ls.LabelSmoothingMixin, Theirs):
        smoothing = {"eps": 0.2}

    for source in (Theirs, Smoothed):
        t = fit(source(width=4), tmp_path, enable_checkpointing=True)
        path = t.checkpoint_callback.best_model_path
        for target in (Theirs, Smoothed):
            loaded = target.load_from_checkpoint(path, weights_only=False)
            assert dict(loaded.hparams) == {"width": 4}
            torch.testing.assert_close(loaded.layer.weight, t.model.layer.weight)


def test_binary(tmp_path):
    class Binary(ls.LabelSmoothingMixin, Net):
        smoothing = {"loss": "bce", "eps": 0.1}

        def loss(self, batch):
            x, y = batch
            return self.smoothing_loss(self(x), F.one_hot(y, 5).double())

    class Judge(Net):
        def loss(self, batch):
            x, y = batch
            target = F.one_hot(y, 5).double()
            return F.binary_cross_entropy_with_logits(self(x), 0.9 * target + 0.05 if self.training else target)

    ours, theirs = Binary(), Judge()
    fit(ours, tmp_path)
    fit(theirs, tmp_path)
    torch.testing.assert_close(ours.layer.weight, theirs.layer.weight, rtol=1e-6, atol=1e-7)


def test_smoothing_loss_without_a_trainer_is_plain():
    net = Own()
    x, y = Data().set.tensors
    torch.testing.assert_close(net.smoothing_loss(net(x), y), F.cross_entropy(net(x), y))
    assert net.state_dict().keys() == Net().state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Mine, Own])
def test_compiles(tmp_path, cls):
    class Quiet(cls):
        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            self.loss(batch)

        def test_step(self, batch, batch_idx):
            self.loss(batch)

    torch._dynamo.reset()
    net = Quiet()
    t = trainer(tmp_path, limit_val_batches=0)
    t.fit(torch.compile(net, backend="aot_eager"), datamodule=Data())
    torch.testing.assert_close(net.layer.weight, judge(tmp_path, 0.2), rtol=1e-6, atol=1e-7)
