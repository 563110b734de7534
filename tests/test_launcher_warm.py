"""hydra.launcher.warm: a job that is forked after its imports is the job that a fresh process runs."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from cli import result
from sweeps import Sweep, wait_for, write_app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks on Linux only"),
]
ENV = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
}
PROBE = ["trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.pictures"]
WARM = "hydra.launcher.warm=true"
PROBE += ["+callbacks.probe._target_=warm_probe.Probe", "hydra.sweep.dir=sweep"]


def sweep(folder, *overrides):
    folder.mkdir(exist_ok=True)
    return Sweep(folder, "-m", "ls_lightning.train", "-m", *PROBE, *overrides, env=ENV)


def facts(folder, k):
    return json.loads((folder / "sweep" / str(k) / "facts.json").read_text())


def noted(folder, k):
    path = folder / "sweep" / str(k) / "facts.json"
    return path.exists() and path.read_text().endswith("}")


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same sweep forked and in fresh processes."""
    folders = {}
    for warm in ("true", "false"):
        folders[warm] = tmp_path_factory.mktemp(warm)
        options = ["eps=0,0.1", "schedule=linear", "model.dropout=0.2", "hydra.launcher.n_jobs=2"]
        started = sweep(folders[warm], *options, f"hydra.launcher.warm={warm}")
        code, out, err = started.end()
        assert code == 0, out + err
        assert started.gone()
    return folders["true"], folders["false"]


def test_the_same_numbers(both):
    for k in range(2):
        one, other = (result(folder / "sweep" / str(k)) for folder in both)
        for key in ("metrics", "reliability", "temperature", "digest", "steps", "versions", "seed", "eps"):
            assert one[key] == other[key]
        steps = [(folder / "sweep" / str(k) / "metrics.csv").read_bytes() for folder in both]
        assert steps[0] == steps[1]


def test_a_job_cannot_tell(both):
    for k in range(2):
        found = [facts(folder, k) for folder in both]
        assert [job.pop("forked") for job in found] == [True, False]
        assert found[0].pop("pid") != found[1].pop("pid")
        assert found[0].pop("parent") != found[1].pop("parent")
        known = [json.loads(json.dumps(job).replace(str(folder), "")) for job, folder in zip(found, both, strict=True)]
        for job in known:
            job["environ"].pop("SWEEP_MARK")
            job["environ"].pop("PWD", None)
        assert known[0] == known[1]
        assert known[0]["leads its group"]
        assert known[0]["in a session of its own"]
        assert [name for name in known[0]["files"] if "job.log" in name] == [f"/sweep/{k}/job.log"] * 2
        assert known[0]["open"] == []


def test_how_jobs_fail(tmp_path):
    started = sweep(tmp_path, "+callbacks.probe.do=raise,kill,note", WARM)
    code, out, err = started.end()
    assert code == 1, out
    table = err[err.index("2 of 3 jobs failed:") :]
    assert "exit code 1" in table
    assert "ValueError: this job does not work" in table
    assert "killed by SIGKILL" in table
    assert facts(tmp_path, 2)["forked"]
    assert started.gone()


def test_a_job_that_hangs_is_killed(tmp_path):
    started = sweep(tmp_path, "+callbacks.probe.do=hang", "hydra.launcher.timeout=15", WARM)
    code, _, err = started.end()
    assert code == 1
    assert "timeout after 15 s" in err
    assert started.gone()


def test_ctrl_c(tmp_path):
    started = sweep(tmp_path, "+callbacks.probe.do=hang", "seed=0,1", "hydra.launcher.n_jobs=2", WARM)
    assert wait_for(lambda: noted(tmp_path, 0) and noted(tmp_path, 1))
    started.process.send_signal(signal.SIGINT)
    code, _, err = started.end(timeout=60)
    assert code == 130, err
    assert "hydra.launcher.resume=sweep" in err
    assert "before the first checkpoint" in (tmp_path / "sweep" / "0" / "job.log").read_text()
    assert started.gone()


def test_kill_9_of_the_launcher_ends_every_process(tmp_path):
    started = sweep(tmp_path, "+callbacks.probe.do=hang", "seed=0,1", "hydra.launcher.n_jobs=2", WARM)
    assert wait_for(lambda: noted(tmp_path, 0) and noted(tmp_path, 1))
    assert len(started.members()) == 6  # the launcher, the template, two supervisors and their jobs
    started.kill()
    assert started.gone(), started.members()


def test_kill_9_of_the_launcher_before_there_is_a_job(tmp_path):
    started = sweep(tmp_path, WARM)
    assert wait_for(lambda: len(started.members()) == 2)
    started.kill()
    assert started.gone(), started.members()


def test_kill_9_of_a_supervisor_fails_its_job_alone(tmp_path):
    started = sweep(tmp_path, "+callbacks.probe.do=hang,note", WARM)
    assert wait_for(lambda: noted(tmp_path, 0))
    os.kill(facts(tmp_path, 0)["parent"], signal.SIGKILL)
    code, _, err = started.end()
    assert code == 1
    assert "1 of 2 jobs failed" in err
    assert facts(tmp_path, 1)["forked"]
    assert started.gone()


def test_without_its_template_a_sweep_goes_on(tmp_path):
    """A job that runs is not touched; the next is a fresh process."""
    started = sweep(tmp_path, "+callbacks.probe.do=wait", "seed=0,1", WARM)
    assert wait_for(lambda: noted(tmp_path, 0))
    os.kill(parent(facts(tmp_path, 0)["parent"]), signal.SIGKILL)
    (tmp_path / "go").touch()
    code, _, err = started.end()
    assert code == 0, err
    assert [facts(tmp_path, k)["forked"] for k in range(2)] == [True, False]
    assert started.gone()


def test_a_template_that_ends_before_its_first_job(tmp_path):
    started = sweep(tmp_path, WARM)
    assert wait_for(lambda: len(started.members()) == 2)
    (pid,) = set(started.members()) - {started.process.pid}
    os.kill(pid, signal.SIGKILL)
    code, _, err = started.end()
    assert code == 0, err
    assert not facts(tmp_path, 0)["forked"]
    assert started.gone()


def test_a_job_for_which_it_is_not_safe_is_a_fresh_process(tmp_path):
    started = sweep(tmp_path, "trainer=cpu", "trainer.accelerator=auto,cpu", "hydra.launcher.warm=auto")
    code, _, err = started.end()
    assert code == 0, err
    assert [facts(tmp_path, k)["forked"] for k in range(2)] == [False, True]


def test_mistakes(tmp_path):
    app = write_app(tmp_path)
    for options, words in (
        (["-m", "ls_lightning.train", "-m", "hydra.launcher.warm=perhaps"], "must be auto, true or false, got perhaps"),
        (["-m", "ls_lightning.train", "-m", "trainer=ddp_cpu", WARM], "needs one process on the CPU (trainer=cpu)"),
        ([app.name, "-m", WARM], "needs the program python -m ls_lightning.train"),
    ):
        code, _, err = Sweep(tmp_path, *options, env=ENV).end()
        assert code in (1, 2)  # Hydra's own, for an app that does not catch the error
        assert words in err
        assert "Traceback" not in err
        assert not (tmp_path / "sweep" / "0").exists()
