"""hydra/sweeper=ls_optuna when something goes wrong: nothing lost, nothing double, nobody left behind."""

import os
import random
import shlex
import signal
import sys
import time

import pytest
from searches import start, states, study, typed, write_search, write_slow_search
from sweeps import Sweep, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

KILLS = int(os.environ.get("LS_KILLS", "2"))
"""LS_KILLS=20 python -m pytest tests/test_optuna_sweeper_faults.py -k random -s: the long form, with what was met."""


def ran(app, number):
    """The ckpt_path of each time that a job was run."""
    return (app.parent / "sweep" / str(number) / "ran").read_text().split()


def begun(app):
    """How often a job was begun."""
    return sum(len(path.read_text().split()) for path in app.parent.glob("sweep/*/ran"))


def up(app, *numbers):
    return all((app.parent / "sweep" / str(number) / "up").exists() for number in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_search_goes_on_in_the_same_folders(tmp_path, signum):
    """With the same parameters, from the checkpoints that its jobs left."""
    app = write_slow_search(tmp_path)
    options = ["x=interval(0,1)", "do=interrupt", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=2"]
    sweep = start(app, *options)
    assert wait_for(lambda: up(app, 0, 1)), sweep.members()
    before = [trial.params for trial in study(tmp_path).trials]
    sweep.process.send_signal(signum)
    code, out, err = sweep.end(timeout=60)
    assert code == 128 + signum, out + err
    assert sweep.gone()
    assert states(tmp_path) == ["RUNNING"] * 2
    command = next(line.strip() for line in err.splitlines() if "hydra.launcher.resume=" in line)
    code, out, err = Sweep(tmp_path, *shlex.split(command)[1:]).end(timeout=60)
    assert code == 0, out + err
    assert states(tmp_path) == ["COMPLETE"] * 2
    assert [trial.params for trial in study(tmp_path).trials] == before
    assert [ran(app, number) for number in range(2)] == [["None", "last"]] * 2


def test_a_second_search_in_the_same_folder_waits_for_nobody(tmp_path):
    app = write_slow_search(tmp_path)
    first = start(app, "x=interval(0,1)", "do=hang")
    assert wait_for(lambda: up(app, 0))
    code, out, err = start(app, "x=interval(0,1)", "do=hang").end(timeout=60)
    assert (code, out) == (1, "")
    assert "belongs to a sweep that is running" in err
    first.kill()
    assert first.gone()


@pytest.mark.slow
def test_kill_9_while_a_trial_is_stored(tmp_path):
    """Between any two statements of SQL, the study has whole trials only."""
    write_search(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(KILLED_IN_SQL)
    options = ["app.py", "-m", "x=interval(0,1)", "y=range(5)", "hydra/launcher=basic"]
    begun = 0
    for statement in (*range(10, 70, 12), *range(70, 118, 4)):
        env = {"DIE_AT": str(statement), "PYTHONPATH": str(tmp_path)}
        code, _, err = Sweep(tmp_path, *options, "hydra.sweeper.n_trials=100", env=env).end()
        assert code == -signal.SIGKILL, err
        if (tmp_path / "sweep" / "optuna.db").exists():
            trials = study(tmp_path).trials
            assert all(set(trial.params) == {"x", "y"} for trial in trials)
            begun += any(trial.state.name == "RUNNING" for trial in trials)
    assert begun > 0  # one at least was killed with a trial begun
    count = len(study(tmp_path).trials) + 1
    calm = ["hydra.sweep.dir=calm/sweep", f"hydra.sweeper.n_trials={count}"]
    for more in ([f"hydra.sweeper.n_trials={count}"], calm):
        code, _, err = Sweep(tmp_path, *options, *more).end()
        assert code == 0, err
    found, wanted = ([(t.state, t.params, t.values) for t in study(f).trials] for f in (tmp_path, tmp_path / "calm"))
    assert found == wanted
    assert len(found) == count


KILLED_IN_SQL = """
import os, signal, sqlite3
left = int(os.environ.get("DIE_AT", "0"))
if left:
    connect = sqlite3.connect
    def count(statement):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    def traced(*args, **kwargs):
        found = connect(*args, **kwargs)
        found.set_trace_callback(count)
        return found
    sqlite3.connect = sqlite3.dbapi2.connect = traced
"""


@pytest.mark.slow
def test_random_kills_of_a_search(tmp_path):
    """Killed again and again, a search ends with the trials of one that nobody disturbed."""
    options = [
        "x=interval(-5,5)",
        "+z=a,b",
        "hydra.launcher.n_jobs=2",
        "seconds=0.3",
        f"hydra.sweeper.n_trials={4 + 2 * KILLS}",
    ]
    calm = write_slow_search(tmp_path / "calm")
    assert start(calm, *options).end()[0] == 0
    app = write_slow_search(tmp_path / "killed")
    rng = random.Random()
    said = ""
    for _ in range(KILLS):
        before = begun(app)
        sweep = start(app, *options)
        assert wait_for(lambda: begun(app) != before or sweep.process.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 1.5))
        said += sweep.kill()
        assert sweep.gone(), sweep.members()
    print({what: said.count(what) for what in ("started", "done in", "skipped")})
    code, out, err = start(app, *options).end()
    assert code == 0, out + err
    found, wanted = study(app.parent).trials, study(calm.parent).trials
    assert [(t.state.name, t.params, t.values) for t in found] == [(t.state.name, t.params, t.values) for t in wanted]
    assert len(found) == 4 + 2 * KILLS
    assert said.count("done in") <= len(found) < said.count("started") + len(found)  # nothing is run to its end twice
    for trial in found:
        assert typed(app.parent, trial.number)[0] == f"x={trial.params['x']!r}"
        assert trial.value == (trial.params["x"] - 3) ** 2
