"""hydra/launcher=process: each job of a multirun is a plain run of the same program."""

import csv
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from cli import result, run
from sweeps import Sweep, wait_for, write_app

from hydra_plugins.ls_process_launcher._errors import LauncherError
from hydra_plugins.ls_process_launcher._machine import free_port, gpu_slices, job_environment, refuse_ranks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path / "an app")


def folders(path):
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def test_return_values_reach_the_sweeper(app):
    code, out, err = Sweep(app.parent, "app.py", "-m", "hydra/sweeper=descent").end()
    assert code == 0, err
    assert "values [25, 1] [-2, 2]" in out
    assert "values [4, 0] [1, 3]" in out
    assert "best 3" in out
    assert folders(app.parent / "sweep") == ["0", "1", "2", "3"]


def test_the_same_program_with_the_same_flags(app, tmp_path):
    """A module, another config by name and folder, overrides for Hydra, a folder with odd characters."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.yaml").write_text("defaults: [app, _self_]\nx: 7\n")
    odd = "it's, a [sweep]=1"
    folder = "'" + odd.replace("'", "\\'") + "'"
    command = ["-m", "app", "-cn", "other", "-cd", tmp_path / "more", "-m", "do=return", "hydra.job.chdir=true"]
    sweep = Sweep(app.parent, *command, f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=job_${x}")
    code, _, err = sweep.end()
    assert code == 0, err
    job = app.parent / odd / "job_7"
    assert yaml.safe_load((job / "overrides.yaml").read_text())["overrides"] == ["do=return"]
    assert (job / "ran").read_text() == "None\n"
    assert {path.name for path in app.parent.iterdir()} - {"__pycache__"} == {
        "app.py", "app.yaml", "hydra_plugins", odd,
    }  # fmt: skip


def test_side_by_side_each_with_devices_and_port_of_its_own(app):
    env = {"CUDA_VISIBLE_DEVICES": "0,1,4,5", "RANK": "0", "PL_GLOBAL_SEED": "3"}
    options = ["do=environment", "x=1,2,3", "hydra.launcher.n_jobs=2", "hydra.launcher.devices_per_job=2"]
    code, _, err = Sweep(app.parent, "app.py", "-m", *options, env=env).end()
    assert code == 0, err
    found = [pickle.loads((app.parent / "sweep" / str(k) / "return_value.pickle").read_bytes())[0] for k in range(3)]
    assert [job["CUDA_VISIBLE_DEVICES"] for job in found[:2]] == ["0,1", "4,5"]
    assert found[2]["CUDA_VISIBLE_DEVICES"] in ("0,1", "4,5")
    assert found[0]["MASTER_PORT"] != found[1]["MASTER_PORT"]
    assert all(job["RANK"] is None and job["PL_GLOBAL_SEED"] is None for job in found)
    assert all(int(job["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2) for job in found)


def test_environment_of_a_job():
    from omegaconf import OmegaConf

    given = {
        "HOME": "/h", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "NODE_RANK": "0", "GROUP_RANK": "0",
        "MASTER_ADDR": "a", "MASTER_PORT": "1", "PL_GLOBAL_SEED": "3", "TORCHELASTIC_RUN_ID": "x", "SLURM_PROCID": "0",
        "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7",
    }  # fmt: skip
    env = job_environment(given, OmegaConf.create(), n_jobs=1, devices=None, port=23456)
    assert env == {"HOME": "/h", "SLURM_JOB_ID": "7", "MASTER_PORT": "23456", "PYTHONUNBUFFERED": "1"}
    env = job_environment({"OMP_NUM_THREADS": "5"}, OmegaConf.create(), n_jobs=4, devices="2", port=23456)
    assert (env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]) == ("5", "2")
    cfg = OmegaConf.create({"trainer": {"devices": 1000}})
    assert job_environment({}, cfg, n_jobs=2, devices=None, port=23456)["OMP_NUM_THREADS"] == "1"


def test_gpu_slices():
    visible = {"CUDA_VISIBLE_DEVICES": "3,GPU-ab,7"}
    assert gpu_slices(3, None, visible) == [None, None, None]
    assert gpu_slices(3, 1, visible) == ["3", "GPU-ab", "7"]
    assert gpu_slices(1, 2, visible) == ["3,GPU-ab"]
    for few in (visible, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "0,-1,1,2"}):
        with pytest.raises(LauncherError, match=r"needs 4 GPUs, got [310]\."):
            gpu_slices(2, 2, few)


def test_gpus_are_counted_without_torch(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g'\necho 'GPU 1: B'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_slices(2, 1, {}) == ["0", "1"]


def test_free_port_is_free():
    import socket

    with socket.socket() as mine:
        mine.bind(("", free_port(set())))
        taken = mine.getsockname()[1]
        assert all(free_port({taken + 1}) not in (taken, taken + 1) for _ in range(50))


@pytest.mark.parametrize("env", [{"WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "4"}, {"LOCAL_RANK": "1"}])
def test_ranks_are_refused(env):
    with pytest.raises(LauncherError, match="a sweep must be started once"):
        refuse_ranks(env)
    refuse_ranks({"WORLD_SIZE": "1", "RANK": "0"})


MISTAKES = [
    (["hydra.launcher.n_jobs=0"], {}, "hydra.launcher.n_jobs must be at least 1, got 0"),
    (["hydra.launcher.timeout=nan"], {}, "hydra.launcher.timeout must be"),
    (["hydra.launcher.n_jobs=two"], {}, "n_jobs"),
    (["hydra.launcher.resume=nowhere"], {}, "must be the folder of a sweep, which has a multirun.yaml, got 'nowhere'"),
    (["sweep.resume="], {}, "hydra.launcher.resume must be the folder of a sweep"),
    (["+sweep.resume=nowhere"], {}, "hydra.launcher.resume must be the folder of a sweep"),
    (["hydra.launcher.timeout=0"], {}, "hydra.launcher.timeout must be above 0, got 0"),
    (["hydra.run.dir=job"], {}, "hydra.run.dir is of a single job"),
    (["sweep.resume=nowhere"], {}, "must be the folder of a sweep, which has a multirun.yaml, got 'nowhere'"),
    (["hydra.sweeper.max_batch_size=1"], {}, "hydra.sweeper.max_batch_size ends a sweep after a batch with a failure"),
    ([], {"RANK": "0", "WORLD_SIZE": "2"}, "a sweep must be started once, got WORLD_SIZE=2"),
]


@pytest.mark.parametrize(("overrides", "env", "words"), MISTAKES)
def test_mistakes_are_one_line(tmp_path, overrides, env, words):
    code, out, err = run(tmp_path, "-m", "eps=0,0.1", *overrides, env=env)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert "Error in call to target" not in err
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_too_few_gpus(tmp_path):
    options = ["hydra.launcher.devices_per_job=2", "hydra.sweep.dir=sweep"]
    code, _, err = run(tmp_path, "-m", "eps=0,0.1", *options, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert code == 2
    assert "needs 2 GPUs, got 1" in err
    assert folders(tmp_path / "sweep") == []


def test_jobs_must_not_share_a_folder(app):
    code, _, err = Sweep(app.parent, "app.py", "-m", "x=1,2", "hydra.sweep.subdir=same").end()
    assert code == 1  # Hydra's own, for an app that does not catch the error
    assert "two jobs would share the folder" in err
    assert folders(app.parent / "sweep") == []


@pytest.mark.slow
def test_a_shuffled_sweep_goes_on_where_it_was(app):
    """The same jobs in another order: known by what they are, not by their numbers."""
    sweep = app.parent / "sweep"
    assert Sweep(app.parent, "app.py", "-m", "x=1,2,3,4").end()[0] == 0
    for lost in ("1", "2"):
        shutil.rmtree(sweep / lost)
    code, out, err = Sweep(app.parent, "app.py", "-m", "x=3,1,4,2", "hydra.launcher.resume=sweep").end()
    assert code == 0, err
    assert sorted(line.split(": ", 1)[1] for line in out.splitlines() if "skipped" in line or "started" in line) == [
        "x=1: skipped, it is done", "x=2: started", "x=3: started", "x=4: skipped, it is done",
    ]  # fmt: skip
    found = [yaml.safe_load((sweep / str(k) / "overrides.yaml").read_text())["overrides"] for k in range(4)]
    assert sorted(found) == [["x=1"], ["x=2"], ["x=3"], ["x=4"]]
    assert folders(sweep) == ["0", "1", "2", "3"]
    assert all((sweep / str(k) / "ran").read_text() == "None\n" for k in range(4))


def test_a_folder_of_another_job_is_refused(app):
    assert Sweep(app.parent, "app.py", "-m", "x=1,2").end()[0] == 0
    before = (app.parent / "sweep" / "1" / "ran").read_text()
    code, _, err = Sweep(app.parent, "app.py", "-m", "x=1,5").end()
    assert code == 1
    assert "Traceback" not in err
    assert "belongs to a job that is not in this sweep (x=2)" in err
    (app.parent / "app.yaml").write_text((app.parent / "app.yaml").read_text() + "new: 1\n")
    code, _, err = Sweep(app.parent, "app.py", "-m", "x=1,2").end()
    assert "belongs to a job that is not in this sweep" in err  # same overrides, another configuration
    assert (app.parent / "sweep" / "1" / "ran").read_text() == before


def test_a_folder_that_a_kill_left_half_claimed_is_free(app):
    folder = app.parent / "sweep" / "1"
    folder.mkdir(parents=True)
    (folder / "overrides.yaml.part").write_text("overrid")
    (folder / "job.log").touch()
    code, _, err = Sweep(app.parent, "app.py", "-m", "x=1,2").end()
    assert code == 0, err
    assert yaml.safe_load((folder / "overrides.yaml").read_text())["overrides"] == ["x=2"]
    assert not (folder / "overrides.yaml.part").exists()


def test_a_job_that_never_began_leaves_its_folder(app):
    assert Sweep(app.parent, "app.py", "-m", "do=return,bad").end()[0] == 1
    for name in ("ran", "up", "app.log"):  # a program that checks first writes nothing
        (app.parent / "sweep" / "1" / name).unlink()
    code, out, err = Sweep(app.parent, "app.py", "-m", "do=return,environment").end()
    assert code == 0, err
    assert "do=return: skipped" in out


def test_one_sweep_at_a_time_in_a_folder(app):
    first = Sweep(app.parent, "app.py", "-m", "x=1", "seconds=20")
    assert wait_for(lambda: (app.parent / "sweep" / "0" / "up").exists())
    code, _, err = Sweep(app.parent, "app.py", "-m", "x=1", "seconds=20").end()
    first.process.send_signal(signal.SIGINT)
    first.end()
    assert code == 1
    assert "another sweep is running in" in err


def test_status_on_a_terminal(app):
    parent, child = pty.openpty()
    command = [sys.executable, "app.py", "-m", "x=1,2,3", "seconds=0.5", "hydra.launcher.n_jobs=2"]
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=app.parent, stdout=child, stderr=child, env=env)
    os.close(child)
    seen = b""
    while True:
        try:
            block = os.read(parent, 4096)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(parent)
    assert process.wait(timeout=60) == 0, seen.decode()
    for words in (b"x=1", b"queued", b"running", b"done", b"3/3 jobs", b"about", b"left"):
        assert words in seen


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """The sweep that goes wrong elsewhere: each rank would shuffle for itself."""
    folder = tmp_path_factory.mktemp("shuffled")
    sweep = ["eps=shuffle(0,0.1,0.2)", "trainer=ddp_cpu", *OPTIONS, "hydra.sweep.dir=sweep"]
    code, out, err = run(folder, "-m", *sweep, env={"OMP_NUM_THREADS": "1"})
    assert code == 0, out + err
    return folder


OPTIONS = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.pictures"]
JOB_FILES = {
    "checkpoints", "config.yaml", "job.log", "metrics.csv", "overrides.yaml", "result.json", "return_value.pickle",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.ddp
def test_every_rank_trains_the_eps_of_its_job(shuffled):
    assert {path.name for path in shuffled.iterdir()} == {"sweep"}
    assert {path.name for path in (shuffled / "sweep").iterdir()} == {"0", "1", "2", "multirun.yaml"}
    seen = []
    for k in range(3):
        job = shuffled / "sweep" / str(k)
        assert {path.name for path in job.iterdir()} == JOB_FILES
        stored = yaml.safe_load((job / "config.yaml").read_text())
        typed = yaml.safe_load((job / "overrides.yaml").read_text())["overrides"]
        with (job / "metrics.csv").open(newline="") as file:
            trained = {float(row["ls/eps"]) for row in csv.DictReader(file) if row["ls/eps"]}
        found = result(job)
        assert found["devices"] == 2
        assert trained == {found["eps"]} == {stored["eps"]} == {stored["loss"]["eps"]}
        assert float(next(word for word in typed if word.startswith("eps=")).removeprefix("eps=")) == found["eps"]
        value, has_result = pickle.loads((job / "return_value.pickle").read_bytes())
        assert has_result
        assert value == found["metrics"]["val"]["nll"]
        seen.append(found["eps"])
    assert sorted(seen) == [0, 0.1, 0.2]


@pytest.mark.slow
@pytest.mark.ddp
def test_a_job_of_a_sweep_is_the_job_run_alone(shuffled):
    eps = result(shuffled / "sweep" / "1")["eps"]
    alone = [f"eps={eps}", "trainer=ddp_cpu", *OPTIONS, "hydra.run.dir=alone"]
    code, _, err = run(shuffled, *alone, env={"OMP_NUM_THREADS": "1"})
    assert code == 0, err
    one, other = result(shuffled / "sweep" / "1"), result(shuffled / "alone")
    shutil.rmtree(shuffled / "alone")
    for key in ("metrics", "reliability", "digest", "steps"):
        assert one[key] == other[key]
