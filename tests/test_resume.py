"""A run that breaks off anywhere and goes on from its checkpoint ends with the bits of an unbroken one."""

import functools

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.resume_point import ResumePoint
from ls_lightning.callbacks.seeded_steps import SeededSteps
from ls_lightning.callbacks.train_loss import TrainLoss
from ls_lightning.loggers import CSVHistory
from ls_lightning.schedules import Linear
from ls_lightning.zoo.data_order import EpochOrder
from ls_lightning.zoo.data_sklearn import DigitsData

BATCHES = 8  # of an epoch
RESUMED = [  # hooks of a resumed run, in about this order
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
]


class Net(L.LightningModule):
    """With dropout, which draws from the global generator, and Adam, which has a state."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10))
        self.targets = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.targets.append(y.tolist())
        return nn.functional.cross_entropy(self.layers(x), y)

    def validation_step(self, batch, batch_idx):
        torch.rand(3)  # a validation that draws numbers changes no training
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Break(L.Callback):
    """Raise in a hook of step ``at``."""

    def __init__(self, hook, at):
        setattr(self, hook, self._break)
        self.at, self.calls = at, 0

    def _break(self, *args, **kwargs):
        self.calls += 1
        if self.calls - 1 == self.at:
            raise RuntimeError("a rank died")


def fit(folder, *callbacks, ckpt_path=None, max_epochs=4, **options):
    L.seed_everything(3, workers=True, verbose=False)
    model = Net()
    saving = ModelCheckpoint(folder, filename="last", save_on_exception=True, enable_version_counter=False)
    smoothing = LabelSmoothing(schedule=Linear(0.3, 0.0), total_steps=4 * BATCHES)
    model.history = CSVHistory(folder)
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=model.history,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[ResumePoint(), SeededSteps(3), TrainLoss(), smoothing, saving, *callbacks],
        **options,
    )
    trainer.fit(model, datamodule=DigitsData(batch_size=128), ckpt_path=ckpt_path, weights_only=False)
    return model


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(
    ("hook", "at"),
    [
        ("on_train_batch_start", 1),
        ("on_train_batch_start", BATCHES + 4),
        ("on_train_batch_start", 2 * BATCHES - 1),
        ("on_train_batch_end", BATCHES + 4),
        ("on_train_batch_end", 2 * BATCHES - 1),
        ("on_before_optimizer_step", BATCHES + 4),
        ("on_train_epoch_start", 2),
        ("on_validation_start", 1),
        ("on_train_epoch_end", 1),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, unbroken, hook, at):
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, Break(hook, at))
    resumed = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.targets == unbroken.targets[len(unbroken.targets) - len(resumed.targets) :]
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)
    assert resumed.history.path.read_text() == unbroken.history.path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("again", RESUMED)
@pytest.mark.parametrize(
    ("hook", "at"),
    [
        ("on_train_batch_start", 1),
        ("on_before_optimizer_step", BATCHES + 4),
        ("on_train_batch_end", 2 * BATCHES - 1),
        ("on_validation_start", 1),
        ("on_validation_batch_end", 3),
        ("on_train_epoch_start", 1),
        ("on_train_epoch_end", 1),
    ],
)
def test_a_run_that_breaks_off_twice_equals_an_unbroken_one(tmp_path, unbroken, hook, at, again):
    """The second time before the resumed run has done what it would do first."""
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, Break(hook, at))
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, Break(again, 0), ckpt_path=tmp_path / "last.ckpt")
    resumed = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)
    assert resumed.history.path.read_text() == unbroken.history.path.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Unbroken runs by their options."""
    return functools.cache(lambda **options: measured_fit(tmp_path_factory.mktemp("whole"), **options))


def measured_fit(folder, *callbacks, **options):
    # Batches of a broken accumulation are measured twice, as they are trained on.
    return fit(folder, CalibrationMonitor(train="accumulate_grad_batches" not in options), *callbacks, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "at"),
    [
        ("on_train_batch_start", 5),
        ("on_after_backward", BATCHES + 3),
        ("on_train_batch_end", 2),
        ("on_train_batch_end", BATCHES + 4),
        ("on_validation_start", 1),
        ("on_validation_batch_end", 3),
        ("on_validation_epoch_end", 1),
        ("on_validation_end", 1),
        ("on_train_epoch_start", 2),
        ("on_train_epoch_end", 2),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"accumulate_grad_batches": 2, "val_check_interval": 3},
        {"val_check_interval": 3},
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": None, "val_check_interval": 11},
        {"limit_train_batches": 5},
        {"limit_val_batches": 0},
        {"max_steps": 29},
        {"max_steps": 13, "accumulate_grad_batches": 2, "limit_val_batches": 0},
    ],
    ids=str,
)
def test_a_resumed_run_logs_what_an_unbroken_one_does(tmp_path, whole, options, hook, at):
    """With validations and steps that do not end together with the epochs; nothing is measured twice or left away."""
    cut = Break(hook, at)
    try:
        measured_fit(tmp_path, cut, **options)
    except RuntimeError:
        assert cut.calls == at + 1
    resumed = measured_fit(tmp_path, ckpt_path=tmp_path / "last.ckpt", **options)
    torch.testing.assert_close(resumed.state_dict(), whole(**options).state_dict(), rtol=0, atol=0)
    if hook != "on_train_epoch_end":  # Lightning logs what is measured there when all have measured
        assert resumed.history.path.read_text() == whole(**options).history.path.read_text()


@pytest.mark.parametrize("first", [5, BATCHES, 13])
def test_more_steps_after_the_last(tmp_path, unbroken, first):
    """``max_steps`` may end a run amid an epoch; one that goes on from there is as if it had not."""
    fit(tmp_path, max_epochs=-1, max_steps=first)
    resumed = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt", max_epochs=-1, max_steps=4 * BATCHES)
    assert resumed.targets == unbroken.targets[first:]
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)
    assert resumed.history.path.read_text() == unbroken.history.path.read_text()


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_before_optimizer_step"])
def test_what_an_unfinished_epoch_has_measured_goes_on(tmp_path, hook):
    whole = fit(tmp_path / "whole", CalibrationMonitor(train=True))
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, CalibrationMonitor(train=True), Break(hook, BATCHES + 4))
    resumed = fit(tmp_path, CalibrationMonitor(train=True), ckpt_path=tmp_path / "last.ckpt")
    rows = whole.history.path.read_text()
    assert "train/nll" in rows
    assert resumed.history.path.read_text() == rows


def test_an_epoch_cut_short_is_over(tmp_path):
    """``limit_train_batches`` ends an epoch before its loader does: the next one begins at its beginning."""
    options = {"limit_train_batches": 4}
    whole = fit(tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, Break("on_train_epoch_start", 2), **options)
    resumed = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt", **options)
    assert resumed.targets == whole.targets[8:]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_no_warning_that_the_loader_cannot_be_resumed(tmp_path, recwarn):
    with pytest.raises(RuntimeError, match="a rank died"):
        fit(tmp_path, Break("on_train_batch_start", 4))
    fit(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert not [w for w in recwarn if "not resumable" in str(w.message)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_an_epoch(ranks):
    orders = [EpochOrder(range(20), ranks, rank) for rank in range(ranks)]
    for order in orders:
        order.set_epoch(5)
    dealt = [list(order) for order in orders]
    assert sorted({k for share in dealt for k in share}) == list(range(20))
    assert len({len(share) for share in dealt}) == 1
    assert [k for turn in zip(*dealt, strict=True) for k in turn][:20] == list(order_of(5))


def order_of(epoch):
    order = EpochOrder(range(20))
    order.set_epoch(epoch)
    return order


def test_the_order_follows_the_seed_and_the_epoch(monkeypatch):
    first = [list(order_of(epoch)) for epoch in range(3)]
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    second = [list(order_of(epoch)) for epoch in range(3)]
    assert len({tuple(order) for order in first + second}) == 6
    assert second == [list(order_of(epoch)) for epoch in range(3)]
