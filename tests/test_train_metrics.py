"""``CalibrationMonitor(train=True)``: the batches of an epoch, as they were when each was trained on."""

import csv
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import lightning as L
import pytest
import torch
from cli import QUICK, run_here
from nets import CLASSES, Data, LogProbNet, Net, Silent, trainer
from no_sync import NoSync
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchmetrics import MetricCollection
from trained import Recorder, judged

import ls_lightning as ls
from ls_lightning.callbacks.train_outputs import TrainOutputs
from ls_lightning.losses import SmoothedCrossEntropy, SmoothedKLDiv
from ls_lightning.metrics import (
    Accuracy,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    NegativeLogLikelihood,
    full_metrics,
)
from ls_lightning.metrics.base import SumMetric

EXACT = {"rel": 1e-6, "abs": 1e-6}  # torchmetrics adds up in float32


class LogProbs(Recorder, LogProbNet):
    pass


class Mixed(ls.LabelSmoothingMixin, Recorder):
    smoothing = {"loss": "kl", "eps": 0.2}

    def loss(self, batch):
        logits = self(batch[0])
        if self.trainer.training:
            self.keep(logits, batch[1])
        return self.smoothing_loss(logits, batch[1])


def agrees(monitor, batches, tolerance=EXACT):
    found, wanted = monitor.results["train"], judged(batches)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, **tolerance)
    assert int(monitor.reliability["train"].counts.sum()) == wanted["n"]


def fit(tmp_path, net, *callbacks, data=None, monitor=None, **options):
    monitor = monitor or ls.CalibrationMonitor(train=True)
    t = trainer(tmp_path, *callbacks, monitor, **options)
    t.fit(net, datamodule=data or Data())
    return monitor, t


class Epochs(L.Callback):
    """What the monitor beside it has found and logged at the end of each epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        monitor = next(c for c in trainer.callbacks if isinstance(c, ls.CalibrationMonitor))
        self.found = [*getattr(self, "found", []), dict(monitor.results["train"])]

    def on_train_end(self, trainer, pl_module):
        self.logged = {key: value.item() for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("make", [Recorder, LogProbs])
def test_each_epoch_as_it_was_trained(tmp_path, make, smoothed):
    net, monitor, epochs = make(), ls.CalibrationMonitor(train=True), Epochs()
    smoothing = [ls.LabelSmoothing(eps=0.3)] if smoothed else []
    t = trainer(tmp_path, *smoothing, monitor, epochs, max_epochs=3, accumulate_grad_batches=2)
    t.fit(net, datamodule=Data(52))  # the last batch is smaller
    for found, batches in zip(epochs.found, net.epochs, strict=True):
        assert found["n"] == 52
        assert found["nll"] == pytest.approx(judged(batches)["nll"], abs=1e-8)
    agrees(monitor, net.batches)
    assert len({found["nll"] for found in epochs.found}) == 3
    values = {f"train/{key}": value for key, value in monitor.results["train"].items() if key != "n"}
    assert {"train/overconfidence", "train/aurc"} <= values.keys()
    assert {key: epochs.logged[key] for key in values} == pytest.approx(values, abs=1e-6)
    t.fit_loop.max_epochs = 4  # another fit goes on
    t.fit(net, datamodule=Data(52))
    agrees(monitor, net.batches)


def test_by_the_mixin(tmp_path):
    net = Mixed()
    agrees(fit(tmp_path, net)[0], net.batches)


def test_off_nothing_is_measured_and_no_hook_is_called(tmp_path):
    monitor, t = fit(tmp_path, Recorder(), monitor=ls.CalibrationMonitor())
    assert monitor.results.keys() == {"val"}
    assert monitor.on_train_batch_end is None
    assert not any(key.startswith("train/") for key in t.callback_metrics)


def test_validation_amid_an_epoch(tmp_path):
    class Twice(Recorder):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

        def on_validation_end(self):
            self.validated = [*getattr(self, "validated", []), dict(self.monitor.results["val"])]

    net, monitor = Twice(), ls.CalibrationMonitor(train=True)
    net.monitor = monitor
    fit(tmp_path, net, monitor=monitor, val_check_interval=2, limit_train_batches=4)
    agrees(monitor, net.batches)
    assert [found["n"] for found in net.validated] == [48] * 4
    assert monitor.results["train"]["n"] == 32
    logits = net(Data().set.tensors[0]).detach()
    wanted = F.cross_entropy(logits, Data().set.tensors[1]).item()
    assert monitor.results["val"]["nll"] == pytest.approx(wanted, abs=1e-8)


def refuse(metric, logits, target):
    raise AssertionError("the logits were read again")


@pytest.mark.parametrize(("loss", "classes"), [("ce", CLASSES), ("kl", 300)])
@pytest.mark.parametrize("positions", [(), (2, 3)])
def test_what_the_smoothing_loss_leaves_stands_in_for_the_logits(tmp_path, monkeypatch, loss, classes, positions):
    class Dense(Recorder):
        def training_step(self, batch, batch_idx):
            x, y = batch
            z, y = self.layer(x).view(len(x), -1, *[1] * len(positions)), y.view(-1, *[1] * len(positions))
            z, y = z.repeat(1, 1, *positions), y.repeat(1, *positions)
            self.keep(z.flatten(2).movedim(1, -1).flatten(0, 1) if positions else z, y.flatten())
            if batch_idx == 2:
                return None
            return F.cross_entropy(z, y)

    monkeypatch.setattr(SumMetric, "update", refuse)
    net = Dense(classes=classes, dtype=torch.float32)
    data = Data(52, dtype=torch.float32)
    monitor, _ = fit(tmp_path, net, ls.LabelSmoothing(loss, eps=0.3), data=data, limit_val_batches=0)
    del net.batches[2]
    agrees(monitor, net.batches)


def apart(**options):
    """Metrics of which none knows of the others."""
    found = {"acc": Accuracy, "nll": NegativeLogLikelihood, "brier": BrierScore, "ece": CalibrationError}
    rest = {"mce": CalibrationError(norm="max", **options), "gap": CalibrationGap(**options)}
    return MetricCollection({**{name: cls(**options) for name, cls in found.items()}, **rest})


@pytest.mark.parametrize("metrics", [None, full_metrics, apart])
def test_statistics_and_logits_in_one_epoch(tmp_path, metrics):
    class Either(Recorder):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.keep(logits, batch[1])
            options = {"label_smoothing": 0.0} if batch_idx % 2 else {"weight": torch.ones(CLASSES)}
            return F.cross_entropy(logits, batch[1], **options)

    net, monitor = Either(dtype=torch.float32), ls.CalibrationMonitor(train=True, metrics=metrics)
    data = Data(dtype=torch.float32)
    fit(tmp_path, net, ls.LabelSmoothing(eps=0.3), monitor=monitor, data=data, limit_val_batches=0)
    agrees(monitor, net.batches)


LEAVING = {
    "ce": "ce",
    "kl": "kl",
    "a module": SmoothedCrossEntropy(weight=[1.0, 2.0, 3.0, 1.0, 1.0], reduction="sum"),
    "KL": SmoothedKLDiv(consume_logits=True),
}
OTHERS = {
    "other labels are ignored": SmoothedCrossEntropy(ignore_index=1),
    "focal": "focal",
    "a function": lambda logits, target, eps: F.cross_entropy(logits, target),
}


@pytest.mark.parametrize("name", [*LEAVING, *OTHERS])
def test_which_losses_leave_statistics(tmp_path, monkeypatch, name):
    places = []
    own = TrainOutputs.place
    monkeypatch.setattr(TrainOutputs, "place", lambda *args: places.append(own(*args)) or places[-1])
    net, monitor = Recorder(dtype=torch.float32), ls.CalibrationMonitor(train=True)
    smoothing = ls.LabelSmoothing({**LEAVING, **OTHERS}[name])
    fit(tmp_path, net, smoothing, monitor=monitor, data=Data(dtype=torch.float32), limit_val_batches=0)
    assert [place is not None for place in places] == [True] * (12 if name in LEAVING else 0)
    agrees(monitor, net.batches)


@pytest.mark.parametrize("skipped", [lambda k: k % 3 == 1, lambda k: k == 0])
def test_a_step_that_returns_none_is_not_measured(tmp_path, skipped):
    class Skips(Recorder):
        def training_step(self, batch, batch_idx):
            x, y = batch
            if skipped(batch_idx):
                self.criterion(self(x) * torch.nan, y)
                return None
            return super().training_step(batch, batch_idx)

    net = Skips()
    agrees(fit(tmp_path, net)[0], net.batches)


class Manual(Recorder):
    """Two losses, each stepped on by itself, the other one last."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(6, 2, dtype=torch.float64)

    def training_step(self, batch, batch_idx):
        for loss in (lambda: self.loss(batch), lambda: F.cross_entropy(self.other(batch[0]), batch[1] % 2)):
            self.optimizers().zero_grad()
            self.manual_backward(loss())
            self.optimizers().step()


def test_several_losses_of_a_manual_step(tmp_path):
    with pytest.raises(LookupError, match=r"Manual.training_step calls 2 losses .*target="):
        fit(tmp_path, Manual())
    with pytest.warns(UserWarning, match="CalibrationMonitor measures nothing: Manual.training_step calls 2 losses"):
        monitor, _ = fit(tmp_path, Manual(), monitor=ls.CalibrationMonitor(train=True, strict=False))
    assert monitor.results.keys() == {"val"}
    for target in ("criterion", lambda call: call.logits.shape[1] == CLASSES):
        net = Manual()
        agrees(
            fit(tmp_path, net, ls.LabelSmoothing(), monitor=ls.CalibrationMonitor(train=True, target=target))[0],
            net.batches,
        )


class Later(Recorder):
    """Calls its loss otherwise from the fourth batch on."""

    how = "twice"

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.keep(logits, batch[1])
        if batch_idx < 3:
            return F.cross_entropy(logits, batch[1])
        if self.how == "twice":
            return F.cross_entropy(logits, batch[1]) + F.cross_entropy(logits, batch[1])
        if self.how == "logged":
            F.cross_entropy(logits.detach(), batch[1])
            return F.cross_entropy(logits, batch[1])
        if self.how == "checkpointed":
            return checkpoint(lambda x: F.cross_entropy(x, batch[1]), logits, use_reentrant=False)
        options = {"options": {"reduction": "sum"}, "float64": {}}[self.how]
        return F.cross_entropy(logits.double() if self.how == "float64" else logits, batch[1], **options)


@pytest.mark.parametrize("how", ["logged", "options", "float64"])
def test_later_calls_are_not_what_the_first_were(tmp_path, how):
    net, smoothing = Later(dtype=torch.float32), ls.LabelSmoothing(eps=0.2)
    net.how = how
    monitor, _ = fit(tmp_path, net, smoothing, data=Data(dtype=torch.float32), limit_val_batches=0)
    agrees(monitor, net.batches)
    assert smoothing.num_smoothed == 1


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("twice", LookupError, r"Later.training_step calls 2 losses \(cross_entropy on \(8, 5\), cross_entropy"),
        ("checkpointed", RuntimeError, "cross_entropy is called inside of activation checkpointing"),
    ],
)
def test_later_calls_that_do_not_fit(tmp_path, how, error, says):
    net = Later(dtype=torch.float32)
    net.how = how
    with pytest.raises(error, match=says):
        fit(tmp_path, net, ls.LabelSmoothing(), data=Data(dtype=torch.float32), limit_val_batches=0)


def test_a_second_fit_of_another_network(tmp_path):
    monitor, smoothing = ls.CalibrationMonitor(train=True), ls.LabelSmoothing()
    for classes in (CLASSES, CLASSES, 7):
        net = Recorder(dtype=torch.float32, classes=classes)
        fit(tmp_path, net, smoothing, data=Data(dtype=torch.float32), monitor=monitor, limit_val_batches=0)
        agrees(monitor, net.batches)


class Own(nn.Module):
    """Of one's own class."""

    def forward(self, prediction, label):
        return -prediction.log_softmax(1).gather(1, label.unsqueeze(1)).mean()


class Criterion(Recorder):
    def __init__(self):
        super().__init__(Own())

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.keep(logits, batch[1])
        return self.cost(logits, batch[1]) if self.by == "cost" else self.criterion(logits, label=batch[1])

    def cost(self, prediction, label):
        return -prediction.log_softmax(1).gather(1, label.unsqueeze(1)).mean()


@pytest.mark.parametrize("target", ["auto", "same"])
@pytest.mark.parametrize("path", ["criterion", "cost"])
def test_a_path_that_is_smoothed(tmp_path, path, target):
    net, smoothing = Criterion(), ls.LabelSmoothing(target=path, eps=0.3)
    net.by = path
    monitor = ls.CalibrationMonitor(train=True, target=path if target == "same" else "auto")
    agrees(fit(tmp_path, net, smoothing, monitor=monitor, limit_val_batches=0)[0], net.batches)
    assert smoothing.num_smoothed == 1
    assert not vars(net.criterion).get("forward")
    assert "cost" not in vars(net)


def test_a_batch_counts_once_however_often_its_closure_runs(tmp_path):
    class Closures(Recorder):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

        def on_train_batch_start(self, batch, batch_idx):
            self.is_first = True

        def keep(self, logits, y):
            if self.is_first:
                super().keep(logits, y)
            self.is_first = False

    net = Closures()
    agrees(fit(tmp_path, net)[0], net.batches)


@pytest.mark.parametrize("smoothing", [None, SmoothedCrossEntropy(eps=0.1, consume_logits=True)])
def test_logits_that_are_overwritten_later(tmp_path, smoothing):
    class Overwrites(Recorder):
        def training_step(self, batch, batch_idx):
            self.logits = self(batch[0]) * 1
            self.keep(self.logits, batch[1])
            loss = F.cross_entropy(self.logits, batch[1])
            if smoothing is None:
                with torch.no_grad():
                    self.logits.zero_()
            return loss

    net = Overwrites(dtype=torch.float32)
    callbacks = [] if smoothing is None else [ls.LabelSmoothing(loss=smoothing)]
    data = Data(dtype=torch.float32)
    agrees(fit(tmp_path, net, *callbacks, data=data, limit_val_batches=0)[0], net.batches)
    assert not torch.equal(net.logits.double(), net.batches[-1][0])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("manual", [False, True])
def test_checkpointed_and_logged_losses_count_once(tmp_path, reentrant, manual):
    class Checkpointed(Recorder):
        automatic_optimization = not manual

        def training_step(self, batch, batch_idx):
            x, y = batch
            self.keep(self(x), y)
            with torch.no_grad():
                F.cross_entropy(self(x) / 2, y)  # to be logged
            x = x.clone().requires_grad_()
            loss = checkpoint(lambda x: F.cross_entropy(self.layer(x), y), x, use_reentrant=reentrant)
            if manual:
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                self.optimizers().step()
            return loss

    net = Checkpointed()
    agrees(fit(tmp_path, net)[0], net.batches)


def test_mixed_precision(tmp_path):
    net = Recorder(dtype=torch.float32)
    monitor, _ = fit(tmp_path, net, ls.LabelSmoothing(), data=Data(dtype=torch.float32), precision="bf16-mixed")
    agrees(monitor, net.batches)


def test_compiled_steps(tmp_path):
    class Compiled(Recorder):
        def loss(self, batch):
            return self.criterion(self(batch[0]), batch[1])

        def on_train_batch_start(self, batch, batch_idx):
            with torch.no_grad():
                self.keep(self(batch[0]), batch[1])

    net = Compiled()
    net.training_step = torch.compile(net.training_step, backend="eager", fullgraph=True)
    agrees(fit(tmp_path, net, ls.LabelSmoothing())[0], net.batches)


def test_batches_of_any_shape(tmp_path):
    class Shapes(Recorder):
        def training_step(self, batch, batch_idx):
            x, y = batch
            z, y = self.layer(x)[:, :, None].repeat(1, 1, 1 + batch_idx), y[:, None].repeat(1, 1 + batch_idx)
            y[0, 0] = 3
            self.keep(z.movedim(1, -1).flatten(0, 1)[y.flatten() != 3], y.flatten()[y.flatten() != 3])
            return F.cross_entropy(z, y, ignore_index=3)

    net = Shapes()
    agrees(fit(tmp_path, net)[0], net.batches)


class Targets(Recorder):
    """Its targets are distributions: ``shares(y, batch_idx)``."""

    def __init__(self, shares, classes=CLASSES):
        super().__init__(classes=classes)
        self.shares = shares

    def training_step(self, batch, batch_idx):
        logits, y = self(batch[0]), batch[1] % len(self.layer.bias)
        shares = self.shares(F.one_hot(y, logits.shape[1]).double(), batch_idx)
        several = (shares.sort(1).values[:, 1:-1] != shares.amin(1, keepdim=True)).any(1)
        self.keep(logits[~several], y[~several])
        return F.cross_entropy(logits, shares)

    def validation_step(self, batch, batch_idx):
        pass


def mixed(shares, batch_idx):
    return 0.7 * shares + 0.3 * shares.roll(1, 0)


@pytest.mark.parametrize("shares", [lambda q, k: q, lambda q, k: 0.9 * q + 0.02])
def test_distributions_of_one_class(tmp_path, shares):
    net = Targets(shares)
    agrees(fit(tmp_path, net, limit_val_batches=0)[0], net.batches)


def test_mixtures_of_classes(tmp_path):
    for classes in (CLASSES, 2):
        with pytest.raises(LookupError, match=r"Targets.training_step is called with mixtures .*read="):
            fit(tmp_path, Targets(mixed, classes), limit_val_batches=0)
    net = Targets(lambda q, k: mixed(q, k) if k == 2 else q)
    with pytest.warns(UserWarning, match=r"leaves out [1-8] training samples, whose targets are mixtures of .*read="):
        monitor, _ = fit(tmp_path, net, limit_val_batches=0, max_epochs=1)
    agrees(monitor, net.batches)

    class Binary(Recorder):
        def training_step(self, batch, batch_idx):
            return F.binary_cross_entropy_with_logits(self(batch[0])[:, 0], 0.8 * (batch[1] == 0).double() + 0.1)

    with pytest.raises(LookupError, match="mixtures of classes"):
        fit(tmp_path, Binary(), limit_val_batches=0)
    labels = ls.CalibrationMonitor(train=True, read=lambda net, batch, outputs: (outputs["logits"], batch[1]))

    class Says(Targets):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.keep(logits, batch[1])
            return {"loss": F.cross_entropy(logits, mixed(F.one_hot(batch[1]).double(), 0)), "logits": logits}

    net = Says(mixed)
    agrees(fit(tmp_path, net, monitor=labels, limit_val_batches=0)[0], net.batches)


def test_a_module_whose_steps_call_no_loss(tmp_path):
    with pytest.raises(LookupError, match=r"no loss was called in Silent.training_step.*read="):
        fit(tmp_path, Silent(), limit_val_batches=0)


def test_a_key_of_the_module_s_own_is_left_to_it(tmp_path):
    class Logs(Recorder):
        def training_step(self, batch, batch_idx):
            self.log("train/acc", 7.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    net = Logs()
    monitor, t = fit(tmp_path, net)
    assert t.callback_metrics["train/acc"] == 7
    agrees(monitor, net.batches)


class Watched(L.Callback):
    """Steps under a mode that forbids to wait for the device, and that leave no logits behind."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.mode = NoSync()
        self.mode.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.mode.__exit__(None, None, None)
        assert pl_module.logits() is None


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("classes", [CLASSES, 40_000])
def test_no_step_waits_for_the_device_nor_keeps_the_graph(tmp_path, smoothed, classes):
    class Weak(Net):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.logits = weakref.ref(logits)
            return F.cross_entropy(logits, batch[1])

    callbacks = [ls.LabelSmoothing(), Watched()] if smoothed else [Watched()]
    monitor = ls.CalibrationMonitor(train=True)
    net, data = Weak(classes=classes, dtype=torch.float32), Data(dtype=torch.float32)
    # Ours comes first, so that it has ended when the mode does.
    trainer(tmp_path, monitor, *callbacks, max_epochs=1, limit_val_batches=0).fit(net, datamodule=data)
    assert monitor.results["train"]["n"] == 48


def test_after_an_exception(tmp_path):
    class Breaks(Recorder):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 3 and self.breaks:
                raise RuntimeError("broken")
            return loss

    net, monitor = Breaks(), ls.CalibrationMonitor(train=True)
    net.breaks, own = True, F.cross_entropy
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, net, monitor=monitor)
    assert "train" not in monitor.results
    assert F.cross_entropy is own
    net.breaks = False
    fit(tmp_path, net, monitor=monitor)
    agrees(monitor, net.batches)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks(tmp_path):
    script = Path(__file__).parent / "trained.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    batches = [
        (torch.tensor(logits, dtype=torch.float64), torch.tensor(y))
        for rank in ranks
        for logits, y in zip(rank["logits"], rank["y"], strict=True)
    ]
    wanted = judged(batches)
    assert wanted["n"] == 26
    for rank in ranks:
        assert rank["results"] == ranks[0]["results"]
        assert rank["logged"]["train/ece"] == pytest.approx(wanted["ece"], abs=1e-6)
        assert {key: rank["results"]["train"][key] for key in wanted} == pytest.approx(wanted, **EXACT)
        assert rank["results"]["val"]["n"] == 25


def test_in_a_job(tmp_path, monkeypatch):
    overrides = ["callbacks.calibration_monitor.train=true", *QUICK, "eps=0.1", "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *overrides) == 0
    found = json.loads((tmp_path / "job" / "result.json").read_text())["metrics"]["train"]
    with (tmp_path / "job" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    nll = [float(row["train/nll"]) for row in rows if row["train/nll"]]
    assert len(nll) == 2
    assert nll[1] == pytest.approx(found["nll"], abs=1e-6)
    assert found["n"] == 899
    # Of each mini-batch, as without it; so the epoch's is the mean of them, whose last one is smaller.
    acc = torch.tensor([float(row["train/acc"]) for row in rows if row["train/acc"]]).view(2, -1)
    sizes = torch.tensor([64.0] * 14 + [3])
    assert acc.shape == (2, 15)
    assert found["acc"] == pytest.approx(((acc[1] * sizes).sum() / 899).item(), abs=1e-6)
