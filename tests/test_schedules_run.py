"""Schedules in a run: by epoch, as functions of the user's own, and shown before they are paid for."""

import math

import pytest
from cli import QUICK, result, run, run_here
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Data, Net, trainer
from test_label_smoothing import Stop, logged

import ls_lightning as ls
from ls_lightning.loggers import CSVHistory
from ls_lightning.schedules import Cosine, CosLog, Scaled, Warmup

OWN = """
import math


def wave(progress, height=0.3):
    return height * math.sin(math.pi * progress)


def made(height=0.3):
    return lambda progress: height * math.sin(math.pi * progress)


def wrong(progress):
    return 2 * progress
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "curves.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("schedule", [Cosine(0.3, 0.05), CosLog(0.2), Scaled(Warmup(0.2, full_at=0.5), 0.5)], ids=repr)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_eps_changes_at_the_start_of_an_epoch_alone(tmp_path, schedule, accumulate):
    smoothing = ls.LabelSmoothing(schedule=schedule, interval="epoch")
    options = {"accumulate_grad_batches": accumulate, "max_epochs": 3, "logger": CSVHistory(tmp_path)}
    trainer(tmp_path, smoothing, **options).fit(Net(), datamodule=Data())
    steps = math.ceil(6 / accumulate)
    expected = {epoch * steps + k: schedule(epoch / 3) for epoch in range(3) for k in range(steps)}
    assert logged(tmp_path) == pytest.approx(expected)


@pytest.mark.parametrize("batches", [3, 6, 7, 11])
def test_by_epoch_a_resumed_run_keeps_the_eps_of_its_epoch(tmp_path, batches):
    def fit(folder, *callbacks, **kwargs):
        smoothing = ls.LabelSmoothing(schedule=Cosine(0.3, 0.05), interval="epoch")
        options = {"logger": CSVHistory(folder), "enable_checkpointing": True, "max_epochs": 3}
        trainer(folder, smoothing, *callbacks, **options).fit(Net(), datamodule=Data(), weights_only=False, **kwargs)

    fit(tmp_path / "whole")
    checkpoint = ModelCheckpoint(tmp_path / "parts", save_top_k=0, save_last=True, save_on_exception=True)
    with pytest.raises(SystemExit):
        fit(tmp_path / "parts", Stop(batches), checkpoint)
    fit(tmp_path / "parts", ckpt_path=tmp_path / "parts" / "last.ckpt")
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def test_refuses_another_interval():
    with pytest.raises(ValueError, match="interval must be 'step' or 'epoch', got 'batch'"):
        ls.LabelSmoothing(interval="batch")


def test_a_function_that_leaves_the_range_is_refused():
    with pytest.raises(ValueError, match=r"must return eps in \[0, 1\), got 1.0 from <lambda> at progress 0.5"):
        ls.LabelSmoothing(schedule=lambda progress: 0.1 if progress < 0.5 else 1.0)


def test_a_function_that_leaves_the_range_between_is_stopped_where_it_does(tmp_path):
    smoothing = ls.LabelSmoothing(schedule=lambda progress: 1.0 if 0.41 < progress < 0.419 else 0.1)
    t = trainer(tmp_path, smoothing)
    with pytest.raises(ValueError, match=r"must return eps in \[0, 1\), got 1.0 from <lambda> at progress 0.41"):
        t.fit(Net(), datamodule=Data())
    assert t.global_step == 5


@pytest.mark.parametrize(
    ("typed", "eps", "name"),
    [
        (["schedule._target_=curves.wave", "eps=0.3"], 0.3, "wave"),
        (["schedule._target_=curves.wave", "+schedule.height=0.2", "eps=0.2"], 0.2, "wave(height=0.2)"),
        (["schedule._target_=curves.made", "+schedule.height=0.2", "eps=0.2"], 0.2, "<lambda>"),
    ],
)
def test_a_function_of_ones_own_on_the_command_line(own, monkeypatch, typed, eps, name):
    job = ["data=breast_cancer", *QUICK, "hydra.run.dir=job"]
    assert run_here(monkeypatch, own, *job, *typed) == 0
    found = result(own / "job")
    assert (found["eps"], found["schedule"]) == (eps, name)
    curve = logged(own / "job")
    assert curve == {k: pytest.approx(eps * math.sin(math.pi * k / len(curve)), abs=1e-9) for k in curve}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["schedule._target_=curves.wave"], "Set eps=0.3"),
        (["schedule._target_=curves.wrong"], "must return eps in [0, 1), got 1.0 from wrong at progress 0.5"),
        (["schedule._target_=curves.typo"], "curves.typo"),
    ],
)
def test_a_function_of_ones_own_that_does_not_fit(own, monkeypatch, capfd, typed, message):
    assert run_here(monkeypatch, own, *typed) == 2
    assert message in capfd.readouterr().err
    assert not (own / "outputs").exists()


def test_feedback_on_the_command_line(tmp_path, monkeypatch):
    job = ["schedule=feedback", "eps=0.2", *QUICK, "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *job) == 0
    found = result(tmp_path / "job")
    assert (found["eps"], found["schedule"]) == (0.2, "Feedback(start=0.2)")
    assert found["feedback"]["updates"] == 2
    assert found["feedback"]["gain"] == 0.25
    assert found["feedback"]["gap"] == pytest.approx(found["metrics"]["val"]["gap"], abs=1e-8)


def shown(folder, monkeypatch, capfd, *typed):
    code = run_here(monkeypatch, folder, "--show-schedule", *typed)
    out, err = capfd.readouterr()
    assert not (folder / "outputs").exists()
    return code, out, err


def test_a_schedule_is_shown(tmp_path, monkeypatch, capfd):
    code, out, _ = shown(tmp_path, monkeypatch, capfd, "schedule=linear", "eps=0.2")
    assert code == 0
    assert "eps of Linear(start=0.2, end=0.0)" in out
    bars = [line.split("┤")[1] for line in out.splitlines() if "┤" in line]
    heights = [sum(bar[k] == "█" for bar in bars) for k in range(64)]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (10, 0)
    assert (tmp_path / "schedule.png").stat().st_size > 1000


def test_by_epoch_it_is_shown_as_a_staircase(tmp_path, monkeypatch, capfd):
    typed = ["schedule=linear", "callbacks.label_smoothing.interval=epoch", "trainer.max_epochs=4"]
    _, out, _ = shown(tmp_path, monkeypatch, capfd, *typed)
    columns = list(zip(*(line.split("┤")[1] for line in out.splitlines() if "┤" in line), strict=True))
    assert len(set(columns)) == 4


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        (["schedule=feedback"], 0, "is not known before the run: eps starts at 0.1"),
        (["schedule=feedback", "schedule.held_out=0.1"], 0, "each look at the held-out slice"),
        (["schedule=linear", "eps=2"], 2, "eps must be in [0, 1), got 2"),
        (["-m", "eps=0.1,0.2"], 2, "--show-schedule shows the schedule of one job"),
    ],
)
def test_what_is_said_in_place_of_a_chart(tmp_path, monkeypatch, capfd, typed, code, words):
    found, out, err = shown(tmp_path, monkeypatch, capfd, *typed)
    assert found == code
    assert words in out + err
    assert not (tmp_path / "schedule.png").exists()


def test_it_is_shown_without_torch(tmp_path):
    for name in ("torch", "lightning"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not needed yet')")
    env = {"PYTHONPATH": str(tmp_path)}
    code, out, err = run(tmp_path, "--show-schedule", "schedule=sequence", env=env)
    assert code == 0, err
    assert "eps of Sequence(" in out
