"""Compiled modules: compiled as often as without us, and trained as when they are not compiled."""

import functools
import itertools
import shutil

import pytest
import torch
from nets import Data, Net, trainer
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import ls_lightning as ls
from ls_lightning.schedules import Linear


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Plain(Net):
    """Steps that dynamo can trace as a whole."""

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.loss(batch)


class ByF(Plain):
    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])


class ByImport(Plain):
    def loss(self, batch):
        return cross_entropy(self(batch[0]), batch[1])


class ByModule(Plain):
    pass


def compile_net(net, counter):
    return torch.compile(net, backend=counter)


def compile_steps(net, counter):
    net.training_step = torch.compile(net.training_step, backend=counter, fullgraph=True)
    net.validation_step = torch.compile(net.validation_step, backend=counter, fullgraph=True)
    return net


def compile_backbone(net, counter):
    net.layer = torch.compile(net.layer, backend=counter)
    return net


def compile_loss(net, counter):
    """One function for both stages."""
    net.loss = torch.compile(net.loss, backend=counter, fullgraph=True)
    return net


def run(tmp_path, net, compiled, *callbacks, backend="aot_eager", fits=1, data=None):
    """How often it was compiled, and how often dynamo gave up on a frame."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    counter = CompileCounterWithBackend(backend)
    net = compiled(net, counter)
    for _ in range(fits):
        trainer(tmp_path, *callbacks, max_epochs=3).fit(net, datamodule=data or Data())
    return counter.frame_count, sum(torch._dynamo.utils.counters["graph_break"].values())


def bare_step(net):
    batch = next(iter(Data().train_dataloader()))
    return net.training_step(batch, 0), F.cross_entropy(net(batch[0]), batch[1])


QUICK = [(ByF, compile_net), (ByImport, compile_steps), (ByModule, compile_loss)]
PAIRS = itertools.product([ByF, ByImport, ByModule], [compile_net, compile_steps, compile_backbone, compile_loss])


@pytest.mark.parametrize(
    ("cls", "compiled", "backend"),
    [
        pytest.param(*pair, "eager") if pair in QUICK else pytest.param(*pair, "aot_eager", marks=pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_compiled_as_often_as_without_us(tmp_path, cls, compiled, backend):
    data, net, eager = Data(52), cls(), cls()  # the last batch is smaller
    smoothing, monitor = ls.LabelSmoothing(schedule=Linear(0.3, 0.0)), ls.CalibrationMonitor()
    bare = run(tmp_path, cls(), compiled, backend=backend, fits=2, data=data)
    assert run(tmp_path, net, compiled, smoothing, monitor, backend=backend, fits=2, data=data) == bare
    assert bare[0] > 0
    for _ in range(2):
        trainer(tmp_path, ls.LabelSmoothing(schedule=Linear(0.3, 0.0)), max_epochs=3).fit(eager, datamodule=data)
    torch.testing.assert_close(weights(net), weights(eager))
    assert monitor.results["val"]["n"] == 52
    # What was compiled in a step knows nothing of us outside of it.
    torch.testing.assert_close(*bare_step(net))


class Heads(Plain):
    def loss(self, batch):
        logits = self(batch[0])
        return self.criterion(logits, batch[1]) + F.cross_entropy(2 * logits, batch[1])


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 2.0

    def forward(self, prediction, label):
        return -prediction.log_softmax(1).gather(1, label.unsqueeze(1)).mean()


class ByOwn(Plain):
    def __init__(self):
        super().__init__(Own())

    def loss(self, batch):
        return self.criterion.scale * self.criterion(self(batch[0]), label=batch[1])


class ByMethod(Plain):
    def loss(self, batch):
        return self.own(self(batch[0]), batch[1])

    def own(self, logits, label):
        return self.scale * -logits.log_softmax(1).gather(1, label.unsqueeze(1)).mean()

    scale = 0.5


class Binary(Plain):
    def loss(self, batch):
        return F.binary_cross_entropy(torch.sigmoid(self(batch[0])), F.one_hot(batch[1], 5).double())


class BinaryLogits(Plain):
    def loss(self, batch):
        return F.binary_cross_entropy_with_logits(self(batch[0]), F.one_hot(batch[1], 5).double())


class LogProbs(Plain):
    def loss(self, batch):
        return F.nll_loss(self(batch[0]).log_softmax(1), batch[1])


class Fused(Plain):
    def loss(self, batch):
        return F.linear_cross_entropy(batch[0], self.layer.weight, batch[1], linear_bias=self.layer.bias)


def with_function(logits, target, eps):
    return F.cross_entropy(logits, target) * (1 - eps) + eps * -logits.log_softmax(1).mean()


@pytest.mark.parametrize(
    ("cls", "target", "loss"),
    [
        (Heads, lambda call: call.position == 1, "ce"),
        (Heads, "criterion", "kl"),
        (ByOwn, "criterion", "ce"),
        (ByMethod, "own", "ce"),
        (LogProbs, "auto", "ce"),
        (Binary, "auto", "bce"),
        (BinaryLogits, "auto", "bce"),
        pytest.param(Fused, "auto", "ce", marks=pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="")),
        (ByF, "auto", with_function),
    ],
)
def test_compiled_trains_as_not_compiled(tmp_path, cls, target, loss):
    def callbacks():
        smoothing = ls.LabelSmoothing(loss, schedule=Linear(0.3, 0.0), target=target)
        return smoothing, ls.CalibrationMonitor(target=target)

    net, eager = cls(), cls()
    ours, eager_ours = callbacks(), callbacks()
    counts = run(tmp_path, net, compile_steps, *ours, backend="eager")
    trainer(tmp_path, *eager_ours, max_epochs=3).fit(eager, datamodule=Data())
    torch.testing.assert_close(weights(net), weights(eager))
    assert ours[1].results["val"] == pytest.approx(eager_ours[1].results["val"])
    assert counts == run(tmp_path, cls(), compile_steps, backend="eager")


class ByPartial(Plain):
    def __init__(self):
        super().__init__()
        self.function = functools.partial(F.cross_entropy, reduction="mean")

    def loss(self, batch):
        return self.function(self(batch[0]), batch[1])


@pytest.mark.parametrize("compiled", [compile_net, compile_steps])
@pytest.mark.parametrize("callback", [ls.LabelSmoothing, ls.CalibrationMonitor])
def test_what_cannot_be_seen_in_compiled_code_is_refused(tmp_path, compiled, callback):
    net = ByPartial()
    before = weights(net).clone()
    with pytest.raises(RuntimeError, match="compiled code calls cross_entropy through a partial"):
        run(tmp_path, net, compiled, callback(), data=Data(8))
    if callback is ls.LabelSmoothing:
        assert torch.equal(weights(net), before)


def test_a_compiled_loss_that_smooths_is_refused(tmp_path):
    class Smooths(Plain):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=0.1)

    with pytest.raises(Exception, match="already smooths"):
        run(tmp_path, Smooths(), compile_steps, ls.LabelSmoothing())


def test_a_compiled_loss_called_often_is_compiled_once(tmp_path):
    class Often(Plain):
        def loss(self, batch):
            logits = self(batch[0])
            return sum(self.one(logits * factor, batch[1]) for factor in range(1, 12)) / 11

        def one(self, logits, y):
            return self.criterion(logits, y)

    def compile_one(net, counter):
        net.one = torch.compile(net.one, backend=counter, fullgraph=True)
        return net

    net, eager = Often(), Often()
    assert run(tmp_path, net, compile_one, ls.LabelSmoothing(eps=0.2)) == run(tmp_path, Often(), compile_one)
    trainer(tmp_path, ls.LabelSmoothing(eps=0.2), max_epochs=3).fit(eager, datamodule=Data())
    torch.testing.assert_close(weights(net), weights(eager))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("loss", ["ce", "kl", "soft_ce", "bce"])
def test_inductor(tmp_path, loss):
    cls = BinaryLogits if loss == "bce" else ByF

    def callbacks():
        return ls.LabelSmoothing(loss, schedule=Linear(0.3, 0.0)), ls.CalibrationMonitor()

    net, eager, ours, theirs = cls(), cls(), callbacks(), callbacks()
    assert run(tmp_path, net, compile_steps, *ours, backend="inductor") == (2, 0)
    trainer(tmp_path, *theirs, max_epochs=3).fit(eager, datamodule=Data())
    torch.testing.assert_close(weights(net), weights(eager))
    assert ours[1].results["val"] == pytest.approx(theirs[1].results["val"])


def test_compiled_in_mixed_precision(tmp_path):
    class Half(ByF):
        def __init__(self):
            super().__init__(dtype=torch.float32)

    data, net, eager = Data(dtype=torch.float32), Half(), Half()
    options = {"precision": "bf16-mixed", "max_epochs": 3}
    torch._dynamo.reset()
    for module, wrapped in ((net, torch.compile(net, backend="aot_eager")), (eager, eager)):
        smoothing, monitor = ls.LabelSmoothing(schedule=Linear(0.3, 0.0)), ls.CalibrationMonitor()
        trainer(tmp_path, smoothing, monitor, **options).fit(wrapped, datamodule=data)
        assert monitor.results["val"]["n"] == 48
        assert module.layer.weight.dtype == torch.float32
    torch.testing.assert_close(weights(net), weights(eager), rtol=1e-2, atol=1e-2)
