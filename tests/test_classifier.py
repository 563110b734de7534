"""The plain classifier: its loss, what it logs, its optimizer and scheduler, its checkpoints."""

import re
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning
from ls_lightning.zoo.classifier import Classifier
from ls_lightning.zoo.data_sklearn import BreastCancerData, DigitsData
from ls_lightning.zoo.models import CNN, MLP, Linear, ResNet

CONF = Path(ls_lightning.__file__).parent.parent / "conf"


def batch(task, n=6, features=4, classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=rng)
    if task == "multiclass":
        return x, torch.randint(classes, (n,), generator=rng)
    shape = (n,) if task == "binary" else (n, classes)
    return x, torch.randint(2, shape, generator=rng).float()


def classifier(task, **options):
    torch.manual_seed(1)
    return Classifier(Linear((4,), 1 if task == "binary" else 3), task=task, **options)


def trainer(folder, **options):
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return L.Trainer(**settings | options)


def loader(task, n=22, size=8, **options):
    return DataLoader(TensorDataset(*batch(task, n, **options)), size)


LOSSES = {
    "multiclass": F.cross_entropy,
    "binary": lambda z, y: F.binary_cross_entropy_with_logits(z.squeeze(1), y),
    "multilabel": F.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("task", LOSSES)
def test_training_loss_is_torchs(task):
    model, (x, y) = classifier(task), batch(task)
    torch.testing.assert_close(model.training_step((x, y), 0), LOSSES[task](model.model(x), y))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_integer_targets_of_binary_tasks_are_taken(task):
    model, (x, y) = classifier(task), batch(task)
    torch.testing.assert_close(model.training_step((x, y.long()), 0), model.training_step((x, y), 0))


@pytest.mark.parametrize(("task", "shape"), [("multiclass", (6, 3)), ("binary", (6,)), ("multilabel", (6, 3))])
def test_forward_gives_logits(task, shape):
    assert classifier(task)(batch(task)[0]).shape == shape


def test_a_binary_network_may_give_one_dimension():
    model, (x, y) = Classifier(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), task="binary"), batch("binary")
    assert model(x).shape == (6,)
    assert model.training_step((x, y), 0).isfinite()


@pytest.mark.parametrize("task", LOSSES)
def test_every_step_calls_the_criterion_once_as_a_module(task, tmp_path):
    model, seen = classifier(task), []
    model.criterion.register_forward_hook(lambda module, args, out: seen.append((model.training, len(args[1]))))
    fit = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    fit.fit(model, loader(task), loader(task))
    assert seen == [(True, 8), (True, 8), (True, 6), (False, 8), (False, 8), (False, 6)]
    seen.clear()
    fit.test(model, loader(task), verbose=False)
    assert seen == [(False, 8), (False, 8), (False, 6)]


@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("stage", ["val", "test"])
def test_logged_loss_is_the_mean_over_samples_not_batches(task, stage, tmp_path):
    model, data = classifier(task), loader(task)
    run = trainer(tmp_path)
    (logged,) = getattr(run, {"val": "validate", "test": "test"}[stage])(model, data, verbose=False)
    with torch.no_grad():
        expected = LOSSES[task](model.model(data.dataset.tensors[0]), data.dataset.tensors[1])
    assert list(logged) == [f"{stage}/loss"]
    assert logged[f"{stage}/loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_training_logs_nothing_of_its_own(tmp_path):
    run = trainer(tmp_path)
    run.fit(classifier("multiclass"), loader("multiclass"), loader("multiclass"))
    assert set(run.logged_metrics) == {"val/loss"}


def test_hyperparameters_are_saved_without_network_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = classifier("binary", optimizer=partial(torch.optim.SGD, lr=0.1), scheduler_interval="step")
    assert dict(model.hparams) == {"task": "binary", "scheduler_interval": "step"}


def test_checkpoint_restores_the_weights(tmp_path):
    model, run = classifier("multiclass"), trainer(tmp_path)
    run.fit(model, loader("multiclass"), loader("multiclass"))
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", model=Linear((4,), 3))
    x = batch("multiclass")[0]
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    assert all(key.startswith("model.") for key in loaded.state_dict())


def test_default_optimizer_is_adamw_as_torch_has_it():
    optimizer = classifier("multiclass").configure_optimizers()
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults == torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizer_configs_build(name):
    config = OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")
    optimizer = classifier("multiclass", optimizer=instantiate(config)).configure_optimizers()
    assert type(optimizer) is {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    for key, value in config.items():
        if not key.startswith("_"):
            assert optimizer.defaults[key] == value, key
    assert isinstance(config.lr, float)


@pytest.mark.parametrize(("interval", "times"), [("epoch", 2), ("step", 6)])
def test_scheduler_steps_at_its_interval(interval, times, tmp_path):
    model = classifier(
        "multiclass",
        optimizer=partial(torch.optim.SGD, lr=1.0),
        scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
        scheduler_interval=interval,
    )
    run = trainer(tmp_path)
    run.fit(model, loader("multiclass"), loader("multiclass"))
    assert run.optimizers[0].param_groups[0]["lr"] == 0.5**times


def test_plateau_scheduler_watches_the_validation_loss(tmp_path):
    model = classifier(
        "multiclass",
        optimizer=partial(torch.optim.SGD, lr=0.0),
        scheduler=partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0),
    )
    run = trainer(tmp_path)
    run.fit(model, loader("multiclass"), loader("multiclass"))
    best = run.lr_scheduler_configs[0].scheduler.best
    assert best == pytest.approx(run.callback_metrics["val/loss"].item())


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Classifier(MLP), TypeError, "model must be an nn.Module, got type."),
        (
            lambda: Classifier(nn.Linear(1, 1), task="regression"),
            ValueError,
            "task must be one of multiclass, binary, multilabel, got 'regression'.",
        ),
        (
            lambda: Classifier(nn.Linear(1, 1), scheduler_interval="batch"),
            ValueError,
            "scheduler_interval must be one of epoch, step, got 'batch'.",
        ),
    ],
)
def test_a_wrong_option_gives_one_clear_line(build, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        build()


def accuracy(model, data):
    (x, y), n = data.test_set.__getitems__(range(len(data.test_set))), len(data.test_set)
    with torch.no_grad():
        logits = model.eval()(x)
    decision = (logits > 0).float() if data.task == "binary" else logits.argmax(1)
    return (decision == y).sum().item() / n


@pytest.mark.parametrize(
    ("data_class", "network", "epochs", "least"),
    [
        (DigitsData, MLP, 30, 0.95),
        (DigitsData, Linear, 30, 0.92),
        (BreastCancerData, MLP, 30, 0.94),
        (BreastCancerData, Linear, 30, 0.90),
        pytest.param(DigitsData, CNN, 20, 0.95, marks=pytest.mark.slow),
        pytest.param(DigitsData, ResNet, 20, 0.95, marks=pytest.mark.slow),
    ],
)
def test_the_zoo_learns_its_data(data_class, network, epochs, least, tmp_path):
    L.seed_everything(0, verbose=False)
    data = data_class()
    data.setup()
    model = Classifier(
        network(data.input_shape, data.num_outputs),
        task=data.task,
        optimizer=partial(torch.optim.AdamW, lr=2e-3),
    )
    run = trainer(tmp_path, max_epochs=epochs)
    run.fit(model, data)
    assert accuracy(model, data) >= least
