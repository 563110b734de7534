"""A small Hydra app for searches, without torch, and its study read back by optuna itself."""

import runpy
import sys

import optuna
import yaml
from hydra.core.global_hydra import GlobalHydra
from sweeps import Sweep, write_app

APP = """
import hydra, math, time
@hydra.main(config_path=".", config_name="app", version_base="1.3")
def main(cfg):
    time.sleep(cfg.seconds)
    found = {"val/acc": 1 - (cfg.x - 0.3) ** 2, "val/ece": (cfg.x - 0.7) ** 2 + cfg.y, "n": 10}
    returned = {"one": found["val/ece"], "two": (found["val/acc"], found["val/ece"]), "dict": found,
                "none": None, "diverge": math.nan}
    if cfg.do == "raise":
        raise ValueError(f"y={cfg.y} does not work")
    return returned[cfg.do]

if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [_self_, {override hydra/launcher: process}, {override hydra/sweeper: ls_optuna}]
x: 0.0
y: 0
do: one
seconds: 0
hydra: {output_subdir: null, sweep: {dir: sweep}}
"""


def write_search(folder, launcher="process"):
    """The app above. Returns its script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.yaml").write_text(CONFIG.replace("process", launcher))
    (folder / "app.py").write_text(APP)
    return folder / "app.py"


def write_slow_search(folder):
    """The app of the launcher's tests, which hangs, fails and goes on from a checkpoint."""
    app = write_app(folder)
    config = (folder / "app.yaml").read_text().replace("process}", "process}, {override hydra/sweeper: ls_optuna}")
    (folder / "app.yaml").write_text(config)
    return app


def start(app, *options):
    return Sweep(app.parent, "app.py", "-m", *options)


def search(app, *options):
    """Run it to its end. Returns (exit code, stdout, stderr)."""
    return start(app, *options).end()


def search_here(monkeypatch, capsys, app, *options):
    """The same in this process, with Hydra's basic launcher."""
    monkeypatch.chdir(app.parent)
    monkeypatch.setattr(sys, "argv", [str(app), "-m", "hydra/launcher=basic", *options])
    GlobalHydra.instance().clear()
    code = 0
    try:
        runpy.run_path(str(app), run_name="__main__")
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def study(folder, name="sweep"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder / 'sweep' / 'optuna.db'}")


def states(folder):
    return [trial.state.name for trial in study(folder).trials]


def typed(folder, number):
    """The overrides in the folder of a job."""
    return yaml.safe_load((folder / "sweep" / str(number) / "overrides.yaml").read_text())["overrides"]


def results(folder):
    return yaml.safe_load((folder / "sweep" / "optimization_results.yaml").read_text())
