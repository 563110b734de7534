"""Jobs trained as one model leave what they leave one by one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from stacks import checkpoint, config, jobs, result, rows, run_alone

from ls_lightning.stacked.job import run_stack

FLOAT64 = "trainer.precision=64-true"
LOSSES = [
    "loss=ce eps=0.1", "loss=ce eps=0.3 seed=1 schedule=linear", "loss=ce loss.spread=others eps=0.2",
    "loss=kl eps=0.1", "loss=soft_ce eps=0.3", "loss=confidence_penalty eps=0.2 schedule=cosine",
    "loss=max_suppression eps=0.1", "loss=focal loss.gamma=2", "loss=focal loss.gamma=3",
    "loss=margin eps=0.1 loss.margin=5", "loss=relaxation eps=0.1", "loss=negative eps=-0.4 loss.warmup=0.5",
    "loss=prior eps=0.2", "loss=none",
]  # fmt: skip
CASES = {
    "eps and seed": (["eps=0 seed=0", "eps=0 seed=1", "eps=0.2 seed=0", "eps=0.2 seed=1"], []),
    "in float64, dropout, clipped": (
        ["eps=0 seed=0", "eps=0.2 seed=0 loss.weight=[2,1,1,1,1,1,1,1,1,0]", "eps=0.2 seed=1"],
        [FLOAT64, "model.dropout=0.2", "trainer.gradient_clip_val=0.5"],
    ),
    "batch norm": (
        ["eps=0 seed=0", "eps=0.2 seed=0 schedule=linear", "eps=0.2 seed=1 optimizer.lr=0.002"],
        [FLOAT64, "optimizer=sgd", "model.batch_norm=true", "model.dropout=0.1"],
    ),
    "batch norm in float32": (["eps=0.1 seed=0", "eps=0.1 seed=1"], ["model.batch_norm=true", "optimizer=sgd"]),
    "batch norm, Adam": (["eps=0.1 seed=0", "eps=0.1 seed=1"], ["model.batch_norm=true", FLOAT64]),
    "convolutions": (
        ["eps=0.1 seed=0", "eps=0.1 seed=1 optimizer.lr=0.02"],
        [FLOAT64, "model=cnn", "model.channels=[4,8]", "optimizer=sgd", "trainer.max_epochs=1"],
    ),
    "residual blocks": (
        ["eps=0.1 seed=0", "eps=0 seed=1"],
        [FLOAT64, "model=resnet", "model.width=4", "optimizer=sgd", "trainer.max_epochs=1"],
    ),
    "losses and schedules": (LOSSES, [FLOAT64]),
    "learning rates": (
        ["optimizer.lr=0.01", "optimizer.lr=0.001 seed=2", "optimizer.lr=0.01 optimizer.weight_decay=0 seed=1"],
        f"{FLOAT64} model=linear trainer.log_every_n_steps=4 callbacks.label_smoothing.interval=epoch "
        "trainer.gradient_clip_val=0.01 +trainer.gradient_clip_algorithm=value".split(),
    ),
    "binary, momentum, sums": (
        ["eps=0", "eps=0.2 schedule=two_stage", "eps=0.1 seed=3 loss.reduction=sum", "optimizer.lr=0.01"],
        [FLOAT64, "data=breast_cancer", "optimizer=sgd", "data.label_noise=0.2"],
    ),
    "several labels": (
        ["eps=0", "eps=0.2 loss.reduction=batchmean"],
        [FLOAT64, "loss=bce", "data=npz", "data.path={}"],
    ),
}


def npz(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)).astype(np.float32)
    y = (x[:, :3] + rng.normal(size=(120, 3)) > 0).astype(np.int64)
    np.savez(folder / "labels.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return folder / "labels.npz"


# Of a pixel that is the same in all of a batch the weights have no gradient but rounding, which Adam divides by itself.
LOOSE = {"batch norm, Adam": 1e-7}
QUICK = ("eps and seed", "in float64, dropout, clipped", "batch norm")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES],
)
def pair(request, tmp_path_factory):
    """The jobs of a case one by one, and stacked; and how close they have to be."""
    folder = tmp_path_factory.mktemp("case")
    members, common = CASES[request.param]
    common = [option.format(npz(folder)) + " data.task=multilabel" if "{}" in option else option for option in common]
    common = " ".join(common).split()
    alone, stacked = (jobs(folder / name, members, *common) for name in ("alone", "stacked"))
    for job in alone:
        run_alone(job)
    assert run_stack(stacked, lambda num, result: None) == []
    return alone, stacked, LOOSE.get(request.param, 1e-12 if FLOAT64 in common else 2e-5)


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_every_row_of_training(pair):
    alone, stacked, tolerance = pair
    for one, member in zip(alone, stacked, strict=True):
        wanted, found = rows(one), rows(member)
        assert [list(row) for row in found] == [list(row) for row in wanted]
        assert [[bool(v) for v in row.values()] for row in found] == [[bool(v) for v in row.values()] for row in wanted]
        for name in wanted[0]:
            numbers = [[float(row[name]) for row in each if row[name]] for each in (found, wanted)]
            exact = name in ("step", "epoch", "ls/eps", "train/loss", "val/loss", "test/loss")
            # Of the others Lightning writes float32, and T is found to about 1e-10.
            close(*numbers, tolerance if exact else max(tolerance, 2e-7))


def test_weights_optimizer_and_progress(pair):
    alone, stacked, tolerance = pair
    for one, member in zip(alone, stacked, strict=True):
        wanted, found = checkpoint(one), checkpoint(member)
        assert list(found) == list(wanted)
        close(found["state_dict"], wanted["state_dict"], tolerance)
        close(found["optimizer_states"][0]["state"], wanted["optimizer_states"][0]["state"], tolerance)
        assert found["optimizer_states"][0]["param_groups"] == wanted["optimizer_states"][0]["param_groups"]
        for name in ("epoch", "global_step", "loops", "hyper_parameters", "hparams_name"):
            assert found[name] == wanted[name]
        assert list(found["callbacks"]) == list(wanted["callbacks"])
        assert found["callbacks"]["LabelSmoothing"] == wanted["callbacks"]["LabelSmoothing"]
        scaling = [dict(each["callbacks"]["TemperatureScaling"]) for each in (found, wanted)]
        assert scaling[0].pop("input") == scaling[1].pop("input")
        assert scaling[0] == pytest.approx(scaling[1], rel=1e-5)


def test_result_and_configuration(pair):
    alone, stacked, tolerance = pair
    for one, member in zip(alone, stacked, strict=True):
        wanted, found = result(one), result(member)
        assert list(found) == list(wanted)
        for key in wanted.keys() - {"metrics", "reliability", "temperature", "risk_coverage", "started", "duration_s"}:
            assert found[key] == wanted[key]
        for split, values in wanted["metrics"].items():
            assert found["metrics"][split] == pytest.approx(values, rel=max(tolerance, 1e-9), abs=max(tolerance, 1e-9))
        assert found["reliability"]["test"]["counts"] == wanted["reliability"]["test"]["counts"]
        assert found["temperature"]["metrics"]["test"] == pytest.approx(
            wanted["temperature"]["metrics"]["test"], rel=1e-5, abs=1e-5
        )
        assert config(member) == config(one)


@pytest.mark.parametrize("options", ["", f"model.batch_norm=true optimizer=sgd {FLOAT64}"])
def test_a_member_goes_on_as_an_ordinary_job(tmp_path, options):
    members = ["eps=0.2 seed=0 callbacks.label_smoothing.total_steps=60", "eps=0.1 seed=1"]
    common = ("schedule=linear", *options.split())
    (whole, _), stacked = jobs(tmp_path / "whole", members, *common), jobs(tmp_path / "stacked", members, *common)
    longer = {**whole.config["trainer"], "max_epochs": 4}
    run_alone(whole, trainer=longer)
    run_stack(stacked, lambda num, result: None)
    member = stacked[0]
    run_alone(member, trainer={**longer, "default_root_dir": member.folder}, ckpt_path="last")
    close(checkpoint(member)["state_dict"], checkpoint(whole)["state_dict"], 2e-5)
    for found, wanted in zip(rows(member), rows(whole), strict=True):
        assert (found["step"], found["ls/eps"]) == (wanted["step"], wanted["ls/eps"])
        assert not wanted["train/loss"] or float(found["train/loss"]) == pytest.approx(
            float(wanted["train/loss"]), 2e-5
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_member_that_becomes_nan_hurts_no_other(tmp_path):
    members = [
        "eps=0.1 optimizer.lr=0.01",
        "eps=0.1 optimizer.lr=1e30",
        "eps=0.2 optimizer.lr=0.01",
        "eps=0 optimizer.lr=1e30",
    ]
    alone = jobs(tmp_path / "alone", members, "optimizer=sgd", FLOAT64)
    stacked = jobs(tmp_path / "stacked", members, "optimizer=sgd", FLOAT64)
    for job in (alone[0], alone[1], alone[2]):
        run_alone(job)
    assert run_stack(stacked, lambda num, result: None) == []
    for k in (0, 2):
        close(checkpoint(stacked[k])["state_dict"], checkpoint(alone[k])["state_dict"], 1e-12)
    for k in (1, 3):
        assert math.isnan(float(rows(stacked[k])[10]["train/loss"]))
        assert result(stacked[k])["metrics"] == result(alone[1])["metrics"]
        assert result(stacked[k])["metrics"]["test"]["nll"] is None


def test_a_job_that_cannot_be_finished_leaves_its_checkpoint(tmp_path, monkeypatch, capsys):
    import ls_lightning.stacked.finish as finish

    def fail_once(folder, result, write_result=finish.write_result):
        if folder.name == "0":
            raise OSError("no space left")
        write_result(folder, result)

    monkeypatch.setattr(finish, "write_result", fail_once)
    members, finished = jobs(tmp_path, ["eps=0", "eps=0.1"]), []
    assert run_stack(members, lambda num, result: finished.append(num)) == [0]
    assert finished == [1]
    assert "no space left" in capsys.readouterr().err
    assert not (Path(members[0].folder) / "result.json").exists()
    run_alone(members[0], ckpt_path="last")
    alone = jobs(tmp_path / "alone", ["eps=0"])[0]
    run_alone(alone)
    for found, wanted in zip(rows(members[0]), rows(alone), strict=True):
        assert {k: float(v) for k, v in found.items() if v} == pytest.approx(
            {k: float(v) for k, v in wanted.items() if v}, rel=2e-5, abs=2e-5
        )
