"""Feedback through the callback: the gap of each validation moves eps, from the bits of any ranks, anywhere resumed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Data, LogProbNet, Net, trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

import ls_lightning as ls
from ls_lightning.autoload import callbacks_from_environment
from ls_lightning.callbacks.seeded_steps import SeededSteps
from ls_lightning.schedules import Feedback
from ls_lightning.zoo.data_order import ResumableLoader


class Judge(L.Callback):
    """Works out eps by itself, in float64 from the whole validation set."""

    def __init__(self, smoothing, data, start=0.1, gain=0.25, eps_max=0.5):
        self.smoothing, self.data, self.gain, self.eps_max = smoothing, data, gain, eps_max
        self.expected, self.found = [start], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.found or self.smoothing.eps != self.found[-1]:
            self.found.append(self.smoothing.eps)

    def on_validation_end(self, trainer, pl_module):
        x, y = self.data.set.tensors
        p = torch.softmax(pl_module.layer(x).double(), 1)
        gap = (p.amax(1) - (p.argmax(1) == y).double()).mean().item()
        self.expected.append(min(max(self.expected[-1] + self.gain * gap, 0.0), self.eps_max))


def fit(net, folder, *callbacks, data=None, **options):
    trainer(folder, *callbacks, **options).fit(net, datamodule=data or Data())
    return net


@pytest.mark.parametrize("monitored", [True, False])
@pytest.mark.parametrize("cls", [Net, LogProbNet])
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"accumulate_grad_batches": 3}])
def test_eps_follows_the_gap(tmp_path, cls, options, monitored):
    smoothing, data = ls.LabelSmoothing(schedule=Feedback(gain=0.25)), Data()
    judge = Judge(smoothing, data)
    monitor = [ls.CalibrationMonitor()] if monitored else []
    fit(cls(), tmp_path, smoothing, *monitor, judge, data=data, max_epochs=4, **options)
    assert judge.found == pytest.approx(judge.expected[: len(judge.found)], abs=1e-8)
    assert len(judge.found) >= 4
    assert smoothing.feedback.updates == len(judge.expected) - 1
    if monitored:
        assert smoothing.feedback.gap == pytest.approx(monitor[0].results["val"]["gap"], abs=1e-8)


@pytest.mark.parametrize(
    ("options", "updates"),
    [
        ({"max_epochs": 20}, 20),
        ({"max_epochs": 20, "check_val_every_n_epoch": 2}, 10),
        ({"max_epochs": 20, "val_check_interval": 2}, 60),
        ({"max_epochs": 20, "val_check_interval": 0.5, "accumulate_grad_batches": 2}, 40),
        ({"max_epochs": -1, "max_steps": 48}, 8),
        ({"max_epochs": 20, "val_check_interval": 10, "check_val_every_n_epoch": None}, 12),
    ],
)
def test_the_usual_gain_is_4_over_the_number_of_updates(tmp_path, options, updates):
    smoothing = ls.LabelSmoothing(schedule="feedback")
    fit(Net(), tmp_path, smoothing, **options)
    assert smoothing.feedback.updates == updates
    assert smoothing.feedback.gain == min(0.25, 4 / updates)


def test_nothing_winds_up_at_a_bound(tmp_path):
    for start, wrong in ((0.0, 0), (0.3, 1)):
        schedule = Feedback(start, gain=10.0, eps_max=0.3)
        eps, rest = start, [(-1) ** (wrong + 1) * 0.5] * 5 + [(-1) ** wrong * 0.01]
        for gap in rest:
            before, eps = eps, schedule.next_eps(eps, gap)
        assert before == start
        assert eps == pytest.approx(0.1 if wrong == 0 else 0.2)


def test_logged_with_eps(tmp_path):
    smoothing = ls.LabelSmoothing(schedule=Feedback(gain=0.2))
    t = trainer(tmp_path, smoothing, max_epochs=3)
    t.fit(Net(), datamodule=Data())
    assert t.callback_metrics["ls/eps"].item() == pytest.approx(smoothing.eps)
    assert {"ls/gap", "ls/eps"} <= set(t.callback_metrics)


def test_by_environment_variables_and_by_the_mixin(tmp_path):
    class Mixed(ls.LabelSmoothingMixin, Net):
        smoothing = {"schedule": Feedback(0.2)}

    smoothing, monitor = callbacks_from_environment({"LS_SCHEDULE": "feedback:0.2", "LS_LOSS": "ce"})
    fit(Net(), tmp_path, smoothing, monitor)
    t = trainer(tmp_path)
    t.fit(Mixed(), datamodule=Data())
    (mixed,) = [callback for callback in t.callbacks if isinstance(callback, ls.LabelSmoothing)]
    assert smoothing.feedback.updates == mixed.feedback.updates == 2
    assert smoothing.feedback.eps == mixed.feedback.eps != [0.2]


class ByClass(Judge):
    def on_validation_end(self, trainer, pl_module):
        x, y = self.data.set.tensors
        p = torch.softmax(pl_module.layer(x), 1)
        excess, predicted = p.amax(1) - (p.argmax(1) == y).double(), p.argmax(1)
        before = self.expected[-1] if len(self.expected) > 1 else [0.1] * 5
        gaps = [excess[predicted == k].mean().item() if (predicted == k).any() else 0.0 for k in range(5)]
        self.expected.append([min(max(e + 0.25 * g, 0.0), 0.5) for e, g in zip(before, gaps, strict=True)])


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_an_eps_for_each_class(tmp_path, loss):
    smoothing, data = ls.LabelSmoothing(loss, schedule=Feedback(gain=0.25, per_class=True)), Data()
    judge = ByClass(smoothing, data)
    t = trainer(tmp_path, smoothing, judge, max_epochs=3)
    t.fit(Net(), datamodule=data)
    assert smoothing.feedback.eps == pytest.approx(judge.expected[-1], abs=1e-8)
    assert smoothing.eps == pytest.approx(sum(judge.expected[-2]) / 5)
    assert smoothing._calls.loss.eps.tolist() == pytest.approx(judge.expected[-2], abs=1e-6)
    assert t.callback_metrics["ls/eps_max"].item() == pytest.approx(max(judge.expected[-2]))
    assert len(set(smoothing.feedback.eps)) > 1


@pytest.mark.parametrize(
    ("loss", "net", "data"),
    [
        ("bce", lambda: Net(nn.BCEWithLogitsLoss()), Data(target=lambda y: F.one_hot(y, 5).double())),
        ("kl", Net, None),
        ("soft_ce", Net, None),
        (lambda logits, target, eps: F.cross_entropy(logits, target) * (1 - eps), Net, None),
    ],
)
def test_with_every_loss_that_has_an_eps(tmp_path, loss, net, data):
    smoothing = ls.LabelSmoothing(loss, schedule=Feedback(gain=0.25))
    fit(net(), tmp_path, smoothing, data=data)
    assert smoothing.feedback.updates == 2
    assert smoothing.eps != 0.1


class Trained(Net):
    """Writes down what it was trained on."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def training_step(self, batch, batch_idx):
        if self.training:
            self.rows += batch[0][:, 0].tolist()
        self.log("train", 1.0)
        return super().training_step(batch, batch_idx)


class WithoutValidation(Trained):
    validation_step = L.LightningModule.validation_step


@pytest.mark.parametrize("cls", [Trained, WithoutValidation])
@pytest.mark.parametrize(("every", "updates"), [(None, 3), (2, 7)])
def test_a_held_out_slice_is_not_trained_on(tmp_path, cls, every, updates):
    smoothing = ls.LabelSmoothing(schedule=Feedback(held_out=0.25, every=every, gain=0.25))
    net, data = cls(), Data()
    t = trainer(tmp_path, smoothing, max_epochs=3, limit_val_batches=0)
    t.fit(net, DataLoader(data.set, 8, shuffle=True))
    assert smoothing.feedback.updates == updates
    assert len(set(net.rows)) == 36
    assert t.global_step == 15
    held = [k for k, row in enumerate(data.set.tensors[0][:, 0].tolist()) if row not in set(net.rows)]
    assert len(held) == 12
    if every is None:
        x, y = (tensor[held] for tensor in data.set.tensors)
        p = torch.softmax(net.layer(x), 1)
        gap = (p.amax(1) - (p.argmax(1) == y).double()).mean().item()
        assert smoothing.feedback.gap == pytest.approx(gap, abs=1e-8)
    assert "dataloader" not in vars(t.fit_loop._data_source)
    assert not {"log", "log_dict"} & vars(net).keys()
    assert net.training


def held(loader, folder):
    smoothing = ls.LabelSmoothing(schedule=Feedback(held_out=0.2))
    trainer(folder, smoothing, limit_val_batches=0).fit(Net(), loader)


class Stream(IterableDataset):
    def __iter__(self):
        yield from Data().set


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda s: DataLoader(s, 8, sampler=WeightedRandomSampler(torch.ones(48), 48)), "a WeightedRandomSampler"),
        (lambda s: {"a": DataLoader(s, 8), "b": DataLoader(s, 8)}, "got dict"),
        (lambda s: DataLoader(Stream(), 8), "dataset with indices"),
        (lambda s: DataLoader(TensorDataset(*(t[:1] for t in s.tensors))), "at least 2 training samples"),
    ],
)
def test_data_that_nothing_can_be_withheld_from(tmp_path, loader, message):
    with pytest.raises(ValueError, match=message):
        held(loader(Data().set), tmp_path)


def test_needs_something_to_measure_on(tmp_path):
    with pytest.raises(ValueError, match=r"Feedback\(held_out=0.1\)"):
        fit(Net(), tmp_path, ls.LabelSmoothing(schedule="feedback"), limit_val_batches=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ls.LabelSmoothing("none", schedule=Feedback(0.0)), ValueError, "takes eps=0"),
        (lambda: ls.LabelSmoothing(eps=0.2, schedule=Feedback(0.1)), ValueError, "give eps or a schedule"),
        (lambda: ls.LabelSmoothing(schedule="feedback", interval="epoch"), ValueError, "check_val_every_n_epoch"),
        (lambda: Feedback(1.0), ValueError, "start must be in"),
        (lambda: Feedback(0.3, eps_max=0.2), ValueError, "at least start=0.3"),
        (lambda: Feedback(0.0, eps_max=0.0), ValueError, "eps_max must be above 0"),
        (lambda: Feedback(gain=0), ValueError, "gain must be above 0"),
        (lambda: Feedback(gain=math.nan), ValueError, "gain must be above 0"),
        (lambda: Feedback(gain="auto"), TypeError, "gain must be a number"),
        (lambda: Feedback(held_out=1.0), ValueError, "held_out must be in"),
        (lambda: Feedback(every=3), ValueError, "every=3 is for a held-out slice"),
        (lambda: Feedback(held_out=0.1, every=0), ValueError, "every must be an integer"),
        (lambda: Feedback(per_class=1), TypeError, "per_class must be True or False"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_validation_apart_from_a_fit_moves_nothing(tmp_path):
    smoothing = ls.LabelSmoothing(schedule=Feedback(gain=0.25))
    net = Net()
    t = trainer(tmp_path, smoothing, num_sanity_val_steps=2, max_epochs=1)
    t.fit(net, datamodule=Data())
    assert smoothing.feedback.updates == 1
    eps = list(smoothing.feedback.eps)
    t.validate(net, datamodule=Data(), verbose=False)
    assert smoothing.feedback.eps == eps


class Break(L.Callback):
    def __init__(self, hook, at):
        setattr(self, hook, self._break)
        self.at, self.calls = at, 0

    def _break(self, *args, **kwargs):
        self.calls += 1
        if self.calls - 1 == self.at:
            raise RuntimeError("a rank died")


class Dropout(Net):
    """Draws from the global generator, in validation too."""

    def forward(self, x):
        torch.rand(2)
        return self.layer(F.dropout(x, 0.3, self.training))


SCHEDULES = {
    "validation": Feedback(gain=0.25),
    "per_class": Feedback(gain=0.25, per_class=True),
    "held_out": Feedback(gain=0.25, held_out=0.2),
    "every": Feedback(gain=0.25, held_out=0.2, every=4),
}


def resumable(folder, schedule, *callbacks, ckpt_path=None, **options):
    L.seed_everything(3, workers=True, verbose=False)
    smoothing, net = ls.LabelSmoothing(schedule=schedule), Dropout()
    saving = ModelCheckpoint(folder, filename="last", save_on_exception=True, enable_version_counter=False)
    t = trainer(
        folder,
        *callbacks[:1],
        smoothing,
        SeededSteps(3),
        saving,
        *callbacks[1:],
        max_epochs=4,
        enable_checkpointing=True,
        **options,
    )
    t.fit(net, datamodule=ls_data(), ckpt_path=ckpt_path, weights_only=False)
    return net, smoothing


def ls_data():
    return Resumable()


class Resumable(Data):
    """In the order of the epoch, from where the checkpoint left off."""

    def train_dataloader(self):
        return ResumableLoader(self.set, self.trainer, batch_size=self.batch_size)


HOOKS = [
    ("on_train_batch_start", 1),
    ("on_train_batch_start", 5),
    ("on_train_batch_start", 9),
    ("on_train_batch_end", 5),
    ("on_train_batch_end", 7),
    ("on_train_batch_end", 11),
    ("on_before_optimizer_step", 8),
    ("on_validation_start", 1),
    ("on_validation_batch_start", 8),
    ("on_validation_batch_end", 8),
    ("on_validation_batch_end", 11),
    ("on_validation_epoch_end", 1),
    ("on_validation_end", 1),
    ("on_train_epoch_end", 1),
    ("on_train_epoch_start", 2),
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    found = {}

    def of(name, **options):
        key = name, tuple(options.items())
        if key not in found:
            found[key] = resumable(tmp_path_factory.mktemp("unbroken"), SCHEDULES[name], **options)
        return found[key]

    return of


@pytest.mark.parametrize("before", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("hook", "at"), HOOKS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("validation", {}),
        pytest.param("validation", {"val_check_interval": 2}, marks=pytest.mark.slow),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in ("per_class", "held_out", "every")),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, unbroken, name, hook, at, before, options):
    whole, judge = unbroken(name, **options)
    breaking = [Break(hook, at)] if before else [L.Callback(), Break(hook, at)]
    with pytest.raises(RuntimeError, match="a rank died"):
        resumable(tmp_path, SCHEDULES[name], *breaking, **options)
    net, smoothing = resumable(tmp_path, SCHEDULES[name], ckpt_path=tmp_path / "last.ckpt", **options)
    assert smoothing.feedback.eps == judge.feedback.eps
    assert smoothing.feedback.updates == judge.feedback.updates
    torch.testing.assert_close(net.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_have_the_same_eps_to_the_last_bit(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("feedback_ddp.py")), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["validation"]["gap"] == pytest.approx(first["validation"]["measured"], abs=1e-8)
    assert [len(found["eps"]) for found in first.values()] == [1, 5, 1]
    assert all(float.fromhex(found["eps"][0]) != 0.1 for found in first.values())
