import copy
import csv
import itertools
import math
import pickle

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Data, LogProbNet, Net, Silent, trainer
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

import ls_lightning as ls
from ls_lightning.functional import smoothed_cross_entropy
from ls_lightning.loggers import CSVHistory
from ls_lightning.losses import FunctionLoss, SmoothedCrossEntropy, SmoothedKLDiv
from ls_lightning.schedules import Constant, Cosine, Delayed, Linear, TwoStage


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def fit(net, tmp_path, *callbacks, data=None, **kwargs):
    trainer(tmp_path, *callbacks, **kwargs).fit(net, datamodule=data or Data())
    return net


CLASS_WEIGHT = torch.tensor([1, 2, 0.5, 4, 1], dtype=torch.float64)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 2}, {"reduction": "sum"}])
def test_trains_as_torch_smooths(tmp_path, eps, options):
    ours = fit(Net(nn.CrossEntropyLoss(**options)), tmp_path, ls.LabelSmoothing(eps=eps))
    theirs = fit(Net(nn.CrossEntropyLoss(label_smoothing=eps, **options)), tmp_path)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.seen, theirs.seen, rtol=1e-6, atol=1e-7)


def test_keeps_the_class_weights_of_the_author(tmp_path):
    ours = fit(Net(nn.CrossEntropyLoss(weight=CLASS_WEIGHT)), tmp_path, ls.LabelSmoothing(eps=0.0))
    theirs = fit(Net(nn.CrossEntropyLoss(weight=CLASS_WEIGHT)), tmp_path)
    plain = fit(Net(), tmp_path)
    torch.testing.assert_close(weights(ours), weights(theirs))
    assert not torch.allclose(weights(ours), weights(plain))


def test_log_probabilities(tmp_path):
    ours = fit(LogProbNet(), tmp_path, ls.LabelSmoothing(eps=0.1))
    theirs = fit(Net(nn.CrossEntropyLoss(label_smoothing=0.1)), tmp_path)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)


def test_binary(tmp_path):
    data = Data(target=lambda y: F.one_hot(y, 5).double())
    smooth = Data(target=lambda y: 0.9 * F.one_hot(y, 5).double() + 0.05)
    ours = fit(Net(nn.BCEWithLogitsLoss()), tmp_path, ls.LabelSmoothing(loss="bce", eps=0.1), data=data)
    theirs = fit(Net(nn.BCEWithLogitsLoss()), tmp_path, data=smooth)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)


def test_a_function_as_loss(tmp_path):
    def loss(logits, target, eps):
        return F.cross_entropy(logits, target, label_smoothing=float(eps))

    ours = fit(Net(), tmp_path, ls.LabelSmoothing(loss=loss, schedule=Constant(0.1)))
    theirs = fit(Net(nn.CrossEntropyLoss(label_smoothing=0.1)), tmp_path)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)


def test_a_module_as_loss_keeps_its_own_eps(tmp_path):
    callback = ls.LabelSmoothing(loss=SmoothedKLDiv(eps=0.2))
    ours = fit(Net(), tmp_path, callback)
    named = fit(Net(), tmp_path, ls.LabelSmoothing(loss="kl", eps=0.2))
    assert callback.eps == pytest.approx(0.2)
    torch.testing.assert_close(weights(ours), weights(named), rtol=1e-6, atol=1e-7)


class Own(nn.Module):
    def forward(self, logits, target):
        return F.cross_entropy(logits, target)


class Hot(Net):
    """Calls its loss with one-hot targets."""

    def loss(self, batch):
        return self.criterion(self(batch[0]), F.one_hot(batch[1], 5).double())


def test_target_names_a_loss_of_any_class(tmp_path):
    ours = fit(Net(Own()), tmp_path, ls.LabelSmoothing(eps=0.1, target="criterion"))
    theirs = fit(Net(nn.CrossEntropyLoss(label_smoothing=0.1)), tmp_path)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)


def snapshot(net):
    state = {key: value.clone() for key, value in net.state_dict().items()}
    return list(net.named_modules()), dict(net.__dict__), list(state)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_module_is_left_as_it_was(tmp_path, error):
    class Breaks(Net):
        def training_step(self, batch, batch_idx):
            assert self.criterion is own
            assert F.cross_entropy is not original
            loss = super().training_step(batch, batch_idx)
            if error and batch_idx == 2:
                raise error
            return loss

        def validation_step(self, batch, batch_idx):
            assert F.cross_entropy is original
            super().validation_step(batch, batch_idx)

    own, original = nn.CrossEntropyLoss(weight=CLASS_WEIGHT), F.cross_entropy
    net = Breaks(own)
    modules, attributes, keys = snapshot(net)
    if error:
        with pytest.raises((error, SystemExit)):
            fit(net, tmp_path, ls.LabelSmoothing())
    else:
        fit(net, tmp_path, ls.LabelSmoothing())
    after = snapshot(net)
    assert F.cross_entropy is original
    assert all(a is c and b == d for (b, a), (d, c) in zip(after[0], modules, strict=True))
    assert after[1].keys() - {"_hparams"} == attributes.keys()  # Lightning's own
    assert after[2] == keys
    copy.deepcopy(net)
    pickle.dumps(net.criterion)


def test_validation_is_never_smoothed(tmp_path):
    net = Net()
    t = trainer(tmp_path, ls.LabelSmoothing(eps=0.3))
    t.fit(net, datamodule=Data())
    x, y = Data().set.tensors
    expected = sum(F.cross_entropy(net(a), b) for a, b in zip(x.split(8), y.split(8), strict=True)) / 6
    torch.testing.assert_close(t.callback_metrics["author_loss"].double(), expected.detach(), rtol=1e-6, atol=0)


def test_checkpoints_in_training_load_without_us(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    net = Net(nn.CrossEntropyLoss(weight=CLASS_WEIGHT))
    fit(net, tmp_path, ls.LabelSmoothing(), checkpoint, enable_checkpointing=True)
    path = next(iter(tmp_path.glob("*step=3.ckpt")))
    state = torch.load(path, weights_only=False)
    Net(nn.CrossEntropyLoss(weight=CLASS_WEIGHT)).load_state_dict(state["state_dict"])


class Stop(L.Callback):
    def __init__(self, batches):
        self.left = batches

    def on_train_batch_end(self, *args):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def logged(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row["ls/eps"]) for row in csv.DictReader(file) if row["ls/eps"]}


@pytest.mark.parametrize(("accumulate", "batches"), [*itertools.product([1, 2, 4], [4, 5, 6, 9, 11]), (1, 1), (2, 3)])
def test_a_resumed_run_continues_the_curve(tmp_path, accumulate, batches):
    """12 batches in 2 epochs, interrupted after any of them, in the middle of an epoch or an accumulation."""
    schedule = Cosine(0.3, 0.05)
    options = {"accumulate_grad_batches": accumulate, "enable_checkpointing": True}

    def run(folder, *callbacks, **kwargs):
        t = trainer(folder, ls.LabelSmoothing(schedule=schedule), *callbacks, logger=CSVHistory(folder), **options)
        t.fit(Net(), datamodule=Data(), weights_only=False, **kwargs)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    checkpoint = ModelCheckpoint(parts, save_top_k=0, save_last=True, save_on_exception=True)
    with pytest.raises(SystemExit):
        run(parts, Stop(batches), checkpoint)
    run(parts, ckpt_path=parts / "last.ckpt")
    steps = 2 * math.ceil(6 / accumulate)
    assert logged(whole) == {step: schedule(step / steps) for step in range(steps)}
    assert logged(parts) == logged(whole)


def test_a_longer_resumed_run_keeps_the_horizon_and_says_so(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit(Net(), tmp_path, ls.LabelSmoothing(schedule=Linear(0.2)), checkpoint, enable_checkpointing=True)
    callback = ls.LabelSmoothing(schedule=Linear(0.2))
    t = trainer(tmp_path, callback, max_epochs=4)
    with pytest.warns(UserWarning, match="over 12 steps, as the checkpoint says, not over the 24"):
        t.fit(Net(), datamodule=Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert callback.eps == 0.0


def test_fit_twice_starts_afresh(tmp_path):
    callback = ls.LabelSmoothing(schedule=TwoStage(0.1, 0.5))
    first = fit(Net(), tmp_path, callback)
    second = fit(Net(), tmp_path, callback)
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)


def test_manual_optimisation_with_two_optimizers(tmp_path):
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD([p], lr=0.1) for p in self.layer.parameters()]

    callback = ls.LabelSmoothing(schedule=Linear(0.12, 0.0))
    fit(Manual(), tmp_path, callback, logger=CSVHistory(tmp_path))
    assert logged(tmp_path) == {step: pytest.approx(0.12 * (1 - step / 12)) for step in range(12)}


def test_horizon_unknown(tmp_path):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield from Data().set

    loader = torch.utils.data.DataLoader(Endless(), 8)
    t = trainer(tmp_path, ls.LabelSmoothing(schedule="linear"), limit_val_batches=0)
    with pytest.raises(ValueError, match="total_steps"):
        t.fit(Net(), loader)
    callback = ls.LabelSmoothing(schedule="linear", total_steps=4)
    t = trainer(tmp_path, callback, limit_val_batches=0, max_steps=3)
    t.fit(Net(), loader)
    assert callback.eps == pytest.approx(0.05)


def test_usual_eps_and_schedule_names():
    assert ls.LabelSmoothing().eps == 0.1
    assert ls.LabelSmoothing(loss="soft_ce").eps == 0.5
    assert ls.LabelSmoothing(loss="none").eps == 0
    assert ls.LabelSmoothing(eps=0.3, schedule="linear").schedule == Linear(0.3, 0.0)
    assert ls.LabelSmoothing(schedule=Linear(0.2, 0.1)).eps == 0.2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": 1.2}, ValueError, r"eps must be in \[0, 1\), got 1.2"),
        ({"eps": math.nan}, ValueError, r"eps must be in \[0, 1\), got nan"),
        ({"eps": -0.1}, ValueError, r"eps must be in \[0, 1\), got -0.1"),
        ({"loss": "typo"}, ValueError, "loss must be one of"),
        ({"loss": "none", "eps": 0.1}, ValueError, "takes eps=0"),
        ({"schedule": "typo"}, ValueError, "schedule must be one of"),
        ({"schedule": 3}, TypeError, "schedule must be a name or a schedule"),
        ({"eps": 0.2, "schedule": Linear(0.1)}, ValueError, "give eps or a schedule"),
        ({"total_steps": 0}, ValueError, "total_steps must be"),
        ({"loss": SmoothedKLDiv}, TypeError, "got the class SmoothedKLDiv: pass SmoothedKLDiv"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ls.LabelSmoothing(**arguments)


@pytest.mark.parametrize(
    ("net", "callback", "error", "message"),
    [
        (lambda: Silent(), {}, LookupError, r"no cross-entropy was seen in Silent\.training_step"),
        (lambda: Net(nn.CrossEntropyLoss(label_smoothing=0.1)), {}, ValueError, "already smooths"),
        (lambda: Hot(nn.BCEWithLogitsLoss()), {}, LookupError, "Use loss='bce'"),
        (lambda: Net(), {"loss": "bce"}, LookupError, "Use loss='ce'"),
        (lambda: Hot(nn.L1Loss()), {}, LookupError, "no cross-entropy was seen in Hot"),
        (lambda: Net(), {"target": "typo"}, LookupError, "no submodule 'typo'"),
        (
            lambda: Net(nn.CrossEntropyLoss(ignore_index=2)),
            {"loss": SmoothedCrossEntropy(ignore_index=1)},
            ValueError,
            "ignore_index is given twice: 2 by the module's own loss and 1",
        ),
        (
            lambda: Net(nn.CrossEntropyLoss(ignore_index=2)),
            {"loss": Own()},
            ValueError,
            "which the loss Own cannot take",
        ),
        (lambda: Net(), {"loss": nn.Identity(), "eps": 0.1}, ValueError, "no set_eps"),
        (lambda: Net(), {"loss": lambda z, y, eps: None}, TypeError, "must return a tensor, got None from <lambda>"),
    ],
)
def test_a_module_that_cannot_be_smoothed(tmp_path, net, callback, error, message):
    net = net()
    modules = list(net.named_modules())
    with pytest.raises(error, match=message):
        fit(net, tmp_path, ls.LabelSmoothing(**callback))
    assert list(net.named_modules()) == modules


def test_a_loss_class_of_ones_own_takes_what_its_function_takes(tmp_path):
    class Mine(FunctionLoss):
        def __init__(self, eps=0.1):
            super().__init__(smoothed_cross_entropy, eps)

    weight = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    net, judge = (Net(nn.CrossEntropyLoss(weight=weight, ignore_index=2)) for _ in range(2))
    ours = fit(net, tmp_path, ls.LabelSmoothing(Mine(0.2)))
    torch.testing.assert_close(weights(ours), weights(fit(judge, tmp_path, ls.LabelSmoothing(eps=0.2))))


def test_only_the_losses_of_the_kind_are_smoothed(tmp_path):
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.auxiliary = nn.BCEWithLogitsLoss()

        def loss(self, batch):
            x, y = batch
            return super().loss(batch) + self.auxiliary(self(x), F.one_hot(y, 5).double())

    class Judge(Two):
        def loss(self, batch):
            x, y = batch
            smooth = F.cross_entropy(self(x), y, label_smoothing=0.2)
            return smooth + F.binary_cross_entropy_with_logits(self(x), F.one_hot(y, 5).double())

    ours = fit(Two(), tmp_path, ls.LabelSmoothing(eps=0.2))
    torch.testing.assert_close(weights(ours), weights(fit(Judge(), tmp_path)), rtol=1e-6, atol=1e-7)


def test_smoothing_twice_is_noticed(tmp_path):
    data = Data(target=lambda y: 0.9 * F.one_hot(y, 5).double() + 0.02)
    with pytest.warns(UserWarning, match="smooth already"):
        fit(Net(), tmp_path, ls.LabelSmoothing(eps=0.1), data=data)


def test_a_compiled_step_compiles_once_for_a_whole_schedule(tmp_path):
    class Compiled(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(batch)

    torch._dynamo.reset()
    counter = CompileCounter()
    net = Compiled()
    net.training_step = torch.compile(net.training_step, backend=counter, fullgraph=True)
    fit(net, tmp_path, ls.LabelSmoothing(schedule=Linear(0.3, 0.0)), limit_val_batches=0)
    assert counter.frame_count == 1
    judge = Compiled()
    fit(judge, tmp_path, ls.LabelSmoothing(schedule=Linear(0.3, 0.0)), limit_val_batches=0)
    torch.testing.assert_close(weights(net), weights(judge))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "focal", "schedule": "cosine"}, "loss='focal' takes no eps"),
        ({"loss": "none", "schedule": "linear"}, "loss='none' takes no eps"),
        ({"loss": "negative", "eps": 0.1}, "eps of loss=negative must be at most 0, got 0.1"),
        ({"loss": "negative", "schedule": Delayed(0.1, 0.5)}, "must stay at most 0"),
        ({"loss": SmoothedCrossEntropy(), "schedule": Delayed(-0.4, 0.5)}, "must return eps in"),
        ({"total_steps": 2.5}, "total_steps must be an integer"),
    ],
)
def test_what_cannot_be_is_said_before_a_run(options, words):
    with pytest.raises(ValueError, match=words):
        ls.LabelSmoothing(**options)
