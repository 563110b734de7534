"""Every file of conf/ is composed as the command line does, and its part is built; users' own files join in."""

import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from cli import QUICK, result, run, run_here
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import OmegaConf
from PIL import Image
from torchmetrics import MetricCollection

from ls_lightning import job
from ls_lightning.loggers import CSVHistory
from ls_lightning.losses import LOSSES
from ls_lightning.schedules import SCHEDULES

CONF = Path(__file__).parent.parent / "conf"
ELSEWHERE = (  # no options of a group of ours; tested in test_engines.py and test_report_after_sweep.py
    "config", "hydra/callbacks/report", "hydra/help/ls_lightning", "hydra/launcher/slurm", "launch", "wandb_sweep",
)  # fmt: skip
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
USUAL_EPS = {
    **dict.fromkeys(["bce", "ce", "kl", "prior", "confidence_penalty", "max_suppression", "margin", "relaxation"], 0.1),
    "soft_ce": 0.5,
    "online": 0.5,
    "negative": -0.4,
    "focal": 0.0,
    "none": 0.0,
}
LOGGED = {"acc", "nll", "brier", "ece", "mce", "gap", "overconfidence"}


@pytest.fixture
def compose(monkeypatch, tmp_path):
    """What a job gets, through the real command line."""

    def through_main(*overrides):
        seen = []
        monkeypatch.setattr(job, "run_job", lambda cfg, *_: seen.append(cfg) or {"metrics": {}})
        assert run_here(monkeypatch, tmp_path, *overrides, "hydra.run.dir=job") == 0
        return seen[0]

    return through_main


def write_npz(folder):
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    np.savez(folder / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return ["data.path=mine.npz"], (3, (4,))


def write_images(folder):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / "images" / split / label).mkdir(parents=True)
            for shade in range(5):
                image = Image.new("RGB", (40, 30), (40 * shade, 0, 90))
                image.save(folder / "images" / split / label / f"{shade}.png")
    return ["data.path=images"], (2, (3, 32, 32))


def write_texts(folder):
    rows = "".join(f"good morning number {k},{k % 3}\n" for k in range(30))
    (folder / "mine.csv").write_text("text,label\n" + rows)
    return ["data.path=mine.csv", "data.features=hashing", "data.max_features=50"], (3, (50,))


def write_hf(folder):
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["good morning"] * 30, "label": [k % 3 for k in range(30)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "mine"))
    return ["data.name=mine"], (3, (2,))


DATA = {
    "digits": lambda folder: ([], (10, (1, 8, 8))),
    "breast_cancer": lambda folder: ([], (2, (30,))),
    "npz": write_npz,
    "image_folder": write_images,
    "text_file": write_texts,
    "hf_dataset": write_hf,
    "shapes": lambda folder: ([], (4, (1, 24, 24))),
    "tags": lambda folder: ([], (5, (30,))),
}
GPU_TRAINERS = {"gpu", "ddp"}
LOGGERS = {
    "csv": {"csv": CSVHistory},
    "tensorboard": {"csv": CSVHistory, "tensorboard": TensorBoardLogger},
    "wandb": {"csv": CSVHistory, "wandb": WandbLogger},
}


def check_loss(option, compose, folder):
    cfg = compose(f"loss={option}", *(["loss.warmup=0.5"] if option == "negative" else []))
    loss = instantiate(cfg.loss)
    assert type(loss) is LOSSES[option]
    assert loss.eps.item() == pytest.approx(USUAL_EPS[option])
    if option == "prior":
        loss.set_prior([3, 1, 2, 1])
    logits = torch.randn(6, 4)
    target = torch.randint(2, (6, 4)).float() if option == "bce" else torch.randint(4, (6,))
    assert loss(logits, target) > 0
    assert loss(logits, target).shape == ()


def check_schedule(option, compose, folder):
    typed = ["schedule.factor=1.25"] if option == "scaled" else []
    schedule = instantiate(compose("eps=0.25", f"schedule={option}", *typed).schedule)
    assert type(schedule) is SCHEDULES[option]
    if option == "feedback":
        assert schedule == SCHEDULES[option](0.25)
        return
    curve = [schedule(k / 100) for k in range(101)]
    assert max(curve) == pytest.approx(0.25, rel=1e-3)
    assert (min(curve) < 0.25) == (option != "constant")


def check_metrics(option, compose, folder):
    cfg = compose(f"metrics={option}", "metrics.num_bins=7")
    metrics = instantiate(cfg.metrics)(task="multiclass", num_classes=4)
    assert isinstance(metrics, MetricCollection)
    metrics.update(torch.randn(9, 4), torch.randint(4, (9,)))
    assert set(metrics.compute()) >= LOGGED
    assert {metric.spec.num_bins for name, metric in metrics.items() if name != "aurc"} == {7}


def check_callbacks(option, compose, folder):
    cfg = compose("eps=0.25", "schedule=cosine", f"callbacks={option}")
    callbacks = {name: instantiate(callback) for name, callback in cfg.callbacks.items()}
    assert all(isinstance(callback, L.Callback) for callback in callbacks.values())
    assert callbacks["label_smoothing"].eps == 0.25
    assert callbacks["label_smoothing"].schedule == SCHEDULES["cosine"](0.25)
    assert Path(callbacks["checkpoint"].dirpath) == folder / "job" / "checkpoints"
    assert callbacks["pictures"].folder == folder / "job"


DENSE = {"fcn": "shapes", "tagger": "tags"}  # models that answer for every place, and the data that choose them


def check_dense_model(cfg, option):
    data = instantiate(cfg.data)
    data.setup("fit")
    known = {"fcn": {"input_shape": (1, 24, 24)}, "tagger": {"num_tokens": 20}}[option]
    x, target = data.val_set[torch.arange(2)]
    network = instantiate(cfg.model)(num_outputs=data.num_outputs, **known)
    assert network(x).shape == (2, data.num_classes, *target.shape[1:])


def check_model(option, compose, folder):
    if option in ("timm", "torchvision"):
        pytest.importorskip(option)
        network = instantiate(compose(f"model={option}").model)(input_shape=(3, 32, 32), num_outputs=10)
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
        return
    if option == "text_cnn":
        network = instantiate(compose("model=text_cnn").model)(input_shape=(7,), num_outputs=10, num_tokens=5)
        assert network(torch.randint(6, (2, 7))).shape == (2, 10)
        return
    if option in DENSE:
        check_dense_model(compose(f"data={DENSE[option]}"), option)
        return
    cfg = compose(f"model={option}")
    data = instantiate(cfg.data)
    data.setup("fit")
    network = instantiate(cfg.model)(input_shape=data.input_shape, num_outputs=data.num_outputs)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def check_optimizer(option, compose, folder):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = instantiate(compose(f"optimizer={option}", "optimizer.lr=0.5").optimizer)([weight])
    assert type(optimizer).__name__.lower() == option
    assert optimizer.param_groups[0]["lr"] == 0.5


def check_data(option, compose, folder):
    overrides, (num_classes, shape) = DATA[option](folder)
    data = instantiate(compose(f"data={option}", "data.batch_size=4", *overrides).data)
    data.setup("fit")
    x, y = next(iter(data.train_dataloader()))
    assert (data.num_classes, data.input_shape, tuple(x.shape)) == (num_classes, shape, (4, *shape))
    assert len(y) == 4
    assert len(data.test_set) > 0


def check_trainer(option, compose, folder):
    cfg = compose(f"trainer={option}")
    assert (cfg.trainer.accelerator == "gpu") == (option in GPU_TRAINERS)
    if option in GPU_TRAINERS and not torch.cuda.is_available():
        pytest.skip("composed; building it needs a GPU")
    trainer = instantiate(cfg.trainer)
    assert trainer.num_devices == {"ddp_cpu": 2, "ddp": torch.cuda.device_count()}.get(option, 1)
    assert Path(trainer.default_root_dir) == folder / "job"


def check_logger(option, compose, folder):
    cfg = compose(f"logger={option}", "name=fred")
    loggers = {name: instantiate(logger) for name, logger in cfg.logger.items()}
    assert {name: type(logger) for name, logger in loggers.items()} == LOGGERS[option]
    for logger in loggers.values():
        assert isinstance(logger, Logger)
        assert Path(logger.save_dir) == folder / "job"
    assert option != "wandb" or (cfg.logger.wandb.name, cfg.logger.wandb.offline) == ("fred", True)


NEEDS = {"mnist": ["path"], "cifar10": ["path"], "cifar10n": ["path", "noisy_labels"], "clinc150": ["path"]}


def check_experiment(option, compose, folder):
    typed = [f"data.{key}={folder}" for key in NEEDS.get(option, ())]
    cfg, default = compose(f"experiment={option}", *typed), compose()
    assert cfg.name == option
    assert (cfg.loss, cfg.schedule, cfg.data) != (default.loss, default.schedule, default.data)
    smoothing = instantiate(cfg.callbacks.label_smoothing)
    assert smoothing.eps == pytest.approx(cfg.eps)
    assert smoothing.schedule == instantiate(cfg.schedule)


CHECKS = {name.removeprefix("check_"): function for name, function in globals().items() if name.startswith("check_")}


@pytest.mark.parametrize("file", [file for file in FILES if file not in ELSEWHERE])
def test_every_option_is_composed_and_built(file, compose, tmp_path):
    group, option = file.rsplit("/", 1)
    assert group in CHECKS, f"conf/{file}.yaml has no test: write check_{group}"
    CHECKS[group](option, compose, tmp_path)


def test_the_primary_file_names_every_group(compose):
    """``config`` and ``hydra/help`` are part of every command; each group has a place in the defaults."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    groups = {file.rsplit("/", 1)[0] for file in FILES if "/" in file}
    groups -= {"hydra/callbacks", "hydra/launcher"}  # none by default; a plugin's
    assert chosen >= {f"override {group}" if group.startswith("hydra/") else group for group in groups}
    cfg = compose()
    assert set(cfg) >= groups - {"experiment", "hydra/help"}
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize(
    ("loss", "schedule"),  # each at least once, and each with every way to type eps
    [*zip(sorted({*USUAL_EPS} - {"negative"}), itertools.cycle(sorted({*SCHEDULES} - {"scaled"})), strict=False)],
)
@pytest.mark.parametrize("typed", [[], ["eps=0.25"], ["loss.eps=0.25"]], ids=["usual", "eps", "loss.eps"])
def test_eps_is_one_number(compose, loss, schedule, typed):
    cfg = compose(f"loss={loss}", f"schedule={schedule}", *typed)
    eps = 0.25 if typed else USUAL_EPS[loss]
    first = cfg.schedule.schedules[0] if "schedules" in cfg.schedule else cfg.schedule
    start = first.start if "start" in first else first.eps
    callback = cfg.callbacks.label_smoothing
    assert (cfg.eps, cfg.loss.eps, start) == (eps, eps, eps)
    assert (callback.loss, callback.schedule) == (cfg.loss, cfg.schedule)


def test_data_chooses_the_loss_that_fits(compose):
    assert instantiate(compose("data=breast_cancer").loss).eps == LOSSES["bce"]().eps
    assert compose("data=breast_cancer", "loss=ce").loss._target_.endswith("SmoothedCrossEntropy")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with options of the user's own."""
    for group in ("model", "experiment"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: my_nets.Net\nwidth: 7\n")
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - override /model: mine\n"
        "  - override /loss: soft_ce\n"
        "  - override /schedule: cosine\n"
        "eps: 0.3\n"
        "model: {width: 9}\n"
    )
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, width):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "width", "found"),
    [
        ("model=mine", 7, {"loss": "ce", "eps": 0.1, "schedule": "Constant(eps=0.1)"}),
        ("experiment=mine", 9, {"loss": "soft_ce", "eps": 0.3, "schedule": "Cosine(start=0.3, end=0.0)"}),
    ],
)
def test_own_options_in_the_working_directory(monkeypatch, mine, override, width, found):
    assert run_here(monkeypatch, mine, "--config-dir", "conf", override, *QUICK, "hydra.run.dir=job") == 0
    assert {key: result(mine / "job")[key] for key in found} == found
    state = torch.load(mine / "job" / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert state["model.1.weight"].shape == (width, 64)
    assert {path.name for path in mine.iterdir()} - {"__pycache__"} == {"conf", "my_nets.py", "job"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model: {_target_: my_nets.Net, width: 3}\n",
            "set in a file over model=mlp, whose options it would get.",
        ),
        ("defaults: [{override /model: null}]\nmodel: {_target_: my_nets.Net, width: 3}\n", ""),
    ],
    ids=["over ours", "over none"],
)
def test_an_own_class_gets_no_options_of_ours_from_a_file(monkeypatch, capsys, mine, text, said):
    (mine / "conf" / "experiment" / "other.yaml").write_text(f"# @package _global_\n{text}")
    seen = []
    monkeypatch.setattr(job, "run_job", lambda cfg, *_: seen.append(cfg) or {"metrics": {}})
    code = run_here(monkeypatch, mine, "--config-dir", "conf", "experiment=other", "hydra.run.dir=job")
    assert code == (2 if said else 0)
    assert said in capsys.readouterr().err
    assert [cfg.model for cfg in seen] == ([] if said else [{"_target_": "my_nets.Net", "width": 3}])


def test_help_lists_own_options(mine):
    code, out, err = run(mine, "--config-dir", "conf", "--help")
    assert (code, err) == (0, "")
    assert ", linear, mine, mlp, resnet" in out


APP = """
import json
import hydra
from hydra.utils import instantiate

@hydra.main(config_path=".", config_name="config", version_base="1.3")
def main(cfg):
    loss, schedule = instantiate(cfg.loss), instantiate(cfg.schedule)
    callbacks = {name: instantiate(callback) for name, callback in cfg.get("callbacks", {}).items()}
    smoothing = callbacks["label_smoothing"].eps if callbacks else None
    print(json.dumps([type(loss).__name__, round(loss.eps.item(), 6), repr(schedule), smoothing]))

main()
"""


@pytest.mark.parametrize(
    ("own", "typed", "eps", "callback"),
    [
        ("", [], 0.1, None),
        ("eps: 0.2", [], 0.2, None),
        ("eps: 0.2", ["eps=0.3"], 0.3, None),
        ("", ["loss.eps=0.3"], 0.3, None),
        ("", ["+metrics=full", "+callbacks=best", "loss.eps=0.3"], 0.3, 0.3),
    ],
    ids=["no eps", "eps in the file", "eps typed", "loss.eps typed", "with the callbacks"],
)
def test_a_hydra_app_of_the_users_own(monkeypatch, capsys, tmp_path, own, typed, eps, callback):
    app, elsewhere = tmp_path / "app", tmp_path / "elsewhere"
    app.mkdir()
    elsewhere.mkdir()
    (app / "main.py").write_text(APP)
    (app / "config.yaml").write_text(
        "defaults:\n  - loss: kl\n  - schedule: cosine\n  - _self_\n"
        f"{own}\n"
        "hydra: {searchpath: ['pkg://ls_lightning.conf']}\n"
    )
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", [str(app / "main.py"), *typed])
    GlobalHydra.instance().clear()
    runpy.run_path(str(app / "main.py"), run_name="__main__")
    assert json.loads(capsys.readouterr().out) == [
        "SmoothedKLDiv",
        eps,
        f"Cosine(start={eps}, end=0.0)",
        callback,
    ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (["--cfg", "job", "--resolve", "loss=kl", "eps=0.2", "schedule=linear"], "  start: 0.2"),
        (["--info", "defaults", "model=cnn"], "model/cnn"),
        (["--cfg", "job", "--package", "schedule"], "schedule"),
    ],
    ids=["cfg", "info", "package"],
)
def test_questions_are_answered_without_torch(tmp_path, question, answer):
    for name in ("torch", "lightning", "torchmetrics"):
        (tmp_path / f"{name}.py").write_text("raise SystemError('imported too early')")
    code, out, err = run(tmp_path, *question, env={"PYTHONPATH": str(tmp_path)})
    assert (code, err) == (0, "")
    assert answer in out
    assert [path.suffix for path in tmp_path.iterdir()] == [".py"] * 3  # no job was begun


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="pipes break otherwise here")
@pytest.mark.parametrize("question", [["--help"], ["--hydra-help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, question):
    """As in ``--help | head -1``, with a pipe that is closed before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ls_lightning.train", *question]
    try:
        done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
