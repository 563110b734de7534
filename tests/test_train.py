"""What one job leaves behind, and that the same job gives the same numbers."""

import csv
import shlex
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from cli import QUICK, WITH_PICTURES, result, run, run_here, start

import ls_lightning as ls
from ls_lightning.loggers import CSVHistory
from ls_lightning.schedules import Linear


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The README's command, as a user runs it, with fewer epochs."""
    folder = tmp_path_factory.mktemp("job")
    code, out, err = run(folder, "loss=kl", "eps=0.1", "schedule=linear", *WITH_PICTURES, "hydra.run.dir=job")
    assert code == 0, err
    return folder / "job", out, err


def test_leaves_a_complete_folder_and_nothing_else(job):
    folder, _, _ = job
    found = sorted(str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*") if path.is_file())
    pictures = ["class_gap.png", "reliability.png", "risk_coverage.png"]
    names = ["checkpoints/last.ckpt", "config.yaml", "metrics.csv", *pictures, "result.json"]
    assert found == sorted(f"job/{name}" for name in names)
    assert (folder / "reliability.png").read_bytes().startswith(b"\x89PNG")
    newest = max(folder.rglob("*"), key=lambda path: path.stat().st_mtime_ns if path.is_file() else 0)
    assert newest.name == "result.json"


def test_prints_a_table_and_a_sentence(job):
    folder, out, err = job
    values = result(folder)["metrics"]["test"]
    for words in ("accuracy", "NLL", "Brier", "ECE", "gap", "overconfidence", "val", "test", str(folder)):
        assert words in out
    assert f"{values['acc']:.2%}" in out
    assert f"underconfident by {-100 * values['gap']:.1f} points" in out
    assert "Traceback" not in err
    assert "Tip" not in out + err


def test_result(job):
    folder, _, _ = job
    found = result(folder)
    assert {key: found[key] for key in ("schema", "status", "eps", "loss", "schedule", "seed", "model", "data")} == {
        "schema": 1,
        "status": "complete",
        "eps": 0.1,
        "loss": "kl",
        "schedule": "Linear(start=0.1, end=0.0)",
        "seed": 0,
        "model": "mlp",
        "data": "digits",
    }
    assert found["metrics"]["val"]["n"] + found["metrics"]["test"]["n"] == 359 + 539
    assert set(found["metrics"]["val"]) == {"acc", "nll", "brier", "ece", "mce", "gap", "overconfidence", "aurc", "n"}
    assert sum(found["reliability"]["test"]["counts"]) == 539
    assert found["versions"]["torch"] == torch.__version__
    assert found["duration_s"] > 0
    assert found["git"] is None or len(found["git"]["commit"]) == 40


def test_config_is_the_job(job):
    """Running from the stored config alone gives the same job."""
    folder, _, _ = job
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["eps"] == config["loss"]["eps"] == config["schedule"]["start"] == 0.1
    assert "${" not in (folder / "config.yaml").read_text()


def test_metrics_csv_has_every_step(job):
    folder, _, _ = job
    found = rows(folder)
    steps = result(folder)["steps"]
    training = [row for row in found if row["train/loss"]]
    assert [int(row["step"]) for row in training] == list(range(steps))
    schedule = Linear(0.1, 0.0)
    assert [float(row["ls/eps"]) for row in training] == [schedule(step / steps) for step in range(steps)]
    losses = [float(row["train/loss"]) for row in training]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    last = result(folder)["metrics"]
    assert float(found[-1]["test/ece"]) == pytest.approx(last["test"]["ece"], abs=1e-6)
    assert sum(bool(row["val/acc"]) for row in found) == 3  # 2 epochs, and the final measurement


def test_metrics_are_those_of_the_checkpoint(job):
    folder, _, _ = job
    from ls_lightning.zoo import MLP, DigitsData

    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    data = DigitsData()
    data.setup("test")
    net = MLP(data.input_shape, 10, hidden=[128, 64])
    net.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    net.eval()
    x, y = data.test_set.__getitems__(list(range(539)))
    with torch.no_grad():
        p = net(x).double().softmax(1)
    confidence, predicted = p.max(1)
    values = result(folder)["metrics"]["test"]
    assert values["acc"] == pytest.approx((predicted == y).double().mean().item())
    assert values["gap"] == pytest.approx((confidence.mean() - (predicted == y).double().mean()).item(), abs=1e-6)


def test_same_seed_same_numbers(monkeypatch, tmp_path, job):
    folder, _, _ = job
    overrides = ["loss=kl", "eps=0.1", "schedule=linear", *QUICK]
    assert run_here(monkeypatch, tmp_path, *overrides, "hydra.run.dir=again") == 0
    assert run_here(monkeypatch, tmp_path, *overrides, "hydra.run.dir=other", "seed=1") == 0
    again, other = result(tmp_path / "again"), result(tmp_path / "other")
    assert again["metrics"] == result(folder)["metrics"]
    assert again["digest"] == result(folder)["digest"]
    assert other["metrics"] != again["metrics"]
    assert other["digest"] != again["digest"]
    assert [row["train/loss"] for row in rows(tmp_path / "again")] == [row["train/loss"] for row in rows(folder)]


def test_the_loss_that_is_named_is_the_loss_that_trains(monkeypatch, tmp_path):
    """First training loss of each option against torch, from the same initial weights."""
    from torch.nn import functional as F

    seen = {}

    def spy(self, metrics, step=None):
        if "train/loss" in metrics and step == 0:
            seen[name] = metrics["train/loss"].item()

    monkeypatch.setattr(CSVHistory, "log_metrics", spy)
    batches = []
    from ls_lightning.zoo.classifier import Classifier

    plain = Classifier.training_step

    def remember(self, batch, batch_idx):
        if batch_idx == 0 and self.current_epoch == 0:
            batches.append((self(batch[0]).detach(), batch[1]))
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", remember)
    limits = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    for name in ("none", "ce", "kl", "soft_ce"):
        overrides = [f"loss={name}", *QUICK, *limits, f"hydra.run.dir={name}"]
        assert run_here(monkeypatch, tmp_path, *overrides) == 0
    z, y = batches[0]
    assert all(torch.equal(z, other) for other, _ in batches)
    q = F.one_hot(y, 10) * (0.9 - 0.1 / 9) + 0.1 / 9
    assert seen == {
        "none": pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5),
        "ce": pytest.approx(F.cross_entropy(z, y, label_smoothing=0.1).item(), rel=1e-5),
        "kl": pytest.approx(F.kl_div(z.log_softmax(1), q, reduction="batchmean").item(), rel=1e-5),
        "soft_ce": pytest.approx(2 * F.cross_entropy(z, y, label_smoothing=0.5).item(), rel=1e-5),
    }
    assert [result(tmp_path / name)["eps"] for name in seen] == [0, 0.1, 0.1, 0.5]


def test_label_noise_flips_training_labels_only(monkeypatch, tmp_path):
    from ls_lightning.zoo import DigitsData

    kept = []
    setup = DigitsData.setup

    def spy(self, stage=None):
        setup(self, stage)
        kept.append(self)

    monkeypatch.setattr(DigitsData, "setup", spy)
    assert run_here(monkeypatch, tmp_path, "data.label_noise=0.4", *QUICK, "hydra.run.dir=noisy") == 0
    data = kept[0]
    assert (data.train_labels != data.train_labels_clean).double().mean().item() == pytest.approx(0.4, abs=1e-3)
    assert result(tmp_path / "noisy")["metrics"]["test"]["n"] == 539


def test_refuses_to_overwrite_a_job(monkeypatch, tmp_path, capfd):
    overrides = [*QUICK, "trainer.limit_train_batches=1", "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *overrides) == 0
    before = (tmp_path / "job" / "result.json").read_bytes()
    capfd.readouterr()
    assert run_here(monkeypatch, tmp_path, *overrides) == 2
    assert "holds a job already" in capfd.readouterr().err
    assert run_here(monkeypatch, tmp_path, *overrides, "ckpt_path=last", "eps=0.2") == 2
    assert "was trained with another eps (0.1, got 0.2)" in capfd.readouterr().err
    assert (tmp_path / "job" / "result.json").read_bytes() == before


def test_a_refused_resume_leaves_the_job_as_it_was(monkeypatch, tmp_path, capfd):
    assert run_here(monkeypatch, tmp_path, *QUICK, "hydra.run.dir=job") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "job").rglob("*") if path.is_file()}
    assert (
        run_here(monkeypatch, tmp_path, "trainer.max_epochs=1", *QUICK[1:], "hydra.run.dir=job", "ckpt_path=last") == 2
    )
    assert {path: path.read_bytes() for path in (tmp_path / "job").rglob("*") if path.is_file()} == before
    capfd.readouterr()
    elsewhere = ["ckpt_path=job/checkpoints/last.ckpt", "hydra.run.dir=other"]
    assert run_here(monkeypatch, tmp_path, "eps=0.4", *QUICK, *elsewhere) == 2
    assert "job was trained with another eps (0.1, got 0.4)" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_is_never_ahead_of_metrics_csv(monkeypatch, tmp_path):
    from lightning.pytorch.strategies import SingleDeviceStrategy

    found = []
    save = SingleDeviceStrategy.save_checkpoint

    def spy(self, checkpoint, filepath, storage_options=None):
        steps = [int(row["step"]) for row in rows(tmp_path / "job") if row["train/loss"]]
        found.append((checkpoint["global_step"], len(steps)))
        save(self, checkpoint, filepath, storage_options)

    monkeypatch.setattr(SingleDeviceStrategy, "save_checkpoint", spy)
    assert run_here(monkeypatch, tmp_path, *QUICK, "hydra.run.dir=job") == 0
    assert found == [(15, 15), (30, 30)]


@pytest.mark.slow
def test_two_jobs_at_once_do_not_share_a_folder(tmp_path):
    jobs = [start(tmp_path, f"seed={seed}", *QUICK) for seed in (0, 1)]
    errors = [job.communicate(timeout=200)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], "".join(errors)
    assert sorted(result(path.parent)["seed"] for path in tmp_path.rglob("result.json")) == [0, 1]
    jobs = [start(tmp_path, f"seed={seed}", *QUICK, "hydra.run.dir=one") for seed in (0, 1)]
    errors = [job.communicate(timeout=200)[1] for job in jobs]
    assert sorted(job.returncode for job in jobs) == [0, 2], "".join(errors)
    assert "belongs to a job that is running" in "".join(errors) or "holds a job already" in "".join(errors)
    assert [int(row["step"]) for row in rows(tmp_path / "one") if row["train/loss"]] == list(range(30))


def test_a_job_that_finishes_while_another_prepares_keeps_its_folder(monkeypatch, tmp_path, capfd):
    import ls_lightning.job.run as job

    assert run_here(monkeypatch, tmp_path, *QUICK, "hydra.run.dir=quick") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "quick").rglob("*") if path.is_file()}
    build = job.build_trainer

    def another_is_quicker(cfg):
        shutil.copytree(tmp_path / "quick", tmp_path / "one", dirs_exist_ok=True)
        return build(cfg)

    monkeypatch.setattr(job, "build_trainer", another_is_quicker)
    capfd.readouterr()
    assert run_here(monkeypatch, tmp_path, "seed=1", *QUICK, "hydra.run.dir=one") == 2
    assert "one holds a job already. Resume it with ckpt_path=last" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()} == before


def test_resume_with_more_epochs(monkeypatch, tmp_path):
    overrides = [*QUICK, "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *overrides) == 0
    steps = result(tmp_path / "job")["steps"]
    more = ["trainer.max_epochs=3", *QUICK[1:], "ckpt_path=last", "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *more) == 0
    assert result(tmp_path / "job")["steps"] == steps * 3 // 2
    training = [int(row["step"]) for row in rows(tmp_path / "job") if row["train/loss"]]
    assert training == list(range(steps * 3 // 2))


LONG = ["schedule=cosine", "trainer.max_epochs=80", *QUICK[1:]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A job that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run_here(monkeypatch, folder, *LONG, "hydra.run.dir=job") == 0
    return folder / "job"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_how_to_resume_and_resumes(tmp_path, whole, signum):
    # A test run in the background ignores SIGINT, and its children would too.
    own = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start(tmp_path, *LONG, "hydra.run.dir=job", **own)
    deadline = time.monotonic() + 120
    while not (tmp_path / "job" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, out + err
    assert "Traceback" not in err
    command = next(line.strip() for line in err.splitlines() if "ckpt_path=last" in line)
    assert not (tmp_path / "job" / "result.json").exists()
    code, _, err = run(tmp_path, *shlex.split(command)[3:])
    assert code == 0, err
    eps, wanted = ([row["ls/eps"] for row in rows(job) if row["train/loss"]] for job in (tmp_path / "job", whole))
    assert eps == wanted
    assert result(tmp_path / "job")["steps"] == result(whole)["steps"]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("devices", [2, 3])
def test_ddp_job(monkeypatch, tmp_path, devices):
    """All ranks write to one folder; what is measured is as by one process on the same weights, bit for bit."""
    code, _, err = run(tmp_path, "trainer=ddp_cpu", f"trainer.devices={devices}", *QUICK[:-1], "hydra.run.dir=job")
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["job"]
    found = result(tmp_path / "job")
    assert found["devices"] == devices
    assert (found["metrics"]["val"]["n"], found["metrics"]["test"]["n"]) == (359, 539)
    # The same weights, measured by one process.
    checkpoint = tmp_path / "job" / "checkpoints" / "last.ckpt"
    assert run_here(monkeypatch, tmp_path, *QUICK, f"ckpt_path={checkpoint}", "hydra.run.dir=one") == 0
    alone = result(tmp_path / "one")
    assert found["temperature"]["n"] == 359
    for key in ("metrics", "temperature", "reliability"):
        assert found[key] == alone[key]


@pytest.mark.slow
@pytest.mark.ddp
def test_torchrun(tmp_path):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "-m",
        "ls_lightning.train",
    ]
    overrides = ["trainer=ddp_cpu", *QUICK[:-1], "hydra.run.dir=job"]
    done = subprocess.run([*command, *overrides], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "job")["devices"] == 2


@pytest.mark.slow
def test_sweep_on_one_device(tmp_path):
    code, _, err = run(tmp_path, "-m", "eps=0,0.1", *QUICK, "hydra.sweep.dir=sweep")
    assert code == 0, err
    assert [result(tmp_path / "sweep" / str(k))["eps"] for k in range(2)] == [0, 0.1]


MINE = """
import lightning as L
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, width=7):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))
    def forward(self, x):
        return self.layers(x)

class Lit(L.LightningModule):
    def __init__(self, width=5):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(10, width)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
    def training_step(self, batch, batch_idx):
        return self.criterion(self.net(batch[0]), batch[1])
    def validation_step(self, batch, batch_idx):
        self.log("their_loss", self.criterion(self.net(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

class Data(L.LightningDataModule):
    num_classes = 4
    input_shape = (6,)
    def __init__(self, size=64):
        super().__init__()
        self.size = size
    def train_dataloader(self):
        g = torch.Generator().manual_seed(0)
        y = torch.randint(4, (self.size,), generator=g)
        x = torch.nn.functional.one_hot(y, 6) + 0.1 * torch.randn(self.size, 6, generator=g)
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16)
    val_dataloader = train_dataloader

class Silent(Lit):
    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

class Plain:
    pass

def penalty(logits, target, eps):
    return nn.functional.cross_entropy(logits, target)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sgd.yaml").write_text("# @package _global_\noptimizer: {lr: 0.3}\n")
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        (["model._target_=mine.Net"], {"val", "test"}),
        (["model._target_=mine.Net", "+model.width=3"], {"val", "test"}),
        (["model._target_=mine.Lit"], {"val"}),
        (["model._target_=mine.Lit", "+model.width=9", "loss=kl", "schedule=cosine"], {"val"}),
        (["data._target_=mine.Data", "+data.size=32"], {"val"}),
    ],
)
def test_own_classes(monkeypatch, mine, overrides, stages):
    assert run_here(monkeypatch, mine, *overrides, *QUICK, "hydra.run.dir=job") == 0
    found = result(mine / "job")
    assert set(found["metrics"]) == stages
    config = yaml.safe_load((mine / "job" / "config.yaml").read_text())
    if overrides[0].startswith("model"):
        assert "hidden" not in config["model"]
    own_optimizer = "model._target_=mine.Lit" in overrides
    assert ("optimizer" in config) != own_optimizer  # it does not claim what was not used
    if own_optimizer:
        measured = found["metrics"]["val"]
        assert measured["their_loss"] == pytest.approx(measured["nll"], rel=1e-5)
    if "+model.width=9" in overrides:
        state = torch.load(mine / "job" / "checkpoints" / "last.ckpt", weights_only=False)
        assert state["hyper_parameters"]["width"] == 9


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model._target_=mine.Plain"], "mine.Plain"),
        (["model._target_=mine.Lit", "optimizer.lr=0.1"], "optimizer would be ignored"),
        (["model._target_=mine.Lit", "--config-dir=.", "+mine=sgd"], "optimizer would be ignored"),
        (["model._target_=mine.Net", "+model.num_classes=3"], "model.num_classes must be 10"),
        (["data._target_=mine.Plain"], "mine.Plain"),
        (["loss._target_=mine.penalty"], "got the function mine.penalty, which needs logits, target. Make one of it"),
        (["model._target_=mine.Silent"], "no cross-entropy was seen in Silent.training_step"),
    ],
)
def test_own_classes_that_do_not_fit(monkeypatch, mine, capfd, overrides, words):
    assert run_here(monkeypatch, mine, *overrides, *QUICK, "hydra.run.dir=job") == 2
    err = capfd.readouterr().err.strip()
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (mine / "job").exists()


def test_a_resumed_job_that_is_done_says_so(monkeypatch, tmp_path, job):
    shutil.copytree(job[0], tmp_path / "job")
    (tmp_path / "job" / "result.json").unlink()
    typed = ["loss=kl", "eps=0.1", "schedule=linear", *QUICK, "hydra.run.dir=job", "ckpt_path=last"]
    with pytest.warns(UserWarning, match=r"nothing was left to train: .* has 2 epochs \(.* and trainer.max_epochs=2"):
        assert run_here(monkeypatch, tmp_path, *typed) == 0
    assert result(tmp_path / "job")["metrics"] == result(job[0])["metrics"]


@pytest.mark.slow
def test_a_module_that_imports_the_other_lightning_is_as_quiet(mine):
    (mine / "mine.py").write_text("import pytorch_lightning\n" + MINE)
    code, out, err = run(mine, "model._target_=mine.Net", *QUICK, "hydra.run.dir=job", env={"PYTHONPATH": str(mine)})
    assert code == 0, err
    assert "GPU available" not in out + err


def test_evaluate_best(monkeypatch, tmp_path):
    overrides = ["callbacks=best", "evaluate=best"]
    quick = ["trainer.max_epochs=4", *QUICK[1:], "optimizer.lr=0.5"]
    assert run_here(monkeypatch, tmp_path, *overrides, *quick, "hydra.run.dir=job") == 0
    curve = [float(row["val/nll"]) for row in rows(tmp_path / "job") if row["train/loss"] and row["val/nll"]]
    assert result(tmp_path / "job")["metrics"]["val"]["nll"] == pytest.approx(min(curve), rel=1e-5)


@pytest.mark.slow
def test_tensorboard(monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run_here(monkeypatch, tmp_path, "logger=tensorboard", *WITH_PICTURES, "hydra.run.dir=job") == 0
    events = EventAccumulator(str(tmp_path / "job" / "tensorboard"))
    events.Reload()
    assert {"ls/eps", "train/loss", "val/ece", "test/ece"} <= set(events.Tags()["scalars"])
    assert "test/reliability" in events.Tags()["images"]
    assert rows(tmp_path / "job")


def test_public_names_are_the_same_objects():
    from ls_lightning.callbacks.label_smoothing import LabelSmoothing

    assert ls.LabelSmoothing is LabelSmoothing
