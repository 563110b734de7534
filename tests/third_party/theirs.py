"""What is checked of a module that somebody else wrote: a fit with our callbacks, beside a record of its logits."""

import contextlib
import copy
import pickletools
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import ls_lightning as ls

EPS = 0.1
LOSSES = [
    (module, name, value)
    for module in (F, torch, torch._C._nn)
    for name, value in vars(module).items()
    if "loss" in name or "entropy" in name
]


class Step(NamedTuple):
    """One batch: what each call of the hooked submodule returned, the batch, what the step returned."""

    outputs: list[Any]
    batch: Any
    result: Any


@dataclass(eq=False)
class Record(L.Callback):
    """What the module computed and logged, by a forward hook and the Trainer's own hooks."""

    hooked: Callable[[Any], nn.Module]
    train: list[Step] = field(default_factory=list)
    val: list[Step] = field(default_factory=list)
    logged: dict[str, Tensor] = field(default_factory=dict)
    smoothed: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def setup(self, trainer, pl_module, stage):
        self.trainer, self.module = trainer, pl_module
        self.smoothing = next((c for c in trainer.callbacks if isinstance(c, ls.LabelSmoothing)), None)
        self.monitor = next((c for c in trainer.callbacks if isinstance(c, ls.CalibrationMonitor)), None)
        self.before = snapshot(pl_module)
        self.hook = self.hooked(pl_module).register_forward_hook(
            lambda module, args, output: self.outputs.append(detached(output))
        )

    def teardown(self, trainer, pl_module, stage):
        self.hook.remove()

    def on_train_batch_start(self, *args):
        self.outputs.clear()

    on_validation_batch_start = on_train_batch_start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.train.append(Step([*self.outputs], batch, detached(outputs)))
        if self.smoothing is not None:
            self.smoothed.append(self.smoothing.num_smoothed)

    def on_validation_start(self, trainer, pl_module):
        torch.manual_seed(1)  # some sample in validation
        self.val.clear()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.val.append(Step([*self.outputs], batch, detached(outputs)))

    def on_validation_end(self, trainer, pl_module):
        self.logged = {key: value.clone() for key, value in trainer.callback_metrics.items()}


class Training:
    """Subclasses say how to make and train the module, where its logits are, and what its loss has to be."""

    Trainer = L.Trainer
    smoothing: dict[str, Any] = {"eps": EPS}
    environ: dict[str, str] = {}
    calls = 1
    """How many losses a training step calls that are smoothed."""

    def make(self):
        """A new module, of random weights."""
        raise NotImplementedError

    def loaders(self):
        """Training and validation loader."""
        raise NotImplementedError

    def hooked(self, module) -> nn.Module:
        """The submodule whose output holds the logits."""
        raise NotImplementedError

    def logits(self, step: Step) -> Tensor:
        return step.outputs[0]

    def target(self, step: Step) -> Tensor:
        return step.batch[1]

    def loss(self, step: Step) -> Tensor:
        """What the training step has to return, from our function and the recorded logits."""
        return ls.functional.smoothed_cross_entropy(self.logits(step), self.target(step), EPS)

    def returned(self, step: Step) -> Tensor:
        return step.result["loss"]

    def callbacks(self):
        """Ours."""
        return [ls.LabelSmoothing(**self.smoothing)]

    def fit(self, callbacks):
        self.trainer(callbacks, max_epochs=2).fit(self.make(), *self.loaders())

    def load(self, path, module):
        return type(module).load_from_checkpoint(path)

    def trainer(self, callbacks, **kwargs):
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return self.Trainer(callbacks=callbacks, **{**quiet, **kwargs})

    def record(self, folder, *ours) -> Record:
        record = Record(self.hooked)
        L.seed_everything(0, verbose=False)
        with contextlib.chdir(folder):  # some write where they are
            self.fit([record, *ours])
        record.changed = changes(record.before, snapshot(record.module))
        return record

    def test_the_training_loss_is_our_function_of_the_logits(self, run):
        assert len(run.train) >= 2
        for step in run.train:
            assert_close(self.returned(step), self.loss(step).to(self.returned(step).dtype))
        assert set(run.smoothed) == {self.calls}

    def test_the_module_is_left_as_without_us(self, run, tmp_path):
        assert run.changed == self.record(tmp_path).changed
        assert not [name for module, name, value in LOSSES if getattr(module, name) is not value]

    def test_the_checkpoint_loads_without_us(self, run, tmp_path, monkeypatch):
        path = tmp_path / "theirs.ckpt"
        run.trainer.save_checkpoint(path)
        assert not [name for name in pickled_names(path) if name.startswith("ls_lightning")]
        for name in [name for name in sys.modules if name.partition(".")[0] == "ls_lightning"]:
            monkeypatch.setitem(sys.modules, name, None)
        loaded = self.load(path, run.module)
        state = run.module.state_dict()
        assert loaded.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


class Suite(Training):
    """The same for a module with a validation_step."""

    monitor: dict[str, Any] = {}
    val_keys: set[str] | None = None
    """Where not all that the module logs in validation can be repeated after the fit."""

    def callbacks(self):
        return [*super().callbacks(), ls.CalibrationMonitor(**self.monitor)]

    def direct(self, logits, target):
        return direct(logits, target)

    def test_the_validation_is_unchanged_to_the_last_bit(self, run, tmp_path):
        again = Record(self.hooked)
        with contextlib.chdir(tmp_path):
            self.trainer([again]).validate(run.module, run.trainer.val_dataloaders, verbose=False)
        keys = again.logged.keys() if self.val_keys is None else self.val_keys
        assert keys
        for key in keys:
            assert_close(run.logged[key], again.logged[key], rtol=0, atol=0, equal_nan=True, msg=key)

    def test_the_metrics_are_what_a_direct_computation_gives(self, run):
        logits = torch.cat([self.logits(step) for step in run.val])
        target = torch.cat([self.target(step) for step in run.val])
        expected = self.direct(logits, target)
        lower, upper = bounds_of_aurc(run.monitor)
        assert lower - 1e-7 <= expected.pop("exact_aurc") <= upper + 1e-7
        found = run.monitor.results["val"]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, rel=1e-6, abs=1e-7), key
            if key != "n":
                assert run.logged[f"val/{key}"].item() == pytest.approx(found[key], rel=1e-6, abs=1e-6), key


class WeightsOnly:
    """For modules that do not support ``load_from_checkpoint``."""

    def load(self, path, module):
        fresh = copy.deepcopy(module)
        for parameter in fresh.parameters():
            nn.init.zeros_(parameter)
        fresh.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
        return fresh


def detached(value):
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: detached(child) for key, child in value.items()}
    if isinstance(value, tuple | list):
        return [detached(child) for child in value]
    return value


def snapshot(module):
    """All that hangs on a module and its submodules; holds the objects, so that no identity is used again."""
    found = {}
    for path, child in module.named_modules():
        found[path] = type(child)
        for name, value in vars(child).items():
            found[path, name] = value
            if isinstance(value, dict):
                found |= {(path, name, key): entry for key, entry in value.items()}
    return found


def changes(before, after):
    """What came, went or is another object now."""
    nothing = object()
    return {key for key in before.keys() | after.keys() if before.get(key, nothing) is not after.get(key, nothing)}


def pickled_names(path):
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return [arg for _, arg, _ in pickletools.genops(archive.read(name)) if isinstance(arg, str)]


def direct(logits, target, num_bins=15, ignore_index=-100):
    """Accuracy and calibration of K classes in float64 numpy, from the definitions."""
    z = np.moveaxis(logits.double().numpy(), 1, -1).reshape(-1, logits.shape[1])
    y = target.long().numpy().reshape(-1)
    z, y = z[y != ignore_index], y[y != ignore_index]
    log_p = z - np.logaddexp.reduce(z, 1, keepdims=True)
    p = np.exp(log_p)
    brier = ((p - np.eye(p.shape[1])[y]) ** 2).sum(1)
    return _measures(p.max(1), p.argmax(1) == y, -log_p[np.arange(len(y)), y], brier, num_bins)


def direct_binary(logits, target, num_bins=15, ignore_index=-100):
    """The same for one logit per decision; the confidence is that of the more probable outcome."""
    z, y = logits.double().numpy().reshape(-1), target.double().numpy().reshape(-1)
    z, y = z[y != ignore_index], y[y != ignore_index]
    p = 1 / (1 + np.exp(-z))
    nll = np.logaddexp(0, np.where(y == 1, -z, z))
    return _measures(np.maximum(p, 1 - p), (p > 0.5) == (y == 1), nll, (p - y) ** 2, num_bins)


def bounds_of_aurc(monitor):
    """What is certain of the AURC in validation, whatever the order of samples that are nearly as sure."""
    states = monitor.measured["val"].states.values()
    ((metric, sums),) = [state for state in states if isinstance(state[0], ls.metrics.AURC)]
    return tuple(bound.item() for bound in metric.bounds(sums))


def _measures(confidence, correct, nll, brier, num_bins):
    bins = np.clip(np.ceil(confidence * num_bins) - 1, 0, num_bins - 1)
    share, mean, hits = np.array(
        [((bins == b).mean(), confidence[bins == b].mean(), correct[bins == b].mean()) for b in np.unique(bins)]
    ).T
    return {
        "acc": correct.mean(),
        "nll": nll.mean(),
        "brier": brier.mean(),
        "ece": (share * abs(mean - hits)).sum(),
        "mce": abs(mean - hits).max(),
        "gap": confidence.mean() - correct.mean(),
        "overconfidence": (share * mean * np.maximum(mean - hits, 0)).sum(),
        "aurc": _aurc(_mean_in_cells(~correct, confidence)[np.argsort(-confidence)]),
        "exact_aurc": _aurc(~correct[np.argsort(-confidence)]),
        "n": len(nll),
    }


def _aurc(wrong):
    return (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()


def _mean_in_cells(wrong, confidence):
    """Errors, each the mean of those that the sketch does not tell from it: 128 cells to a doubling of the odds."""
    cell = (1 / confidence - 1).astype(np.float32).view(np.uint32) >> 16
    return np.array([wrong[cell == own].mean() for own in cell])
