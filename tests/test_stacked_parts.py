"""The parts of a stack: groups, order, network, losses, temperatures, optimizer."""

import copy
import math
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from stacks import jobs
from torch import nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from ls_lightning.callbacks.stage_metrics import StageMetrics
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.temperature import fit_temperature
from ls_lightning.loggers import CSVHistory
from ls_lightning.losses import build_loss
from ls_lightning.metrics import BrierScore, default_metrics, full_metrics
from ls_lightning.stacked.data import StackedOrder
from ls_lightning.stacked.groups import Candidate, plan
from ls_lightning.stacked.history import StackedHistory
from ls_lightning.stacked.losses import StackedLoss
from ls_lightning.stacked.measures import measure_members
from ls_lightning.stacked.network import StackedNetwork
from ls_lightning.stacked.optimizer import StackedOptimizer, clip_members
from ls_lightning.stacked.temperatures import fit_members
from ls_lightning.stacked.values import values_of_members
from ls_lightning.sweep.folder import as_yaml
from ls_lightning.zoo.data_order import EpochOrder
from ls_lightning.zoo.models import CNN, MLP


def planned(folder, *members, besides=()):
    return plan([Candidate(job.config, Path(job.folder)) for job in [*jobs(folder, members), *besides]])


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Two jobs that fit together."""
    return jobs(tmp_path_factory.mktemp("usual"), ["eps=0", "eps=0.1"])


def test_what_fits_together(tmp_path):
    stacks, alone = planned(
        tmp_path, "eps=0", "eps=0.1 seed=1 optimizer.lr=0.1", "eps=0.1 loss=kl schedule=linear", "loss=focal eps=0",
        "model=linear eps=0", "model=linear eps=0.1", "data.batch_size=32", "optimizer.weight_decay=0 name=mine",
    )  # fmt: skip
    assert stacks == [[0, 1, 2, 3, 7], [4, 5]]
    assert list(alone) == [6]
    assert alone[6].startswith("no other job differs from it only in eps")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model=cnn", "model CNN: convolutions gain nothing"),
        ("model._target_=torch.nn.Identity", "the model torch.nn.Identity has no stacked form"),
        ("data.num_workers=1", "data.num_workers is above 0"),
        ("loss=online", "loss OnlineLabelSmoothing learns its target"),
        ("loss.ignore_index=3", "loss.ignore_index is set"),
        ("schedule=feedback", "schedule=feedback follows the job's own validation"),
        (
            "optimizer._target_=torch.optim.LBFGS ~optimizer.weight_decay",
            "the optimizer torch.optim.LBFGS is not known",
        ),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches is set"),
        ("++data.ignore_index=255", "data.ignore_index is set"),
        ("trainer.precision=bf16-mixed", "trainer.precision is set"),
        ("trainer.devices=2", "trainer.devices is set"),
        ("trainer.check_val_every_n_epoch=2", "trainer.check_val_every_n_epoch is set"),
        ("trainer.max_steps=10", "trainer.max_steps is set"),
        ("trainer.limit_val_batches=1", "trainer.limit_val_batches is set"),
        ("trainer.limit_test_batches=0", "trainer.limit_test_batches is set"),
        ("callbacks=best", "callbacks.best is added"),
        ("~callbacks.temperature_scaling", "callbacks.temperature_scaling is left away"),
        ("callbacks.label_smoothing.target=criterion", "callbacks.label_smoothing.target is set"),
        ("callbacks.calibration_monitor.train=true", "callbacks.calibration_monitor.train is set"),
        ("logger=wandb", "logger.wandb is added"),
    ],
)
def test_what_is_a_process(tmp_path, usual, override, reason):
    stacks, alone = planned(tmp_path, override, besides=usual)
    assert stacks == [[1, 2]]
    assert alone[0].startswith(reason)


def test_what_fits_on_a_gpu(tmp_path):
    """Convolutions, too; on a CPU they stay alone, and a GPU is no place for a stack unless it is asked for."""
    found = jobs(tmp_path, [f"eps={eps} model={model} trainer=gpu" for model in ("mlp", "cnn") for eps in (0, 0.1)])
    on_gpu = [Candidate(job.config, Path(job.folder), gpu=True) for job in found]
    assert plan(on_gpu) == ([[0, 1], [2, 3]], {})
    stacks, alone = plan([Candidate(job.config, Path(job.folder)) for job in found])
    assert stacks == []
    assert alone[0] == "trainer.accelerator is set"
    assert alone[2].startswith("model CNN: convolutions gain nothing")


def test_a_variable_that_smooths_is_left_to_the_job(tmp_path, usual, monkeypatch):
    monkeypatch.setenv("LS_EPS", "0.1")
    assert planned(tmp_path, besides=usual) == ([], {0: "LS_EPS is set", 1: "LS_EPS is set"})


@pytest.mark.parametrize("epoch", [0, 3])
def test_each_member_has_the_order_that_it_has_alone(epoch, monkeypatch):
    seeds, size = [4, 0, 4], 23
    stacked = StackedOrder(size, 5, seeds)
    stacked.set_epoch(epoch)
    steps = list(stacked)
    assert [step.shape for step in steps] == [(3, 5)] * 4 + [(3, 3)]
    assert len(stacked) == 5
    for seed, own in zip(seeds, torch.cat(steps, 1), strict=True):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        order = EpochOrder(range(size))
        order.set_epoch(epoch)
        assert own.tolist() == list(order)


@pytest.mark.parametrize("build", [lambda: MLP((1, 8, 8), 10), lambda: CNN((1, 8, 8), 10, channels=[4, 8])])
def test_stacked_networks_are_each_network(build):
    """With the running statistics of batch norm."""
    torch.manual_seed(0)
    networks = [build().double() for _ in range(3)]
    stacked = StackedNetwork(networks)
    x = torch.randn(3, 16, 1, 8, 8, dtype=torch.float64)
    for mode in (True, True, False):
        stacked.train(mode)
        found = stacked(x)
        for network, own, logits in zip(networks, x, found, strict=True):
            torch.testing.assert_close(logits, network.train(mode)(own), rtol=1e-12, atol=1e-12)
    for k, network in enumerate(networks):
        torch.testing.assert_close(stacked.state_of(k), dict(network.state_dict()), rtol=1e-12, atol=1e-12)
    shared = stacked(x[0], shared=True)
    torch.testing.assert_close(shared[1], networks[1](x[0]), rtol=1e-12, atol=1e-12)


def test_dropout_draws_what_each_network_draws():
    networks = [MLP((5,), 3, hidden=[40, 20], dropout=0.3) for _ in range(3)]
    stacked, x = StackedNetwork(networks), torch.randn(3, 8, 5)
    stacked.seed(range(3))
    found = stacked(x)
    for seed, (network, own, logits) in enumerate(zip(networks, x, found, strict=True)):
        torch.manual_seed(seed)
        torch.testing.assert_close(logits, network(own))
    stacked.eval()
    torch.testing.assert_close(stacked(x)[1], networks[1].eval()(x[1]))


OPTIMIZERS = ["AdamW", "Adam amsgrad=true", "SGD momentum=0.9 nesterov=true weight_decay=0.1", "AdamW foreach=true"]
OTHERS = ["Adagrad", "NAdam", "RAdam", "RMSprop momentum=0.9"]


@pytest.mark.parametrize(
    ("name", "clip"),
    [*((name, clip) for name in OPTIMIZERS for clip in ("norm", "value")), *((name, None) for name in OTHERS)],
)
def test_one_optimizer_is_each_optimizer(name, clip):
    """With learning rates that differ: groups of two, one and one."""
    torch.manual_seed(0)
    cls, *options = name.split()
    rates, limit = (0.01, 0.01, 0.1, 0.01), 0.02
    settings = [OmegaConf.from_dotlist([f"_target_=torch.optim.{cls}", f"lr={lr}", *options]) for lr in rates]
    networks = [MLP((5,), 3, hidden=[4]).double() for _ in rates]
    stacked, x = StackedNetwork(networks), torch.randn(4, 8, 5, dtype=torch.float64)
    together = StackedOptimizer(list(stacked.parameters()), settings)
    own = [instantiate(each, _partial_=True)(network.parameters()) for each, network in zip(settings, networks)]  # noqa: B905
    torch_clips = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}.get(clip)
    for _ in range(3):
        stacked.zero_grad()
        stacked(x).logsumexp(-1).mean(1).sum().backward()
        together.take_gradients()
        if clip:
            clip_members(list(stacked.parameters()), limit, clip)
        together.optimizer.step()
        for network, each, inputs in zip(networks, own, x, strict=True):
            each.zero_grad()
            network(inputs).logsumexp(-1).mean().backward()
            if torch_clips:
                torch_clips(network.parameters(), limit)
            each.step()
    state = together.optimizer.state_dict()
    for k, (network, each) in enumerate(zip(networks, own, strict=True)):
        found, wanted = together.state_of(state, k), each.state_dict()
        torch.testing.assert_close(found["state"], wanted["state"], rtol=1e-12, atol=1e-12)
        assert found["param_groups"] == wanted["param_groups"]
        torch.testing.assert_close(stacked.state_of(k), dict(network.state_dict()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0, 0.0, 1.0]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_of_several_kinds_with_an_eps_each(dtype, reduction, weight):
    names = ["ce", "kl", "ce", "relaxation", "margin", "soft_ce", "ce", "focal", "none"]
    losses = [build_loss(name, reduction=reduction, weight=weight) for name in names]
    rng = torch.Generator().manual_seed(0)
    stacked = StackedLoss(losses, names)
    for shift in (0.0, 0.05):
        eps = [0.1 * k + shift for k in range(len(names) - 2)]
        for loss, value in zip(losses, eps, strict=False):
            loss.set_eps(value)
        stacked.set_eps([*eps, 0.0, 0.0])
        logits = torch.randn(9, 6, 5, dtype=dtype, generator=rng, requires_grad=True)
        target = torch.randint(5, (9, 6), generator=rng)
        target[:-1][::4] = 3  # of weight 0
        found = stacked(logits, target)
        wanted = torch.stack([loss(own, labels) for loss, own, labels in zip(losses, logits, target, strict=True)])
        torch.testing.assert_close(found, wanted)
        gradients = [torch.autograd.grad(values.sum(), logits, retain_graph=True)[0] for values in (found, wanted)]
        torch.testing.assert_close(*gradients)


def test_binary_losses_with_an_eps_each():
    losses = [build_loss("bce", eps=eps, pos_weight=[3.0], weight=[0.5]) for eps in (0.0, 0.1, 0.4)]
    logits, target = torch.randn(3, 9, dtype=torch.float64), torch.randint(2, (3, 9)).double()
    wanted = [
        F.binary_cross_entropy_with_logits(
            own, (1 - eps) * labels + eps / 2, weight=torch.tensor(0.5), pos_weight=torch.tensor(3.0)
        )
        for own, labels, eps in zip(logits, target, (0.0, 0.1, 0.4), strict=True)
    ]
    torch.testing.assert_close(StackedLoss(losses, ["bce"] * 3)(logits, target), torch.stack(wanted))


def test_temperatures():
    torch.manual_seed(0)
    target = torch.randint(4, (50,))
    logits = torch.randn(7, 50, 4) + 2 * F.one_hot(target, 4)
    logits[1] *= 30
    logits[2], logits[6] = 9 * F.one_hot(target, 4), -logits[0]  # at the bounds
    logits[3] = 0.0
    logits[4, 0] = torch.nan
    found = fit_members(logits, target, Spec(ignore_index=-100), (0.01, 100.0))
    assert found[4] is None
    for k in (0, 1, 2, 3, 5, 6):
        assert found[k] == pytest.approx(fit_temperature(logits[k], target), rel=1e-10, abs=1e-12)
    assert (found[2].temperature, found[6].temperature, found[3].temperature) == (0.01, 100.0, 1.0)
    binary, target[:3] = torch.randn(3, 50), -100
    for own, fit in zip(binary, fit_members(binary, target % 2, Spec("binary"), (0.01, 100.0)), strict=True):
        assert fit == pytest.approx(fit_temperature(own, target % 2, task="binary"), rel=1e-10)


def test_networks_are_not_changed():
    networks = [MLP((2,), 2, hidden=[]) for _ in range(2)]
    before = copy.deepcopy(networks[0].state_dict())
    stacked = StackedNetwork(networks)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.zero_()
    torch.testing.assert_close(networks[0].state_dict(), before)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize(
    "build", [default_metrics, full_metrics, lambda **options: MetricCollection([BrierScore(**options)])]
)
def test_metrics_to_the_bit(task, build):
    """Those of ours in one pass, others one by one; NaN in one member is nobody else's."""
    torch.manual_seed(0)
    shape = (30,) if task == "binary" else (30, 4)
    target = torch.randint(4, (30,)) if task == "multiclass" else torch.randint(2, shape).float()
    options = {"task": task, **({"ignore_index": -100} if task == "multiclass" else {})}
    outputs = [Outputs(3 * torch.randn(shape), target, options, 30) for _ in range(3)]
    outputs[1].logits[0] = torch.nan
    trainer = L.Trainer(logger=False, accelerator="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure_members(build, outputs, trainer)
        for own, measured in zip(outputs, found, strict=True):
            metrics = StageMetrics(build, 1)
            metrics.update(0, own)
            (wanted,) = metrics.measure(trainer, torch.device("cpu"))
            assert repr(measured.values) == repr(wanted.values)
            for name, (_, sums) in wanted.states.items():
                assert measured.states[name][1].equal(sums)
    assert math.isnan(next(iter(found[1].values.values())))
    assert found[1].values["n"] == 0


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_values_in_training_are_the_metrics(task):
    torch.manual_seed(0)
    target = (
        torch.randint(4, (90,)) if task == "multiclass" else torch.randint(2, (90,) if task == "binary" else (90, 4))
    )
    logits = 2 * torch.randn(3, 90, *(() if task == "binary" else (4,)))
    logits[1] = logits[1].round()  # ties
    metrics = default_metrics(task)
    for own, found in zip(logits, values_of_members(metrics, logits, target), strict=True):
        metrics.reset()
        metrics.update(own, target)
        wanted = {name: value.item() for name, value in metrics.compute().items()}
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
        assert list(found) == list(wanted)
    logits[2, 0] = torch.nan
    assert values_of_members(metrics, logits, target) is None
    assert values_of_members(full_metrics(task), logits[:2], target) is None


def test_rows_are_written_as_the_logger_writes_them(tmp_path):
    """Also where they are written in between, and columns are added that earlier rows do not have."""
    logger = CSVHistory(tmp_path / "alone")
    for name in ("alone", "stacked"):
        (tmp_path / name).mkdir()
    history = StackedHistory([tmp_path / "stacked"])
    rows = [{"a": 0.1, "epoch": 0}, {"a": 1e-9, "epoch": 0}, {"b": math.nan}, {"a": 2.0, "c": 3.5, "b": 7.0}]
    for k, values in enumerate(rows):
        step = min(k, 2)  # the last two are of one step
        logger.log_metrics(dict(values), step)
        history.add(0, step, dict(values))
        history.write(0)
    logger.finalize("success")
    assert (tmp_path / "stacked" / "metrics.csv").read_bytes() == (tmp_path / "alone" / "metrics.csv").read_bytes()


def test_a_configuration_is_written_as_omegaconf_writes_it():
    odd = ["1e3", "1_000", "0x1", "on", "null", "~", "", "a: b", "08", "nan", ".inf", "é ü", "two\nlines", "- x", "12"]
    config = {"texts": odd, "numbers": [1e-5, 3, True, None, math.inf], "same": [odd, odd], "empty": {}, "7": 1.0}
    assert OmegaConf.to_container(OmegaConf.create(as_yaml(config))) == config
    assert as_yaml(config) == OmegaConf.to_yaml(OmegaConf.create(config))
