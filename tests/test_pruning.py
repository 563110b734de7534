"""Pruning: what a job reports, when it stops, and what the study says of it."""

import csv
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from cli import result, run
from hydra.utils import instantiate
from searches import study
from sweeps import Sweep

from ls_lightning.callbacks.pruning import Pruning
from ls_lightning.sweep.trial import Search, Trial

PRUNERS = [
    {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2},
    {"_target_": "optuna.pruners.ThresholdPruner", "upper": 0.6},
    {"_target_": "optuna.pruners.SuccessiveHalvingPruner"},
    {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 9},
    {"_target_": "optuna.pruners.NopPruner"},
]


@pytest.mark.parametrize("spec", PRUNERS, ids=lambda spec: spec["_target_"].rpartition(".")[2])
def test_a_job_decides_as_optuna_does(tmp_path, spec):
    """The same curves through optuna's own ``Trial.report`` and ``should_prune``."""
    curves = torch.rand(8, 9, generator=torch.Generator().manual_seed(0)).tolist()
    url = f"sqlite:///{tmp_path}/ours.db"
    theirs = optuna.create_study(study_name="s", pruner=instantiate(spec))
    ours = optuna.create_study(study_name="s", storage=url)
    stopped = []
    for number, curve in enumerate(curves):
        trial, job = theirs.ask(), Trial(Search(url, "s", "val/nll", spec), number)
        ours.ask()
        assert not job.given_up
        for step, value in enumerate(curve, 1):
            trial.report(value, step)
            over = trial.should_prune()
            assert job.report(value, step) == over
            if over:
                break
        assert job.given_up == over
        stopped.append(over)
        for each in (theirs, ours):
            each.tell(number, *((None, optuna.trial.TrialState.PRUNED) if over else (curve[-1],)))
    assert [t.intermediate_values for t in ours.trials] == [t.intermediate_values for t in theirs.trials]
    assert any(stopped) == (spec != PRUNERS[-1])


def test_a_step_is_reported_once(tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    stored = optuna.create_study(study_name="s", storage=url)
    stored.ask()
    job = Trial(Search(url, "s", "val/nll", {"_target_": "optuna.pruners.NopPruner"}), 0)
    for value in (0.5, 0.7):
        job.report(value, 1)
    assert stored.trials[0].intermediate_values == {1: 0.5}


class Told:
    """A reporter that gives up after some reports."""

    def __init__(self, after=None, given_up=False):
        self.after, self.given_up, self.reports = after, given_up, []

    def report(self, value, step):
        self.reports.append((step, value))
        return step == self.after


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(20, 3)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/step", float(self.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, told, monitor="val/step", ckpt_path=None, **options):
    options = {"max_epochs": 3, "num_sanity_val_steps": 1, "enable_progress_bar": False, **options}
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[Pruning(monitor, told)], default_root_dir=folder,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(Net(), data(), data(), ckpt_path=ckpt_path, weights_only=False)
    trainer.validate(trainer.lightning_module, data(), verbose=False)
    return trainer


def data():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 20, generator=generator), torch.randint(3, (40,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)


@pytest.mark.parametrize(
    ("options", "reports"),
    [
        ({}, [(1, 10.0), (2, 20.0), (3, 30.0)]),
        ({"val_check_interval": 0.5, "max_epochs": 1}, [(1, 5.0), (2, 10.0)]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 4}, [(1, 20.0), (2, 40.0)]),
    ],
)
def test_each_validation_of_fit_is_reported(tmp_path, options, reports):
    told = Told()
    fit(tmp_path, told, **options)
    assert told.reports == reports


def test_a_trial_that_is_given_up_stops(tmp_path):
    told = Told(after=2)
    assert fit(tmp_path, told, max_epochs=5).global_step == 20
    assert fit(tmp_path, Told(given_up=True)).global_step == 0


def test_a_continued_job_counts_on(tmp_path):
    fit(tmp_path, Told(), max_epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    told = Told()
    fit(tmp_path, told, ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    assert told.reports == [(3, 30.0)]


def test_a_metric_that_is_not_logged(tmp_path):
    with pytest.raises(LookupError, match=r"^val/nll decides which trials go on, but was not logged; there are: val/s"):
        fit(tmp_path, Told(), monitor="val/nll")


SWEEP = ["hydra/sweeper=ls_optuna", "trainer.enable_progress_bar=false", "~callbacks.pictures", "hydra.sweep.dir=sweep"]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize(
    "options", [["trainer=cpu"], ["trainer=cpu", "hydra/launcher=basic"], ["trainer=ddp_cpu"]], ids=" ".join
)
def test_a_search_that_prunes(tmp_path, options):
    """A network that does not learn is stopped after two epochs, on all ranks, and counts as pruned."""
    pruner = "{_target_: optuna.pruners.ThresholdPruner, upper: 1.9, n_warmup_steps: 2}"
    code, out, err = run(
        tmp_path, "-m", *SWEEP, *options, "optimizer.lr=1e-9,0.01", "hydra.sweeper.n_trials=2", "trainer.max_epochs=4",
        "hydra.sweeper.objectives=[val/nll]", f"hydra.sweeper.pruner={pruner}",
    )  # fmt: skip
    assert code == 0, out + err
    trials = study(tmp_path).trials
    assert {trial.params["optimizer.lr"] for trial in trials} == {1e-9, 0.01}
    for trial in trials:
        job = tmp_path / "sweep" / str(trial.number)
        found = result(job)
        with (job / "metrics.csv").open(newline="") as file:
            logged = [float(row["val/nll"]) for row in csv.DictReader(file) if row["val/nll"]]
        pruned = trial.params["optimizer.lr"] == 1e-9
        epochs = 2 if pruned else 4
        assert (trial.state.name, found["status"]) == (("PRUNED", "pruned") if pruned else ("COMPLETE", "complete"))
        assert found["steps"] % epochs == 0
        assert list(trial.intermediate_values) == list(range(1, epochs + 1))
        # The last row is of the measurement after training, of the same weights.
        assert list(trial.intermediate_values.values()) == pytest.approx(logged[:epochs], rel=1e-6)
        assert trial.value == pytest.approx(found["metrics"]["val"]["nll"], rel=1e-6)
        assert found["devices"] == (2 if "trainer=ddp_cpu" in options else 1)
    assert "pruned" in out


@pytest.mark.slow
def test_a_search_for_accuracy_and_calibration(tmp_path):
    """The objectives are those of result.json, in the folders that any sweep leaves."""
    code, out, err = run(
        tmp_path, "-m", *SWEEP, "trainer=cpu", "eps=interval(0,0.3)", "loss=ce,kl", "hydra.sweeper.n_trials=3",
        "hydra.sweeper.objectives=[val/acc,val/ece]", "trainer.max_epochs=2", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert code == 0, out + err
    found = study(tmp_path)
    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in found.trials:
        job = result(tmp_path / "sweep" / str(trial.number))
        assert trial.values == [job["metrics"]["val"][name] for name in ("acc", "ece")]
        assert (job["eps"], job["loss"]) == (trial.params["eps"], trial.params["loss"])
    assert "Pareto front of 3 trials" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["hydra.sweeper.objectives=[test/ece]"], "test/ece cannot be an objective"),
        (["hydra.sweeper.pruner=median"], "pruning needs the name of a logged metric"),
        (["loss=ce,typo"], "loss must be one of"),
        (["hydra.sweeper.n_trial=3"], "n_trial"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, options, words):
    code, out, err = run(tmp_path, "-m", "hydra/sweeper=ls_optuna", "eps=interval(0,0.3)", *options)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []


APP = """
import hydra, lightning as L
from test_pruning import Net, data

class Theirs(Net):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", x)

@hydra.main(config_path=".", config_name="app", version_base="1.3")
def main(cfg):
    global x
    x = cfg.x
    trainer = L.Trainer(max_epochs=cfg.epochs, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(Theirs(), data(), data())
    return trainer.callback_metrics["val_loss"].item()

main()
"""


@pytest.mark.slow
def test_an_app_of_the_users_own(tmp_path):
    """Nothing in it is ours: the entry point adds the callback to its Trainer."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app.yaml").write_text("x: 0.0\nepochs: 3\nhydra: {sweep: {dir: sweep}}\n")
    pruner = "{_target_: optuna.pruners.ThresholdPruner, upper: 0.5}"
    options = ["hydra/sweeper=ls_optuna", "hydra/launcher=process", "hydra.sweeper.n_trials=4", "x=interval(0,1)"]
    sweep = Sweep(
        tmp_path, "app.py", "-m", *options, "hydra.sweeper.objectives=[val_loss]", f"hydra.sweeper.pruner={pruner}",
        env={"PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    code, out, err = sweep.end()
    assert code == 0, out + err
    trials = study(tmp_path).trials
    for trial in trials:
        assert trial.state.name == ("PRUNED" if trial.params["x"] > 0.5 else "COMPLETE")
        assert len(trial.intermediate_values) == (1 if trial.params["x"] > 0.5 else 3)
    assert len({trial.state for trial in trials}) == 2
