"""What hydra/launcher=process does when something goes wrong: nothing lost, nothing double, nobody left behind."""

import csv
import os
import pickle
import random
import shlex
import signal
import sys
import time

import pytest
import yaml
from cli import result
from sweeps import Sweep, wait_for, write_app

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

KILLS = int(os.environ.get("LS_KILLS", "2"))
"""LS_KILLS=20 python -m pytest tests/test_launcher_faults.py -k random -s: the long form, with what was met."""


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path)


def start(app, *options, env=None):
    return Sweep(app.parent, "app.py", "-m", *options, env=env)


def ran(app, k):
    """The ckpt_path of each time that a job was run."""
    return (app.parent / "sweep" / str(k) / "ran").read_text().split()


def up(app, *jobs):
    return all((app.parent / "sweep" / str(k) / "up").exists() for k in jobs)


def test_a_job_that_fails_does_not_stop_the_others(app):
    sweep = start(app, "do=return,raise,bad,kill,return", "hydra.sweep.subdir=${hydra:job.num}")
    code, out, err = sweep.end()
    assert code == 1
    assert [len(ran(app, k)) for k in range(5)] == [1, 1, 1, 1, 1]
    table = err[err.index("3 of 5 jobs failed:") :].splitlines()[1:]
    at = {k: next(n for n, line in enumerate(table) if line.split()[:1] == [str(k)]) for k in (1, 2, 3)}
    assert "do=raise" in table[at[1]]
    assert "exit code 1" in table[at[1]]
    assert "sweep/1/job.log" in table[at[1]]
    assert any("ValueError: x=0 does not work" in line for line in table[at[1] : at[2]])
    assert "bad configuration" in table[at[2]]
    assert table[at[2] + 1].strip() == "error: x must be good"
    assert at[3] == at[2] + 2
    assert "killed by SIGKILL" in table[at[3]]
    assert out.count(": done in") == 2
    assert sweep.gone()


@pytest.mark.slow
def test_a_job_that_hangs_is_killed_with_all_its_processes(app):
    sweep = start(app, "do=ranks,return", "hydra.launcher.timeout=3")
    assert wait_for(lambda: len(sweep.members()) >= 5 and up(app, 0))
    code, _, err = sweep.end(timeout=60)
    assert code == 1
    assert "timeout after 3 s" in err
    assert len(ran(app, 1)) == 1
    assert sweep.gone()


def test_processes_that_outlive_their_job_are_ended(app):
    sweep = start(app, "do=leave")  # returns at once; its rank and its service sleep on
    code, _, err = sweep.end(timeout=60)
    assert code == 0, err
    assert sweep.gone(within=1)


@pytest.mark.slow
def test_a_failed_job_is_tried_again_from_its_checkpoint(app):
    code, out, err = start(app, "do=once,bad,raise,best", "hydra.launcher.retries=1").end()
    assert code == 1
    assert ran(app, 0) == ["None", "last"]
    assert ran(app, 1) == ["None"]  # a configuration does not get better
    assert ran(app, 2) == ["None", "None"]
    assert ran(app, 3) == ["None", "None"]  # no last.ckpt: begun anew
    assert (app.parent / "sweep" / "3" / "checkpoints.0" / "best.ckpt").exists()
    assert "2 of 4 jobs failed" in err
    assert "do=once: continued from its last checkpoint" in out


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_says_how_to_go_on(app, signum):
    sweep = start(app, "do=return,interrupt,interrupt,return", "hydra.launcher.n_jobs=2")
    assert wait_for(lambda: up(app, 1, 2)), sweep.members()
    sweep.process.send_signal(signum)
    code, out, err = sweep.end(timeout=60)
    assert code == 128 + signum, out + err
    assert sweep.gone()
    assert not (app.parent / "sweep" / "3").exists()
    assert "Traceback" not in err
    command = next(line.strip() for line in err.splitlines() if "hydra.launcher.resume=" in line)
    again = Sweep(app.parent, *shlex.split(command)[1:])
    code, out, err = again.end(timeout=60)
    assert code == 0, err
    assert [ran(app, k) for k in range(4)] == [["None"], ["None", "last"], ["None", "last"], ["None"]]
    assert again.gone()


def test_a_job_that_does_not_stop_is_killed_after_a_grace(app):
    (app.parent / "app.py").write_text(app.read_text().replace("def main(cfg):", "def main(cfg):\n    " + DEAF, 1))
    sweep = start(app, "do=hang", "hydra.launcher.grace=1")
    assert wait_for(lambda: up(app, 0))
    sweep.process.send_signal(signal.SIGINT)
    code, _, _ = sweep.end(timeout=30)
    assert code == 130
    assert sweep.gone()


DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"


def test_kill_9_of_the_launcher_ends_every_process(app):
    sweep = start(app, "do=ranks", "x=1,2", "hydra.launcher.n_jobs=2")
    assert wait_for(lambda: up(app, 0, 1))
    assert len(sweep.members()) == 9  # the launcher; two supervisors with three processes each
    sweep.kill()
    assert sweep.gone(), sweep.members()


def test_kill_9_of_the_supervisor_fails_its_job_alone(app):
    sweep = start(app, "do=ranks,return")
    assert wait_for(lambda: up(app, 0))
    (supervisor,) = [pid for pid, command in sweep.members().items() if "_supervise.py" in command]
    os.kill(supervisor, signal.SIGKILL)
    code, _, err = sweep.end(timeout=60)
    assert code == 1
    assert "1 of 2 jobs failed" in err
    assert len(ran(app, 1)) == 1


@pytest.mark.slow
def test_random_kills_of_a_small_sweep(app):
    """Killed again and again, a sweep ends with each job run to its end exactly once."""
    options = ["x=range(12)", "seconds=0.3", "hydra.launcher.n_jobs=3"]
    rng = random.Random(0)
    for _ in range(KILLS):
        sweep = start(app, *options)
        time.sleep(rng.uniform(0.5, 3))
        sweep.kill()
        assert sweep.gone(), sweep.members()
    code, _, err = start(app, "x=shuffle(range(12))", *options[1:]).end()
    assert code == 0, err
    jobs = [app.parent / "sweep" / str(k) for k in range(12)]
    values = [pickle.loads((job / "return_value.pickle").read_bytes())[0] for job in jobs]
    typed = [yaml.safe_load((job / "overrides.yaml").read_text())["overrides"][0] for job in jobs]
    assert sorted(typed) == sorted(f"x={x}" for x in range(12))
    assert values == [(int(word.removeprefix("x=")) - 3) ** 2 for word in typed]


# Epochs of many small steps, so that a kill meets all of a job: start, training, checkpoint, measurement.
TRAIN = ["trainer.max_epochs=30", "trainer.enable_progress_bar=false", "~callbacks.pictures", "hydra.sweep.dir=sweep"]
ENV = {"OMP_NUM_THREADS": "1"}


def train(folder, *overrides):
    return Sweep(folder, "-m", "ls_lightning.train", "-m", *overrides, env=ENV)


def numbers(folder, k):
    found = result(folder / "sweep" / str(k))
    return {key: found[key] for key in ("eps", "seed", "metrics", "digest", "steps")}


@pytest.mark.slow
def test_random_kills_of_a_training_sweep(tmp_path):
    """The results are those of a sweep that nobody disturbed."""
    options = ["eps=0,0.1", "trainer=cpu", "schedule=linear", "hydra.launcher.n_jobs=2", "model.dropout=0.2", *TRAIN]
    (tmp_path / "calm").mkdir()
    began = time.monotonic()
    code, _, err = train(tmp_path / "calm", *options).end()
    assert code == 0, err
    whole = time.monotonic() - began
    rng = random.Random()
    for n in range((KILLS + 1) // 2):
        folder = tmp_path / f"killed_{n}"
        folder.mkdir()
        said = ""
        for _ in range(2):
            sweep = train(folder, *options)
            if rng.random() < 0.8:  # while it trains; else at any moment
                before = newest(folder)
                wait_for(lambda: newest(folder) != before or sweep.process.poll() is not None)  # noqa: B023
            time.sleep(rng.uniform(0, 0.3) * whole)
            said += sweep.kill()
            assert sweep.gone(), sweep.members()
        code, out, err = train(folder, *options).end()
        assert code == 0, out + err
        print({what: (said + out).count(what) for what in ("started", "continued", "done in", "skipped")})
        assert (said + out).count("done in") <= 2  # nothing is trained twice
        for k in range(2):
            assert numbers(folder, k) == numbers(tmp_path / "calm", k)
            job = folder / "sweep" / str(k)
            assert steps(job) == list(range(result(job)["steps"]))


@pytest.mark.slow
@pytest.mark.ddp
def test_random_kills_of_ranks(tmp_path):
    """Rank 1, rank 0 and the launcher, each killed by -9 while two ranks train; the result is that of a calm sweep."""
    victims = ([1, 0, None] * KILLS)[: max(3, KILLS)]
    options = ["eps=0.1", "trainer=ddp_cpu", f"trainer.max_epochs={20 + 10 * len(victims)}", *TRAIN[1:]]
    (tmp_path / "calm").mkdir()
    code, _, err = train(tmp_path / "calm", *options).end()
    assert code == 0, err
    job = tmp_path / "sweep" / "0"
    last = job / "checkpoints" / "last.ckpt"
    for victim in victims:
        before = stamp(last)
        sweep = train(tmp_path, *options)
        assert wait_for(lambda: stamp(last) != before, within=120), sweep.end()  # noqa: B023
        time.sleep(random.uniform(0, 0.3))
        if victim is None:
            sweep.kill()
        else:
            os.kill(rank(sweep, victim), signal.SIGKILL)
            code, _, err = sweep.end(timeout=60)
            assert code == 1
            assert "1 of 1 jobs failed" in err
        assert sweep.gone(), sweep.members()
        assert not (job / "result.json").exists()
    code, out, err = train(tmp_path, *options).end()
    assert code == 0, out + err
    assert "continued from its last checkpoint" in out
    assert numbers(tmp_path, 0) == numbers(tmp_path / "calm", 0)
    assert steps(job) == list(range(result(job)["steps"]))


@pytest.mark.slow
@pytest.mark.ddp
def test_a_stopped_training_sweep_can_be_resumed(tmp_path):
    options = ["eps=0.1", "trainer=ddp_cpu", "trainer.max_epochs=60", *TRAIN[1:]]
    job = tmp_path / "sweep" / "0"
    sweep = train(tmp_path, *options)
    assert wait_for((job / "checkpoints" / "last.ckpt").exists, within=120)
    sweep.process.send_signal(signal.SIGINT)
    code, _, err = sweep.end(timeout=120)
    assert code == 130, err
    assert sweep.gone(), sweep.members()
    assert not (job / "result.json").exists()
    code, out, err = train(tmp_path, *options[:-1], "sweep.resume=sweep").end()
    assert code == 0, out + err
    assert "continued from its last checkpoint" in out
    assert result(job)["steps"] % 60 == 0


def steps(job):
    """Those that metrics.csv has a training loss of."""
    with (job / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def newest(folder):
    return max((stamp(path) for path in folder.rglob("last.ckpt")), default=0)


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def rank(sweep, number):
    """The process of a rank: rank 1 is started with a job name of its own."""
    jobs = {pid: line for pid, line in sweep.members().items() if "hydra.run.dir" in line and "_supervise" not in line}
    (found,) = [pid for pid, line in jobs.items() if ("train_ddp_process_1" in line) == (number == 1)]
    return found
