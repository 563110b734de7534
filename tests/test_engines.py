"""Hydra's other launchers: SLURM and local tasks by submitit, joblib, its own; real processes."""

import csv
import os
import pickle
import signal

import pytest
import yaml
from cli import result, run, run_here, start
from fake_slurm import install, options
from sweeps import wait_for

from ls_lightning.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals")]

TINY = ["model=linear", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.pictures"]
MLP = ["trainer=cpu", *TINY[1:], "model.dropout=0.2", "model.hidden=[32]", "seed=1"]
ENV = {"OMP_NUM_THREADS": "1"}
JOB_FILES = {"checkpoints", "config.yaml", "metrics.csv", "result.json"}


def numbers(folder):
    """What two runs of the same job must have in common, to the last bit."""
    found = result(folder)
    return {key: found[key] for key in ("metrics", "reliability", "digest", "steps", "eps")}


def check_jobs(sweep, eps, devices):
    """Each job complete, in its own folder, every step with the eps of the job."""
    trained = []
    for k in range(len(eps)):
        job = sweep / str(k)
        assert {path.name for path in job.iterdir()} == JOB_FILES
        found, stored = result(job), yaml.safe_load((job / "config.yaml").read_text())
        with (job / "metrics.csv").open(newline="") as file:
            steps = {float(row["ls/eps"]) for row in csv.DictReader(file) if row["ls/eps"]}
        assert steps == {found["eps"]} == {stored["eps"]}
        assert found["devices"] == devices
        assert (found["metrics"]["val"]["n"], found["metrics"]["test"]["n"]) == (359, 539)
        trained.append(found["eps"])
    assert sorted(trained) == eps


@pytest.mark.ddp
def test_local_tasks_of_submitit(tmp_path):
    options = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "hydra.sweep.dir=sweep"]
    code, out, err = run(tmp_path, "-m", "eps=shuffle(0,0.1)", "trainer=ddp_cpu", *options, *TINY, env=ENV)
    assert code == 0, out + err
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}
    check_jobs(tmp_path / "sweep", [0, 0.1], devices=2)


@pytest.mark.ddp
def test_two_nodes_of_slurm(tmp_path):
    """The script that sbatch gets, and what comes of it when it is run."""
    env = {**ENV, **install(tmp_path / "slurm")}
    wanted = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.sweep.dir=sweep"]
    nodes = ["trainer=ddp_cpu", "trainer.num_nodes=2", "trainer.devices=1"]
    code, out, err = run(tmp_path, "-m", "eps=shuffle(0,0.1)", *wanted, *nodes, *TINY, env=env)
    assert code == 0, out + err
    check_jobs(tmp_path / "sweep", [0, 0.1], devices=2)
    assert {path.name for path in tmp_path.iterdir()} == {"slurm", "sweep"}
    (script,) = (tmp_path / "slurm").glob("*.sh")
    said = options(script)
    assert {key: said[key] for key in ("nodes", "ntasks-per-node", "gpus-per-node", "time", "array", "partition")} == {
        "nodes": "2", "ntasks-per-node": "1", "gpus-per-node": "1", "time": "240", "array": "0-1%2", "partition": "gpu",
    }  # fmt: skip
    assert "requeue" in said
    assert said["output"].startswith(f"{tmp_path}/sweep/.submitit/")
    assert script.read_text().index("export SLURM_KILL_BAD_EXIT=1") < script.read_text().index("srun")
    # The same job alone, on one machine.
    first = result(tmp_path / "sweep" / "0")["eps"]
    code, _, err = run(tmp_path, f"eps={first}", "trainer=ddp_cpu", *TINY, "hydra.run.dir=alone", env=ENV)
    assert code == 0, err
    assert result(tmp_path / "alone")["metrics"] == result(tmp_path / "sweep" / "0")["metrics"]


@pytest.mark.ddp
def test_a_preempted_job_goes_on_from_its_checkpoint(tmp_path):
    env = {**ENV, **install(tmp_path / "slurm")}
    job = ["eps=0.1", "trainer=ddp_cpu", *TINY[:1], *TINY[2:], "trainer.max_epochs=12"]
    sweep = start(tmp_path, "-m", *job, "hydra/launcher=slurm", "hydra.sweep.dir=sweep", env=env)
    assert wait_for((tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt").exists, within=200)
    os.kill(int((tmp_path / "slurm" / "pid-0").read_text()), signal.SIGUSR2)
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out + err
    (log,) = (tmp_path / "sweep" / ".submitit").glob("*/*_0_log.out")
    assert "Calling checkpoint method" in log.read_text()
    assert log.read_text().count("Starting with JobEnvironment") == 2
    code, _, err = run(tmp_path, *job, "hydra.run.dir=alone", env=ENV)
    assert code == 0, err
    assert numbers(tmp_path / "alone") == numbers(tmp_path / "sweep" / "0")


@pytest.mark.ddp
def test_a_rank_that_fails_ends_the_job(tmp_path):
    """Rank 0 of two alone: the other would wait for it for half an hour."""
    (tmp_path / "bad.py").write_text(
        "import os\nfrom lightning import Callback\n\nclass Bad(Callback):\n    def __init__(self):\n"
        "        if os.environ['SLURM_PROCID'] == '0':\n            raise RuntimeError('out of luck')\n"
    )
    env = {**ENV, **install(tmp_path / "slurm"), "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    job = ["eps=0.1", "trainer=ddp_cpu", "+callbacks.bad._target_=bad.Bad", *TINY]
    sweep = start(tmp_path, "-m", *job, "hydra/launcher=slurm", "hydra.sweep.dir=sweep", env=env)
    ended = wait_for((tmp_path / "slurm" / "exit-0").exists, within=120)
    sweep.kill()  # sacct would tell it some minutes later
    sweep.communicate()
    assert ended
    assert int((tmp_path / "slurm" / "exit-0").read_text()) != 0
    with next((tmp_path / "sweep" / ".submitit").glob("*/*_0_result.pkl")).open("rb") as file:
        returned = pickle.load(file)[1]
    with pytest.raises(ConfigError, match="out of luck"):
        _ = returned.return_value
    assert not (tmp_path / "sweep" / "0").exists()


def test_a_requeued_job_resumes(monkeypatch, tmp_path):
    """``srun python -m ls_lightning.train`` in an sbatch script: SLURM runs the same line again."""
    quick = ["eps=0.1", *TINY, "trainer.accelerator=cpu", "hydra.run.dir=job"]
    assert run_here(monkeypatch, tmp_path, *quick) == 0
    (tmp_path / "job" / "result.json").unlink()
    assert run_here(monkeypatch, tmp_path, *quick) == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_here(monkeypatch, tmp_path, *quick) == 0
    assert result(tmp_path / "job")["status"] == "complete"


LAUNCHERS = {
    "process": ["hydra.launcher.n_jobs=2"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "basic": ["hydra/launcher=basic"],
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The last job of the sweep below, run alone."""
    folder = tmp_path_factory.mktemp("alone")
    code, _, err = run(folder, "eps=0.2", *MLP, "hydra.run.dir=job", env=ENV)
    assert code == 0, err
    return numbers(folder / "job")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_of_a_sweep_is_the_job_run_alone(tmp_path, alone, launcher):
    """Three jobs in two processes or one: neither seeds nor loggers of one job reach the next."""
    sweep = ["eps=0,0.1,0.2", *MLP, "hydra.sweep.dir=sweep"]
    code, _, err = run(tmp_path, "-m", *sweep, *LAUNCHERS[launcher], env=ENV)
    assert code == 0, err
    assert numbers(tmp_path / "sweep" / "2") == alone
    for k in range(3):
        with (tmp_path / "sweep" / str(k) / "metrics.csv").open(newline="") as file:
            assert {row["ls/eps"] for row in csv.DictReader(file)} <= {"", str([0.0, 0.1, 0.2][k])}
    assert len({str(result(tmp_path / "sweep" / str(k))["metrics"]) for k in range(3)}) == 3


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("launcher", "remedy"),
    [
        (["hydra/launcher=basic"], "got hydra/launcher=basic, where each rank would run the sweep again."),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "got hydra/launcher=joblib, where"),
        (["hydra/launcher=submitit_local"], "SUBMITIT_LOCAL_NTASKS=1. Set hydra.launcher.tasks_per_node=2"),
    ],
    ids=["basic", "joblib", "submitit_local"],
)
def test_refused_under_ddp(tmp_path, launcher, remedy):
    sweep = ["eps=shuffle(0,0.1,0.2,0.3)", "trainer=ddp_cpu", *TINY, "hydra.sweep.dir=sweep"]
    code, _, err = run(tmp_path, "-m", *sweep, *launcher, env=ENV)
    assert code == 2
    named, line = err.strip().splitlines()
    assert named.startswith("Error executing job with overrides: ['eps=")
    assert line.startswith("error: ")
    assert remedy in line
    assert {path.name for path in (tmp_path / "sweep").iterdir()} <= {"multirun.yaml", ".submitit"}
