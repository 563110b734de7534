"""Each example runs as its docstring says, from a folder of its own, and what it prints depends on eps."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import result

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.slow


def commands(script):
    """``(folder, arguments)`` of each command in the docstring, but for the installation."""
    text = ast.get_docstring(ast.parse((EXAMPLES / script).read_text()))
    folder = "."
    for line in re.findall(r"^    (\S.*)$", text.replace("\\\n", " "), re.M):
        program, *arguments = shlex.split(line)
        if program == "cd":
            (folder,) = arguments
        elif program == "python":
            yield folder, arguments
        else:
            assert program == "pip"


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """Runs every command of an example once; returns the folder and the outputs."""
    done = {}

    def run_script(script):
        if script not in done:
            root = tmp_path_factory.mktemp(Path(script).stem)
            shutil.copytree(EXAMPLES, root / "examples", ignore=shutil.ignore_patterns("__pycache__", "outputs"))
            done[script] = root, [run(root / folder, arguments) for folder, arguments in commands(script)]
        return done[script]

    return run_script


def run(folder, arguments):
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(output):
    """``{title: (accuracy, ECE, gap)}`` in percent."""
    lines = re.findall(r"^(.*?) *accuracy (\S+)%  ECE (\S+)%  gap (\S+)%$", output, re.M)
    return {title: tuple(map(float, numbers)) for title, *numbers in lines}


@pytest.fixture(scope="module")
def expected(run_all):
    """The rows of callback.py, whose network and seed the others share."""
    _, (output,) = run_all("callback.py")
    return rows(output)


def test_callback(expected, run_all):
    assert list(expected) == ["hard labels", "eps 0.1", "eps 0.1 to 0"]
    accuracies, errors, gaps = zip(*expected.values(), strict=True)
    assert min(accuracies) > 90
    assert gaps[1] < -10 < -5 < gaps[2] < gaps[0] < 5
    assert errors[1] > 10 > 5 > max(errors[0], errors[2])
    folder, _ = run_all("callback.py")
    assert [path.name for path in folder.iterdir()] == ["examples"]


def test_mixin(expected, run_all):
    folder, outputs = run_all("mixin.py")
    usual, more = map(rows, outputs)
    assert list(usual) == list(more) == ["Theirs", "Smoothed", "Own"]
    assert usual["Theirs"] == more["Theirs"] == expected["hard labels"]
    assert usual["Smoothed"] == expected["eps 0.1"]
    assert more["Smoothed"][2] < usual["Smoothed"][2] - 10
    assert more["Own"] != usual["Own"]
    assert min(accuracy for accuracy, _, _ in [*usual.values(), *more.values()]) > 90
    assert [path.name for path in folder.iterdir()] == ["examples"]


def test_app(expected, run_all):
    _, (usual, more) = run_all("hydra_app/app.py")
    assert usual.startswith("Linear(start=0.1, end=0.0)\n")
    assert rows(usual) == {"": expected["eps 0.1 to 0"]}
    assert more.startswith("Constant(eps=0.2)\n")
    assert rows(more)[""][2] < expected["eps 0.1"][2]


def test_command_line(run_all):
    folder, outputs = run_all("command_line.py")
    jobs = sorted(path.parent for path in folder.rglob("result.json"))
    results = [result(job) for job in jobs]
    assert [(found["loss"], found["eps"]) for found in results] == [("kl", 0.1), ("none", 0)]
    smoothed, plain = (found["metrics"]["test"] for found in results)
    assert smoothed["gap"] < -0.08 < -0.05 < plain["gap"]
    assert min(smoothed["acc"], plain["acc"]) > 0.9
    assert smoothed["n"] == plain["n"] == 359
    for job, found, output in zip(jobs, results, outputs, strict=True):
        assert f"{found['metrics']['test']['acc']:.2%}" in output
        assert str(job) in output
        assert found["model"] == "command_line.Net"
    configs = [(job / "config.yaml").read_text() for job in jobs]
    assert ["width: 32" in config for config in configs] == [False, True]


def test_every_example_is_run():
    scripts = [
        path for path in EXAMPLES.rglob("*.py") if "outputs" not in path.parts and "third_party" not in path.name
    ]
    assert sorted(f"test_{path.stem}" for path in scripts if f"test_{path.stem}" not in globals()) == []
    assert len(scripts) == 4
