"""What a job says of the plain and of the scaled model, as a user runs it."""

import csv
import io
import sys
from contextlib import redirect_stdout

import pytest
import torch
from cli import QUICK, result, run_here

from ls_lightning.functional import fit_temperature
from ls_lightning.metrics import default_metrics

KEYS = {"T", "n", "nll_before", "nll_after", "at_boundary", "share", "metrics", "reliability", "risk_coverage"}


def logits_of(folder, part):
    """Logits and labels of a job's weights, without Lightning."""
    from ls_lightning.zoo import MLP, DigitsData

    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    data = DigitsData()
    data.setup("test")
    net = MLP(data.input_shape, 10, hidden=[128, 64])
    net.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    net.eval()
    dataset = getattr(data, part)
    x, y = dataset.__getitems__(list(range(len(dataset))))
    with torch.no_grad():
        return net(x), y


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(io.StringIO()) as out:
        assert run_here(monkeypatch, folder, "loss=kl", "eps=0.1", *QUICK, "hydra.run.dir=job") == 0
    return folder / "job", out.getvalue()


def test_result_has_both(job):
    folder, _ = job
    found = result(folder)
    temperature = found["temperature"]
    assert set(temperature) == KEYS
    assert temperature["n"] == 359
    assert temperature["nll_after"] < temperature["nll_before"]
    assert not temperature["at_boundary"]
    plain, scaled = found["metrics"]["test"], temperature["metrics"]["test"]
    assert set(plain) == set(scaled)
    assert plain["acc"] == scaled["acc"]
    assert sum(temperature["reliability"]["test"]["counts"]) == scaled["n"] == 539


def test_result_is_that_of_the_weights(job):
    folder, _ = job
    found = result(folder)
    fit = fit_temperature(*logits_of(folder, "val_set"))
    assert found["temperature"]["T"] == pytest.approx(fit.temperature, rel=1e-5)
    assert found["metrics"]["val"]["nll"] == pytest.approx(fit.nll_before, rel=1e-6)
    logits, target = logits_of(folder, "test_set")
    metrics = default_metrics()
    metrics.update(logits / fit.temperature, target)
    for name, value in metrics.compute().items():
        assert found["temperature"]["metrics"]["test"][name] == pytest.approx(value.item(), abs=1e-4), name
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["TemperatureScaling"]
    assert state["T"] == found["temperature"]["T"]


def test_the_table_shows_both(job):
    folder, out = job
    temperature = result(folder)["temperature"]
    assert f"test, T = {temperature['T']:.3g}" in out
    assert f"{temperature['metrics']['test']['ece']:.2%}" in out
    assert f"Dividing its logits by T = {temperature['T']:.3g}, fitted on val, takes ECE from" in out


def test_metrics_csv_has_both(job):
    folder, _ = job
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["ls/temperature"]) for row in rows) == 3  # two epochs and the final measurement
    assert float(rows[-1]["test_scaled/ece"]) == pytest.approx(
        result(folder)["temperature"]["metrics"]["test"]["ece"], abs=1e-6
    )


MINE = """
import lightning as L
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

def loader():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(4, (64,), generator=g)
    x = F.one_hot(y, 6) + 0.5 * torch.randn(64, 6, generator=g)
    return DataLoader(TensorDataset(x, y), 16)

class NoVal(L.LightningDataModule):
    num_classes, input_shape = 4, (6,)
    def train_dataloader(self):
        return loader()
    def test_dataloader(self):
        return loader()

class NoTest(L.LightningDataModule):
    num_classes, input_shape, noisy_validation = 4, (6,), True
    def train_dataloader(self):
        return loader()
    def val_dataloader(self):
        return loader()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_data_without_validation(monkeypatch, mine, capfd):
    with pytest.warns(UserWarning, match="has no temperature, so nothing is scaled"):
        code = run_here(monkeypatch, mine, "data._target_=mine.NoVal", *QUICK, "hydra.run.dir=job")
    assert code == 0
    found = result(mine / "job")
    assert found["temperature"] is None
    assert set(found["metrics"]) == {"test"}
    out = capfd.readouterr().out
    assert "On test the model is" in out
    assert "T =" not in out


def test_data_without_test_and_with_noisy_validation(monkeypatch, mine, capfd):
    with pytest.warns(UserWarning, match="validation labels that are noisy"):
        code = run_here(monkeypatch, mine, "data._target_=mine.NoTest", *QUICK, "hydra.run.dir=job")
    assert code == 0
    found = result(mine / "job")
    assert found["temperature"]["n"] == 64
    assert found["temperature"]["metrics"] == {}
    assert "On val the model is" in capfd.readouterr().out


def test_without_the_callback(monkeypatch, tmp_path):
    assert run_here(monkeypatch, tmp_path, "callbacks.temperature_scaling=null", *QUICK, "hydra.run.dir=job") == 0
    assert "temperature" not in result(tmp_path / "job")


def test_evaluate_best_fits_the_best_weights(monkeypatch, tmp_path):
    overrides = ["callbacks=best", "callbacks.best.monitor=val_scaled/nll", "evaluate=best", "optimizer.lr=0.5"]
    quick = ["trainer.max_epochs=4", *QUICK[1:]]
    assert run_here(monkeypatch, tmp_path, *overrides, *quick, "hydra.run.dir=job") == 0
    found = result(tmp_path / "job")["temperature"]
    state = torch.load(tmp_path / "job" / "checkpoints" / "best.ckpt", weights_only=False)
    assert found["T"] == state["callbacks"]["TemperatureScaling"]["T"]
    with (tmp_path / "job" / "metrics.csv").open(newline="") as file:
        curve = [float(row["val_scaled/nll"]) for row in csv.DictReader(file) if row["val_scaled/nll"]]
    assert found["nll_after"] == pytest.approx(min(curve[:4]), rel=1e-5)


def test_a_resumed_job_counts_its_time_on(monkeypatch, tmp_path):
    assert run_here(monkeypatch, tmp_path, *QUICK, "hydra.run.dir=job") == 0
    path = tmp_path / "job" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=False)
    assert 0 < checkpoint["callbacks"]["Elapsed"]["seconds"] <= result(tmp_path / "job")["duration_s"] + 1e-3
    checkpoint["callbacks"]["Elapsed"]["seconds"] += 5000  # as if it had trained longer
    torch.save(checkpoint, path)
    more = ["trainer.max_epochs=3", *QUICK[1:], "callbacks=best", "evaluate=best", "ckpt_path=last"]
    assert run_here(monkeypatch, tmp_path, *more, "hydra.run.dir=job") == 0
    assert 5000 < result(tmp_path / "job")["duration_s"] < 5300
