"""hydra/sweeper=ls_optuna: what it searches, what it optimises, what it leaves behind."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from searches import results, search, search_here, states, study, typed, write_search

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError
from hydra_plugins.ls_optuna_sweeper._objectives import parse_objectives
from hydra_plugins.ls_optuna_sweeper._options import read_options
from hydra_plugins.ls_optuna_sweeper._space import parse_space
from hydra_plugins.ls_optuna_sweeper.config import OptunaSweeperConf

X = "x=interval(0,1)"


@pytest.fixture
def app(tmp_path):
    return write_search(tmp_path / "an app")


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run the app in this process. Returns (exit code, stdout, stderr)."""
    app = write_search(tmp_path)
    return lambda *options: search_here(monkeypatch, capsys, app, *options)


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("x=interval(0,0.3)", FloatDistribution(0, 0.3)),
        ("x=interval(1,4)", FloatDistribution(1, 4)),  # Hydra's own: an interval is of floats
        ("x=int(interval(1,4))", IntDistribution(1, 4)),
        ("x=tag(log,interval(1e-4,0.1))", FloatDistribution(1e-4, 0.1, log=True)),
        ("x=tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("x=range(1,4)", IntDistribution(1, 3)),  # Hydra's own: without its end
        ("x=range(0,10,5)", IntDistribution(0, 5, step=5)),
        ("x=range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("x=range(0,0.8,0.1)", FloatDistribution(0, 0.7, step=0.1)),
        ("x=ce,kl", CategoricalDistribution(["ce", "kl"])),
        ("x=choice(0.1,2,true,'a b')", CategoricalDistribution([0.1, 2, True, "a b"])),
        ("+x=1,null", CategoricalDistribution([1, None])),
        ("x=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
    ],
)
def test_search_space(text, distribution):
    space = parse_space(["y=1", text])
    assert space.distributions == {"x": distribution}
    assert space.fixed == ["y=1"]


@pytest.mark.parametrize("text", ["x=choice(0.1,2,true,'a, b','it\\'s',a/b,'1','null')", "x=1,null", "x=[1,2],{a:1}"])
def test_a_choice_is_written_as_it_was_typed(text):
    parser = OverridesParser.create()
    (dimension,) = parse_space([text]).dimensions
    wanted = list(parser.parse_override(text).sweep_iterator())
    found = [parser.parse_override(dimension.override(value)).value() for value in dimension.distribution.choices]
    assert found == [getattr(value, "text", value) for value in wanted]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_all_its_digits(value):
    (dimension,) = parse_space([X]).dimensions
    assert OverridesParser.create().parse_override(dimension.override(value)).value() == value


def test_the_last_of_a_key_counts():
    space = parse_space(["x=1,2", "y=3", "x=4,5"])
    assert space.overrides({"x": 5}) == ["y=3", "x=5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x=1"], "nothing is searched"),
        (["x=shuffle(1,2)"], "Leave shuffle away"),
        (["x=tag(log,range(1,5))"], "is for an interval"),
        (["x=tag(log,interval(0,1))"], "cannot be searched"),
        (["x=interval(1,0)"], "cannot be searched"),
        (["x=range(3,1)"], "the range is empty"),
        (["x=1,1.0"], "a value comes twice"),
    ],
)
def test_a_space_without_sense(arguments, words):
    with pytest.raises(SweeperError, match=words) as caught:
        parse_space(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objectives", "names", "directions"),
    [
        ("val/nll", ["val/nll"], ["minimize"]),
        (["val/acc", "val/ece"], ["val/acc", "val/ece"], ["maximize", "minimize"]),
        ({"val/acc": "minimize", "my/score": "maximize"}, ["val/acc", "my/score"], ["minimize", "maximize"]),
        ({"val/acc": None, "val/gap": "minimize"}, ["val/acc", "val/gap"], ["maximize", "minimize"]),
        (["val_loss", "val/smooth_ece"], ["val_loss", "val/smooth_ece"], ["minimize", "minimize"]),
    ],
)
def test_objectives(objectives, names, directions):
    found = parse_objectives(objectives, None)
    assert (found.names, found.directions) == (names, directions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objectives": ["test/ece"]}, "cannot be an objective.*Use val/ece"),
        ({"objectives": ["val/nll", "test_acc"]}, "cannot be an objective.*Use val_acc"),
        ({"objectives": ["val/gap"]}, "which way is val/gap better"),
        ({"objectives": {"val/acc": "up"}}, "must be minimize or maximize, got up"),
        ({"objectives": []}, "needs a name"),
        ({"objectives": ["val/acc"], "direction": "maximize"}, "direction is for returned values"),
        ({"direction": ["minimize", "down"]}, "must be minimize or maximize, got down"),
        ({"n_trials": 0}, "n_trials must be at least 1, got 0"),
        ({"n_jobs": 0}, "n_jobs must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"sampler": "grid"}, "sampler must be one of tpe, random, gp, cmaes, nsga2, or .* got grid"),
        ({"sampler": {"_target_": "optuna.samplers.TPESampler", "typo": 1}}, "hydra.sweeper.sampler: .*typo"),
        ({"sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1}}, "is hydra.sweeper.seed"),
        ({"sampler": {"_target_": "optuna.samplers.QMCSampler"}}, "cannot be resumed"),
        ({"pruner": "middle", "objectives": ["val/nll"]}, "pruner must be one of median"),
        ({"pruner": "median"}, "pruning needs the name of a logged metric"),
        ({"pruner": "median", "objectives": ["val/acc", "val/ece"]}, "pruning is possible with one objective"),
    ],
)
def test_mistakes_in_options(options, words):
    with pytest.raises(SweeperError, match=words) as caught:
        read({**options})
    assert "\n" not in str(caught.value)


def read(options, launcher=None):
    given = {key: value for key, value in OmegaConf.structured(OptunaSweeperConf).items() if key[0] != "_"}
    return read_options({**given, **options}, OmegaConf.create({"hydra": {"launcher": launcher or {}}}))


def test_as_many_trials_at_a_time_as_the_launcher_runs():
    assert read({}).n_jobs == 1
    assert read({}, {"n_jobs": 4}).n_jobs == 4
    assert read({}, {"n_jobs": -1}).n_jobs == 1  # joblib's "all cores"
    assert read({"n_jobs": 2}, {"n_jobs": 4}).n_jobs == 2


@pytest.mark.slow
def test_a_search(app):
    options = ["x=interval(0,1)", "y=range(0,3)", "hydra.sweeper.n_trials=5", "hydra.launcher.n_jobs=2"]
    code, out, err = search(app, *options, "do=one", "seconds=0")
    assert code == 0, err
    trials = study(app.parent).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    for number, trial in enumerate(trials):
        assert trial.value == (trial.params["x"] - 0.7) ** 2 + trial.params["y"]
        assert typed(app.parent, number) == [f"{k}={v}" for k, v in trial.params.items()] + ["do=one", "seconds=0"]
    best = min(trials, key=lambda trial: trial.value)
    found = results(app.parent)
    assert (found["best_params"], found["best_value"], found["best_trial"]) == (best.params, best.value, best.number)
    assert found["trials"] == {"complete": 5}
    assert "Best of 5 trials:" in out
    assert (app.parent / "sweep" / "multirun.yaml").exists()
    # The same command again has nothing to do; more trials go on.
    code, out, _ = search(app, *options, "do=one", "seconds=0")
    assert code == 0
    assert "started" not in out
    code, out, err = search(app, *options, "hydra.sweeper.n_trials=6", "do=one", "seconds=0")
    assert code == 0, err
    assert out.count("started") == 1
    assert [trial.params for trial in study(app.parent).trials[:5]] == [trial.params for trial in trials]
    assert study(app.parent).trials[5].params not in [trial.params for trial in trials]


@pytest.mark.slow
def test_the_seed_decides_not_the_launcher_nor_in_how_many_runs(here, app, tmp_path):
    options = [X, "y=0,1", "hydra.sweeper.sampler={_target_: optuna.samplers.TPESampler, n_startup_trials: 2}"]
    assert search(app, *options, "hydra.sweeper.n_trials=3")[0] == 0
    found = [(trial.params, trial.values) for trial in study(app.parent).trials]
    for n_trials in (1, 5):
        assert here(*options, f"hydra.sweeper.n_trials={n_trials}")[0] == 0
    long = [(trial.params, trial.values) for trial in study(tmp_path).trials]
    assert long[:3] == found
    assert here(*options, "hydra.sweeper.n_trials=5", "hydra.sweep.dir=at_once/sweep")[0] == 0
    assert [(trial.params, trial.values) for trial in study(tmp_path / "at_once").trials] == long
    assert here(*options, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=other/sweep", "hydra.sweeper.seed=7")[0] == 0
    assert [(trial.params, trial.values) for trial in study(tmp_path / "other").trials] != found


@pytest.mark.parametrize(
    "options",
    [
        ["do=two", "hydra.sweeper.direction=[maximize,minimize]"],
        ["do=dict", "hydra.sweeper.objectives=[val/acc,val/ece]"],
    ],
    ids=["tuple", "dict"],
)
def test_two_objectives(here, tmp_path, options):
    code, out, err = here(X, "y=range(0,2)", *options, "hydra.sweeper.n_trials=12")
    assert code == 0, err
    trials = study(tmp_path).trials
    values = [(1 - (t.params["x"] - 0.3) ** 2, (t.params["x"] - 0.7) ** 2 + t.params["y"]) for t in trials]
    assert [tuple(trial.values) for trial in trials] == values
    front = [
        k for k, (up, down) in enumerate(values)
        if not any(a >= up and b <= down and (a, b) != (up, down) for a, b in values)
    ]  # fmt: skip
    assert 1 < len(front) < 12
    found = results(tmp_path)["solutions"]
    assert sorted(solution["trial"] for solution in found) == front
    assert [solution["values"][0] for solution in found] == sorted((values[k][0] for k in front), reverse=True)
    assert all(solution["params"] == trials[solution["trial"]].params for solution in found)
    table = out[out.index("Pareto front of 12 trials") :].splitlines()[2 : 2 + len(front)]
    assert [int(line.split()[0]) for line in table] == [solution["trial"] for solution in found]


def test_a_named_value_of_an_app_that_returns_one(here, tmp_path):
    code, _, err = here(X, "hydra.sweeper.objectives={val_score: maximize}", "hydra.sweeper.n_trials=2")
    assert code == 0, err
    found = results(tmp_path)
    assert found["objectives"] == {"val_score": "maximize"}
    assert found["best_value"] == max(trial.value for trial in study(tmp_path).trials)


@pytest.mark.slow
def test_failures_do_not_end_the_search(app):
    options = ["do=one,raise", "y=1", X, "hydra.sweeper.n_trials=6", "hydra.sweeper.seed=5"]
    code, out, err = search(app, *options, "hydra.launcher.n_jobs=3")
    assert code == 1
    trials = study(app.parent).trials
    assert {trial.params["do"] for trial in trials} == {"one", "raise"}
    for trial in trials:
        assert trial.state.name == ("COMPLETE" if trial.params["do"] == "one" else "FAIL")
    failed = [trial.number for trial in trials if trial.state.name == "FAIL"]
    assert f"{len(failed)} of 6 trials failed: {', '.join(map(str, failed))}. The first: " in err
    assert "jobs failed:" in err  # the launcher's table
    assert f"({6 - len(failed)} complete, {len(failed)} failed)" in out
    assert trials[results(app.parent)["best_trial"]].params["do"] == "one"
    assert "Traceback" not in err[err.rindex("trials failed") :]


@pytest.mark.parametrize(
    ("do", "reason"), [("raise", "y=1 does not work"), ("diverge", "value is nan in trial")], ids=["raise", "nan"]
)
def test_failures_with_hydras_own_launcher(here, tmp_path, do, reason):
    code, _, err = here(f"do=one,{do}", "y=1", "hydra.sweeper.n_trials=4")
    assert code == 1
    assert f"The first: {reason}" in err
    trials = study(tmp_path).trials
    assert [t.state.name for t in trials] == ["COMPLETE" if t.params["do"] == "one" else "FAIL" for t in trials]
    assert {trial.params["do"] for trial in trials} == {"one", do}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["do=none"], "value must be a number, got None"),
        (["do=two"], "must return 1 number(s) for value, got (0."),
        (["do=dict", "hydra.sweeper.objectives=[val/nll]"], "val/nll is not among what"),
    ],
)
def test_a_job_without_the_objective_ends_the_search_at_once(here, tmp_path, options, words):
    code, _, err = here(X, *options)
    assert code == 1
    assert words in err
    assert states(tmp_path) == ["RUNNING"]


@pytest.mark.slow
def test_a_mistyped_objective_costs_no_job(app):
    options = [X, "do=dict", "hydra.sweeper.n_trials=2"]
    code, _, err = search(app, *options, "hydra.sweeper.objectives=[val/nll]")
    assert code == 1
    assert "val/nll is not among what" in err
    assert "val/acc, val/ece" in err
    code, out, err = search(app, *options, "hydra.sweeper.objectives=[val/acc]")
    assert code == 0, err
    assert " do=dict: skipped, it is done" in out
    assert states(app.parent) == ["COMPLETE"] * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["x=interval(0,2)"], "differs in what is searched (x=interval(0,1), got x=interval(0,2))"),
        ([X, "seconds=0"], "differs in what is fixed (, got seconds=0)"),
        ([X, "hydra.sweeper.direction=maximize"], "optimised (value: minimize, got value: maximize)"),
    ],
)
def test_another_search_in_the_folder_is_refused(here, tmp_path, change, words):
    assert here(X, "hydra.sweeper.n_trials=1")[0] == 0
    code, _, err = here(*change, "hydra.sweeper.n_trials=2")
    assert code == 1
    assert words in err
    assert len(states(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["x=1"], "nothing is searched"),
        ([X, "do=one", "typo=1"], "Could not override 'typo'"),
        ([X, "hydra/launcher=process,basic"], "hydra/launcher"),
        ([X, "hydra.sweeper.objectives=[test/ece]"], "cannot be an objective"),
        ([X, "hydra.sweeper.storage=nonsense"], "hydra.sweeper.storage=nonsense cannot be used"),
    ],
)
def test_a_mistake_leaves_nothing_behind(here, tmp_path, options, words):
    code, out, err = here(*options)
    assert (code, out) == (1, "")
    assert words in err
    assert not list(tmp_path.rglob("*.db"))


def test_the_search_space_in_a_file_and_the_study_elsewhere(here, tmp_path):
    """As Hydra's own optuna sweeper has it: params, storage, study_name."""
    config = (tmp_path / "app.yaml").read_text().replace("}}", "}, sweeper: {params: {x: 'interval(0,1)', y: '1,2'}}}")
    (tmp_path / "app.yaml").write_text(config)
    (tmp_path / "sweep").mkdir()
    url = f"sqlite:///{tmp_path}/sweep/shared.db"
    options = [f"hydra.sweeper.storage={url}", "hydra.sweeper.study_name=mine", "hydra.sweeper.n_trials=2"]
    for _ in range(2):
        code, _, err = here("y=2", *options)
        assert code == 0, err
    (tmp_path / "sweep" / "shared.db").rename(tmp_path / "sweep" / "optuna.db")
    assert [set(trial.params) for trial in study(tmp_path, "mine").trials] == [{"x"}, {"x"}]


def test_without_optuna(monkeypatch):
    from hydra_plugins.ls_optuna_sweeper import optuna_sweeper

    monkeypatch.setattr(optuna_sweeper, "find_spec", lambda name: None)
    with pytest.raises(SweeperError, match=r"needs optuna: pip install 'ls-lightning\[optuna\]'"):
        optuna_sweeper.OptunaSweeper().setup(hydra_context=None, task_function=None, config=None)


def test_hydra_finds_the_plugin_without_what_it_needs():
    from test_stairs import HEAVY, loaded_after

    code = (
        "from hydra.core.plugins import Plugins; from hydra.plugins.sweeper import Sweeper\n"
        "assert 'OptunaSweeper' in [found.__name__ for found in Plugins.instance().discover(Sweeper)]"
    )
    assert loaded_after(code) & (HEAVY | {"optuna", "sqlalchemy", "ls_lightning", "rich"}) == set()
    assert "optuna" in sys.modules
