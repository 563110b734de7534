"""The family as it is trained: through the tap, in bf16, on several ranks, from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import loss_family_ddp
import pytest
import torch
from cli import QUICK, result, run_here
from nets import CLASSES, Data, LogProbNet, Net, trainer
from torch.testing import assert_close

import ls_lightning as ls
from ls_lightning.losses import PriorSmoothing, build_loss

NAMES = ["prior", "confidence_penalty", "max_suppression", "focal", "margin", "relaxation"]
HERE = Path(__file__).parent


def options_of(name):
    return {"prior": [1.0, 2.0, 3.0, 4.0, 5.0]} if name == "prior" else {}


def fit(folder, net, *callbacks, **options):
    trainer(folder, *callbacks, **options).fit(net, datamodule=Data())
    return net


# Through the tap


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_unmodified_module_trains_as_one_that_calls_the_loss(tmp_path, name, precision):
    loss = build_loss(name, **options_of(name))
    ours = fit(tmp_path, Net(dtype=torch.float64), ls.LabelSmoothing(loss=loss), precision=precision)
    theirs = fit(tmp_path, Net(build_loss(name, **options_of(name))), precision=precision)
    plain = fit(tmp_path, Net(), precision=precision)
    assert ours.seen == theirs.seen
    assert ours.seen != plain.seen
    assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities(tmp_path, name):
    loss = build_loss(name, **options_of(name))
    ours = fit(tmp_path, LogProbNet(), ls.LabelSmoothing(loss=loss))
    theirs = fit(tmp_path, Net(build_loss(name, **options_of(name))))
    assert ours.seen == pytest.approx(theirs.seen, rel=1e-9)


@pytest.mark.parametrize("name", ["prior", "confidence_penalty", "max_suppression", "margin", "relaxation", "online"])
def test_a_schedule_moves_eps(tmp_path, name):
    smoothing = ls.LabelSmoothing(loss=name, eps=0.4, schedule="linear")
    fit(tmp_path, Net(), smoothing)
    assert 0 < smoothing.eps < 0.1
    assert_close(smoothing._calls.loss.eps, torch.tensor(smoothing.eps), rtol=1e-6, atol=0)


def test_focal_takes_no_eps_from_the_callback():
    with pytest.raises(ValueError, match="loss=focal has gamma in the place of eps"):
        ls.LabelSmoothing(loss="focal", eps=0.1)


def test_relaxation_refuses_mixup(tmp_path):
    data = Data(target=lambda y: torch.nn.functional.one_hot(y, CLASSES).double())
    with pytest.raises(ValueError, match="loss=relaxation needs class indices"):
        trainer(tmp_path, ls.LabelSmoothing(loss="relaxation")).fit(Net(), datamodule=data)


# On several ranks


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_train_as_one(tmp_path):
    found = {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        if devices == 1:
            loss_family_ddp.main(folder, 1)
        else:
            command = [sys.executable, str(HERE / "loss_family_ddp.py"), str(folder), str(devices)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, done.stderr[-3000:]
        found[devices] = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(devices)]
    (alone,), (first, second) = found[1], found[2]
    for name, (weights, *_) in alone.items():
        assert_close(first[name][0], second[name][0], rtol=0, atol=0)
        assert_close(first[name][0], weights, rtol=1e-5, atol=1e-7)
    assert_close(first["prior"][1].prior, second["prior"][1].prior, rtol=0, atol=0)
    assert_close(2 * first["prior"][1].prior, alone["prior"][1].prior, rtol=0, atol=0)
    assert_close(first["online"][1].matrix, second["online"][1].matrix, rtol=0, atol=0)
    assert_close(first["online"][1].matrix, alone["online"][1].matrix, rtol=1e-5, atol=1e-7)
    for step in (2, 4):  # in the middle of an epoch: what both ranks have counted
        paths = [tmp_path / str(devices) / "online" / f"step={step}.ckpt" for devices in (1, 2)]
        one, two = (torch.load(path, weights_only=False)["ls_lightning.loss"] for path in paths)
        assert one["counts"].sum() > 0
        assert_close(two["counts"], one["counts"], rtol=0, atol=0)
        assert_close(two["sums"].double(), one["sums"].double(), rtol=1e-5, atol=1e3)


# From the command line


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["loss=negative"], "loss=negative needs a warm-up of plain cross-entropy, got none: loss.warmup=0.5"),
        (["loss=negative", "eps=0.1"], "eps must be at most 0 for loss=negative, got 0.1"),
        (["loss=negative", "loss.eps=-.inf"], "loss.eps must be at most 0"),
        (["loss=negative", "loss.warmup=1"], "loss.warmup must be a number in (0, 1), got 1"),
        (["loss=negative", "loss.warmup=0.5", "schedule=linear"], "schedule must be left away with loss=negative"),
        (["loss=ce", "eps=-0.4"], "eps must be in [0, 1), got -0.4"),
        (["loss=focal", "eps=0.1"], "loss=focal has gamma in the place of eps and takes eps=0, got 0.1"),
        (["loss=focal", "loss.gamma=-1"], "gamma must be in [0, inf), got -1"),
        (["loss=prior", "loss.prior=there_is_none.csv"], "there is no file"),
        (["loss=prior", "loss.prior=hierarchy"], "prior='hierarchy' needs classes, the names"),
        (["loss=margin", "loss.margin=-1"], "margin must be a number of at least 0, got -1"),
        (["loss=online", "loss.smoothing=2"], "smoothing must be in [0, 1], got 2"),
    ],
)
def test_a_mistake_gives_one_line(monkeypatch, tmp_path, capfd, typed, message):
    assert run_here(monkeypatch, tmp_path, *typed, *QUICK) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    [
        *([f"loss={name}"] for name in [*NAMES, "online"]),
        ["loss=negative", "loss.warmup=0.5", "eps=-0.6"],
        ["loss=prior", "loss.prior=[1,1,1,1,1,1,1,1,1,3]", "eps=0.2", "schedule=linear"],
        ["loss=focal", "loss.gamma=1.5"],
        ["loss=margin", "loss.margin=6", "eps=0.3"],
    ],
    ids=" ".join,
)
def test_a_job(monkeypatch, tmp_path, typed):
    assert run_here(monkeypatch, tmp_path, *typed, *QUICK, "hydra.run.dir=job") == 0
    found = result(tmp_path / "job")
    name = typed[0].partition("=")[2]
    given = [float(word.partition("=")[2]) for word in typed if word.startswith("eps=")]
    usual = {"focal": 0.0, "online": 0.5}.get(name, 0.1)
    assert (found["loss"], found["eps"]) == (name, given[0] if given else usual)
    assert found["metrics"]["test"]["acc"] > 0.3


def test_prior_module_is_told_its_frequencies_only_once_per_fit(tmp_path):
    loss = PriorSmoothing()
    fit(tmp_path, Net(), ls.LabelSmoothing(loss=loss))
    assert_close(loss.prior, torch.bincount(Data().set.tensors[1], minlength=CLASSES).float())
