"""Beside what else Lightning does with a module; and after it, all is as it was."""

import copy
import pickle
from contextlib import contextmanager

import lightning as L
import losses_elsewhere
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.plugins import Precision
from nets import CLOSE, Data, Net, trainer
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import ls_lightning as ls
from ls_lightning.functional import smoothed_cross_entropy
from ls_lightning.tap.call import KINDS
from ls_lightning.tap.seam import GATES


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Everywhere(Net):
    """Holds its loss in as many places as one can replace."""

    def __init__(self):
        super().__init__()
        self.function = F.cross_entropy
        self.held = nn.ModuleDict({"loss": nn.CrossEntropyLoss()})

    def loss(self, batch):
        logits, y = self(batch[0]), batch[1]
        calls = [F.cross_entropy, cross_entropy, losses_elsewhere.imported, self.criterion, self.held["loss"]]
        return sum(call(logits, y) for call in [*calls, self.function]) / 6


class Breaks(Everywhere):
    """Raises in one of its steps."""

    def __init__(self, step, error):
        super().__init__()
        self.broken = step, error

    def loss(self, batch):
        loss = super().loss(batch)
        step, error = self.broken
        if step == ("training_step" if self.training else "validation_step"):
            raise error
        return loss


class Raises(L.Callback):
    def __init__(self, hook, error):
        def raises(*args):
            raise error

        setattr(self, hook, raises)


def value(found):
    if isinstance(found, dict):
        return {key: value(inner) for key, inner in found.items()}
    if isinstance(found, str | int | float | bool | None):
        return found
    return Same(found)


class Same:
    """Equal to the very same object alone, and keeps it: an id may be given to another object later."""

    def __init__(self, found):
        self.found = found

    def __eq__(self, other):
        return isinstance(other, Same) and self.found is other.found

    __hash__ = None


WATCHED = [
    *((vars(F), name) for name in KINDS),
    *((namespace, name) for namespace, name, _ in GATES),
    *((vars(losses_elsewhere), name) for name in ("cross_entropy", "renamed_cross_entropy")),
]
UNTOUCHED = [file[name] for file, name in WATCHED]


def attributes_of(net):
    return {(path, name): value(found) for path, module in net.named_modules() for name, found in vars(module).items()}


def changes(net, run):
    """Which attributes of any submodule the run has changed."""
    before, keys = attributes_of(net), list(net.state_dict())
    run(net)
    after = attributes_of(net)
    assert list(net.state_dict()) == keys
    assert [file[name] for file, name in WATCHED] == UNTOUCHED
    assert cross_entropy is F.cross_entropy
    return {name for name in before.keys() | after.keys() if before.get(name, "none") != after.get(name, "none")}


def fit(*callbacks, error=None, data=None, times=1, **kwargs):
    def run(net, ours=()):
        t = trainer(None, *ours, *callbacks, **kwargs)
        for _ in range(times):
            if error is None:
                t.fit(net, datamodule=data or Data())
            else:
                with pytest.raises((error, SystemExit)):
                    t.fit(net, datamodule=data or Data())
        return t

    return run


def validate(net, ours=()):
    t = trainer(None, *ours)
    t.validate(net, datamodule=Data(), verbose=False)
    return t


def fit_then_test(net, ours=()):
    t = fit()(net, ours)
    t.test(net, datamodule=Data(), verbose=False)
    return t


ERRORS = [RuntimeError, KeyboardInterrupt]
HOOKS = ["on_fit_start", "on_train_batch_start", "on_train_batch_end", "on_validation_batch_end", "on_train_epoch_end"]
RUNS = {
    "end": (Everywhere, fit()),
    "fit_fit": (Everywhere, fit(times=2)),
    "fit_test": (Everywhere, fit_then_test),
    "validate": (Everywhere, validate),
    **{
        f"{error.__name__}_in_{step}": (lambda step=step, error=error: Breaks(step, error), fit(error=error))
        for step in ("training_step", "validation_step")
        for error in ERRORS
    },
    **{
        f"{error.__name__}_in_{hook}": (Everywhere, fit(Raises(hook, error), error=error))
        for hook in HOOKS
        for error in ERRORS
    },
}


@pytest.mark.parametrize("target", ["auto", "held.loss", "function"])
@pytest.mark.parametrize("name", RUNS)
def test_all_is_as_it_was(name, target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, run = RUNS[name]
    plugins = []
    select = (lambda call: call.position == 0) if target == "auto" else target

    def with_us(net):
        smoothing, monitor = ls.LabelSmoothing(target=target), ls.CalibrationMonitor(target=select)
        plugins.append(run(net, (smoothing, monitor)).precision_plugin)

    assert changes(make(), with_us) == changes(make(), run)
    assert not [key for key in vars(plugins[0]) if key.endswith("step_context")]


def test_an_exception_in_another_on_exception(tmp_path):
    """After which Lightning calls nobody any more."""

    class Once(Raises):
        def on_train_batch_end(self, *args):
            hook = vars(self).pop("on_exception", None)
            if hook:
                self.on_exception = hook
                raise RuntimeError

    breaks = Once("on_exception", ValueError("worse"))
    t = trainer(tmp_path, breaks, ls.LabelSmoothing(eps=0.2), ls.CalibrationMonitor())
    with pytest.raises(ValueError, match="worse"):
        t.fit(Net(), datamodule=Data())
    del breaks.on_exception
    breaks.on_train_batch_end = lambda *args: None
    net, judge = Net(), Net(nn.CrossEntropyLoss(label_smoothing=0.2))
    t.fit(net, datamodule=Data())
    fit()(judge)
    torch.testing.assert_close(weights(net), weights(judge), **CLOSE)
    assert not [key for key in vars(t.precision_plugin) if key.endswith("step_context")]


def test_no_function_mode_and_no_hook_is_in_the_way_of_a_step(tmp_path):
    class Looks(Net):
        def training_step(self, batch, batch_idx):
            seen.append((torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()))
            assert not any(
                hooks for module in self.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)
            )
            return super().training_step(batch, batch_idx)

        validation_step = training_step

    seen = []
    trainer(tmp_path, ls.LabelSmoothing(), ls.CalibrationMonitor()).fit(Looks(), datamodule=Data())
    assert seen == [(0, 0)] * 24


class Half(Net):
    """In float32, with a layer that autocast computes in bfloat16."""

    def __init__(self, smooth=None):
        super().__init__(dtype=torch.float32)
        self.smooth = smooth

    def loss(self, batch):
        logits, y = self(batch[0]), batch[1]
        self.dtypes = logits.dtype
        return self.smooth(logits, y) if self.smooth and self.training else F.cross_entropy(logits, y)


def smooth(logits, y):
    return smoothed_cross_entropy(logits, y, 0.2)


def torch_smooths(logits, y):
    return F.cross_entropy(logits, y, label_smoothing=0.2)


@pytest.mark.parametrize(
    ("precision", "judge"),
    [
        ("bf16-mixed", smooth),
        ("bf16-mixed", torch_smooths),
        ("bf16-true", smooth),
        pytest.param("16-mixed", smooth, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
def test_precision(tmp_path, precision, judge):
    options = {"precision": precision, "accelerator": "auto"}
    data, net, theirs = Data(dtype=torch.float32), Half(), Half(judge)
    monitor = ls.CalibrationMonitor()
    t = fit(ls.LabelSmoothing(eps=0.2), monitor, data=data, **options)(net)
    fit(data=data, **options)(theirs)
    assert net.dtypes in (torch.bfloat16, torch.float16)
    torch.testing.assert_close(weights(net), weights(theirs), rtol=1e-4, atol=1e-4)
    bare = trainer(tmp_path, **options)
    bare.validate(net, datamodule=data, verbose=False)
    assert t.callback_metrics["author_loss"].item() == bare.callback_metrics["author_loss"].item()
    assert monitor.results["val"]["n"] == 48


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 4},
        {"gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value", "accumulate_grad_batches": 2},
        {"detect_anomaly": True},
        {"fast_dev_run": 3},
        {"overfit_batches": 2},
        {"limit_train_batches": 3, "val_check_interval": 1},
        {"num_sanity_val_steps": 2, "reload_dataloaders_every_n_epochs": 1},
        {"barebones": True},
    ],
    ids=str,
)
def test_trainer_options(tmp_path, options):
    if options.get("barebones"):
        unset = "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "num_sanity_val_steps"
        options = {**options, **dict.fromkeys([*unset, "log_every_n_steps"])}
    net, judge = Net(), Net(nn.CrossEntropyLoss(label_smoothing=0.2))
    smoothing = ls.LabelSmoothing(eps=0.2)
    fit(smoothing, ls.CalibrationMonitor(), **options)(net)
    fit(**options)(judge)
    torch.testing.assert_close(weights(net), weights(judge), **CLOSE)
    assert smoothing.num_smoothed == 1


def test_lbfgs_calls_a_step_many_times(tmp_path):
    class Newton(Net):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), max_iter=4, lr=0.1)

    class Judge(Newton):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=0.2 * self.training)

    net, judge = Newton(), Judge()
    fit(ls.LabelSmoothing(eps=0.2))(net)
    fit()(judge)
    torch.testing.assert_close(weights(net), weights(judge), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "average",
    [
        lambda: StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1),
        lambda: EMAWeightAveraging(decay=0.5),
        lambda: WeightAveraging(),
    ],
    ids=["swa", "ema", "mean"],
)
def test_averages_of_the_module(tmp_path, average):
    net, judge = Net(), Net(nn.CrossEntropyLoss(label_smoothing=0.2))
    monitor = ls.CalibrationMonitor()
    t = fit(ls.LabelSmoothing(eps=0.2), monitor, average(), max_epochs=4)(net)
    fit(average(), max_epochs=4)(judge)
    torch.testing.assert_close(weights(net), weights(judge), **CLOSE)
    assert monitor.results["val"]["nll"] == pytest.approx(t.callback_metrics["author_loss"].item(), abs=1e-6)


@pytest.mark.parametrize("target", ["auto", "criterion", "function"])
def test_a_copy_made_in_a_step_is_the_author_s_own(tmp_path, target):
    class Copies(Net):
        def __init__(self):
            super().__init__()
            self.function = F.cross_entropy
            self.copies = []

        def loss(self, batch):
            logits, y = self(batch[0]), batch[1]
            return self.criterion(logits, y) + self.function(logits, y)

        def training_step(self, batch, batch_idx):
            if not self.copies:
                self.copies.append(copy.deepcopy(self))
            return super().training_step(batch, batch_idx)

    net, batch = Copies(), next(iter(Data().train_dataloader()))
    expected = net.loss(batch)
    fit(ls.LabelSmoothing(eps=0.2, target=target))(net)
    (made,) = net.copies
    assert made.criterion is not net.criterion
    assert torch.equal(made.loss(batch), expected)
    net = made
    fit(ls.LabelSmoothing(eps=0.2, target=target))(net)
    judge = Copies()
    if target != "function":
        judge.criterion.label_smoothing = 0.2
    if target != "criterion":
        judge.function = lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.2)
    fit()(judge)
    torch.testing.assert_close(weights(net), weights(judge), **CLOSE)


@pytest.mark.parametrize("make", [lambda: ls.LabelSmoothing(schedule="linear"), ls.CalibrationMonitor])
def test_the_callbacks_can_be_pickled(tmp_path, make):
    callback = make()
    pickle.dumps(callback)
    fit(callback)(Net())
    del callback.log, callback.log_dict  # Lightning's, bound to the module
    pickle.dumps(callback)


def test_another_module_after_an_exception(tmp_path):
    smoothing, monitor = ls.LabelSmoothing(target="held.loss"), ls.CalibrationMonitor(target="held.loss")
    t = trainer(tmp_path, smoothing, monitor)
    with pytest.raises(RuntimeError):
        t.fit(Breaks("validation_step", RuntimeError), datamodule=Data())
    t.fit(Everywhere(), datamodule=Data())
    assert monitor.results["val"]["n"] == 48


@pytest.mark.parametrize("method", ["train_step_context", "val_step_context", "forward_context"])
@pytest.mark.parametrize("held_by", ["class", "instance"])
def test_the_context_of_a_precision_plugin_is_entered_in_each_step(method, held_by):
    def entered(*callbacks):
        times = []

        @contextmanager
        def context(*_):
            times.append(1)
            yield

        plugin = type("Own", (Precision,), {method: context} if held_by == "class" else {})()
        if held_by == "instance":
            setattr(plugin, method, context)
        trainer(None, *callbacks, plugins=[plugin]).fit(Net(), datamodule=Data())
        return len(times)

    alone = entered()
    assert alone > 0
    assert entered(ls.LabelSmoothing(), ls.CalibrationMonitor()) == alone
