"""Sweeps that wandb plans: the command that its agent would run, and the group of its runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli import QUICK, result, run
from test_wandb import runs, work  # noqa: F401  a fixture
from wandb.sdk.launch.sweeps import utils

from ls_lightning.config import check_eps

SWEEP = Path(__file__).parents[1] / "conf" / "wandb_sweep.yaml"


def planned():
    return yaml.safe_load(SWEEP.read_text())


def command(**values):
    """What ``wandb agent`` starts for these values, by wandb's own functions; the loop is that of its agent."""
    macros = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros["env"] = ["/usr/bin/env"]
    words = []
    for word in utils.create_sweep_command(planned()["command"]):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    return words


def test_the_command_of_the_agent():
    assert command(eps=0.125, loss="kl", schedule="linear") == [
        "/usr/bin/env", "python", "-m", "ls_lightning.train", "logger=wandb", "logger.wandb.offline=false",
        "eps=0.125", "loss=kl", "schedule=linear",
    ]  # fmt: skip


def test_what_is_searched_and_optimised():
    plan = planned()
    assert plan["metric"] == {"name": "val/nll", "goal": "minimize"}
    eps = plan["parameters"]["eps"]
    check_eps("eps", eps["min"])
    check_eps("eps", eps["max"])
    for group, options in plan["parameters"].items():
        if group != "eps":
            assert all((SWEEP.parent / group / f"{option}.yaml").exists() for option in options["values"])


def agent(folder, words, run_id="run1", **env):
    """Run them as the agent does: with the sweep, the run and its parameters in the environment."""
    values = dict(word.split("=") for word in words if "=" in word and not word.startswith("logger"))
    config = folder / "wandb" / "sweep-abc123" / f"config-{run_id}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.dump({"wandb_version": 1, **{key: {"value": value} for key, value in values.items()}}))
    env = {
        **os.environ, "WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abc123", "WANDB_RUN_ID": run_id,
        "WANDB_SWEEP_PARAM_PATH": str(config), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env,
    }  # fmt: skip
    done = subprocess.run([*words, *QUICK], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_of_the_agent(work):  # noqa: F811
    agent(work, [*command(eps=0.25, loss="kl", schedule="linear"), "hydra.run.dir=job"])
    found = result(work / "job")
    assert (found["eps"], found["loss"]) == (0.25, "kl")
    (logged,) = runs(work / "job")
    assert (logged.run.run_id, logged.run.sweep_id, logged.run.run_group) == ("run1", "abc123", "abc123")
    assert logged.summary["val/nll"] == pytest.approx(found["metrics"]["val"]["nll"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.ddp
def test_a_run_of_several_ranks_is_one_run(work):  # noqa: F811
    agent(work, [*command(eps=0.25, loss="kl", schedule="linear"), "hydra.run.dir=job", "trainer=ddp_cpu"])
    assert result(work / "job")["devices"] == 2
    (logged,) = runs(work / "job")
    assert logged.run.run_group == "abc123"
    assert [path.name for path in work.rglob("offline-run-*") if path.is_dir()] == [logged.folder.name]


TINY = ["logger=wandb", *QUICK, "trainer.limit_train_batches=1"]
SWEEP_OF_TWO = ["-m", "eps=0,0.1", *TINY, "hydra.sweep.dir=sweep/mine"]


def groups(folder):
    """Of the jobs of the sweep above."""
    found = [runs(folder / "sweep" / "mine" / str(number)) for number in range(2)]
    return [[logged.run.run_group for logged in each] for each in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "group"), [({}, "sweep/mine"), ({"WANDB_RUN_GROUP": "environment"}, "environment")], ids=["folder", "env"]
)
def test_the_jobs_of_a_multirun_are_a_group(work, env, group):  # noqa: F811
    code, out, err = run(work, *SWEEP_OF_TWO, env=env)
    assert code == 0, out + err
    assert groups(work) == [[group]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "group"), [([], "sweep/mine"), (["logger.wandb.group=theirs"], "theirs")], ids=["folder", "typed"]
)
def test_the_jobs_of_a_multirun_in_one_process_are_a_group(work, options, group):  # noqa: F811
    # Not in the process of the tests: a run that another test left open would be taken for that of the first job.
    code, out, err = run(work, *SWEEP_OF_TWO, "hydra/launcher=basic", *options)
    assert code == 0, out + err
    assert groups(work) == [[group]] * 2


@pytest.mark.slow
def test_a_job_by_itself_has_no_group(work):  # noqa: F811
    code, out, err = run(work, "eps=0", *TINY, "hydra.run.dir=job")
    assert code == 0, out + err
    assert [logged.run.run_group for logged in runs(work / "job")] == [""]
