"""What a user installs: the wheel and the sdist, and a job from the wheel in an empty directory."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"ls_lightning-{PROJECT['version']}"
SOURCES = ("ls_lightning", "hydra_plugins", "conf", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed, in an environment that knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "PIP_"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def package_files() -> set[str]:
    """What a wheel must hold: every source file and nothing else."""
    packages = ("ls_lightning", "hydra_plugins")
    code = {path.relative_to(ROOT).as_posix() for name in packages for path in (ROOT / name).rglob("*.py")}
    conf = {path for path in (ROOT / "conf").rglob("*") if path.suffix in {".py", ".yaml"}}
    code |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "ls_lightning" / "report" / "page").iterdir()}
    code |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "ls_lightning").rglob("*.[ch]")}
    return code | {"ls_lightning/py.typed"} | {f"ls_lightning/{path.relative_to(ROOT).as_posix()}" for path in conf}


class Built:
    def __init__(self, folder: Path) -> None:
        """Build in a copy: setuptools leaves its traces beside the sources."""
        copy = folder / "source"
        copy.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        self.log = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=copy)
        (self.wheel,) = (folder / "dist").glob("*.whl")
        (self.sdist,) = (folder / "dist").glob("*.tar.gz")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; what it depends on is borrowed from the environment of the tests.

    The borrowed folders are appended to sys.path, after the wheel, and their own .pth files are not read,
    so an editable installation of this checkout is out of reach.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built.wheel, cwd=home)
    (site,) = json.loads(run(python, "-c", "import json, site; print(json.dumps(site.getsitepackages()))", cwd=home))
    borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (Path(site) / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return python


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    assert built.wheel.name == f"{STEM}-py3-none-any.whl"
    extra = {name for name in names if not name.startswith(f"{STEM}.dist-info/")}
    assert extra == package_files()
    assert {name for name in names if name.endswith("/LICENSE")} == {f"{STEM}.dist-info/licenses/LICENSE"}
    assert any(name.startswith("ls_lightning/conf/loss/") for name in names)


@pytest.mark.slow
def test_the_metadata_says_what_pyproject_says(built: Built) -> None:
    metadata = zipfile.ZipFile(built.wheel).read(f"{STEM}.dist-info/METADATA").decode()
    header, _, description = metadata.partition("\n\n")
    assert "License-Expression: Apache-2.0" in header.splitlines()
    assert "Description-Content-Type: text/markdown" in header.splitlines()
    assert description.strip() == (ROOT / "README.md").read_text().strip()
    assert set(re.findall(r"^Provides-Extra: (\S+)", header, re.MULTILINE)) == PROJECT["optional-dependencies"].keys()


@pytest.mark.slow
def test_the_sdist_holds_all_that_a_wheel_is_built_from(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.removeprefix(f"{STEM}/") for name in archive.getnames()}
    flat = {name.replace("ls_lightning/conf/", "conf/") for name in package_files()}
    assert flat | {"pyproject.toml", "README.md", "LICENSE"} <= names
    unknown = {name.split("/")[0] for name in names} - {*SOURCES, STEM}
    assert unknown <= {"PKG-INFO", "setup.cfg", "ls_lightning.egg-info"}


@pytest.mark.slow
def test_the_build_warns_of_nothing_in_the_project(built: Built) -> None:
    """Setuptools says that a package is "absent from" the configuration, or that something is deprecated."""
    assert not re.findall(r".*(?:absent from|[Dd]eprecat).*", built.log)


@pytest.mark.slow
def test_the_wheel_is_what_is_imported(installed: Path, empty: Path) -> None:
    code = "import ls_lightning as ls, importlib.metadata as m; print(ls.__file__, m.version('ls-lightning'))"
    file, version = run(installed, "-c", code, cwd=empty).split()
    assert Path(file).is_relative_to(installed.parent.parent)
    assert version == PROJECT["version"]


@pytest.mark.slow
def test_a_job_runs_in_an_empty_directory(installed: Path, empty: Path) -> None:
    overrides = ["loss=ce", "eps=0.05", "schedule=linear", "data=digits", "trainer.max_epochs=2"]
    output = run(installed, "-m", "ls_lightning.train", *overrides, cwd=empty)
    (result,) = empty.rglob("result.json")
    job = result.parent
    assert job.is_relative_to(empty / "outputs")
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt", "reliability.png"):
        assert (job / name).stat().st_size > 0, name
    assert {path.name for path in empty.iterdir()} == {"outputs"}

    stored = json.loads(result.read_text())
    assert (stored["status"], stored["loss"], stored["eps"]) == ("complete", "ce", 0.05)
    assert stored["versions"]["ls-lightning"] == PROJECT["version"]
    assert stored["metrics"]["test"]["acc"] > 0.5
    assert "confident" in output


OWN_APP = """
import hydra
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

@hydra.main(config_path=".", config_name="mine", version_base="1.3")
def main(cfg):
    print(hydra.utils.instantiate(cfg.loss), type(hydra.utils.instantiate(cfg.schedule)).__name__)

main()
"""
OWN_CONFIG = """
defaults: [{loss: ce}, {schedule: linear}, _self_]
eps: 0.2
hydra: {searchpath: ["pkg://ls_lightning.conf"], run: {dir: .}, output_subdir: null}
"""


@pytest.mark.slow
def test_a_hydra_app_of_ones_own_finds_our_groups(installed: Path, empty: Path) -> None:
    (empty / "app.py").write_text(OWN_APP)
    (empty / "mine.yaml").write_text(OWN_CONFIG)
    output = run(installed, "app.py", "loss=kl", "eps=0.3", cwd=empty)
    assert "SmoothedKLDiv" in output
    assert "0.3" in output
    assert output.split()[-1] == "Linear"


def requirements() -> dict[str, list[Requirement]]:
    """Those of the core, under "", and of each extra, but for the extras that an extra names."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    read = {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}
    return {extra: [found for found in all_ if found.name != PROJECT["name"]] for extra, all_ in read.items()}


def test_every_requirement_has_a_lower_bound() -> None:
    unbounded = [
        f"{extra}: {found}"
        for extra, all_ in requirements().items()
        for found in all_
        if not any(bound.operator in {">=", "==", "~="} for bound in found.specifier)
    ]
    assert unbounded == []


def third_parties() -> set[str]:
    """The distributions whose modules the package imports, anywhere in a file."""
    files = [*(ROOT / "ls_lightning").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    tops = set[str]()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add(str(node.module).split(".")[0])
    tops -= sys.stdlib_module_names | {"ls_lightning", "hydra_plugins", "__main__"}
    return {canonicalize_name(name) for top in tops for name in packages_distributions().get(top, [top])}


@pytest.mark.slow
def test_what_everybody_installs_is_imported_and_what_is_imported_is_declared() -> None:
    """A new requirement of the core must be imported by it; a new import must be in the core or in an extra."""
    core = {found.name for found in requirements()[""]}
    imported = third_parties()
    assert core - imported == {"pytorch-lightning"}, "named to keep out the releases that were malware"
    assert any(Requirement(line).name == "pytorch-lightning" for line in requires("lightning") or ())
    declared = core | {found.name for all_ in requirements().values() for found in all_}
    lines = [line for name in core for line in requires(name) or () if "extra ==" not in line]
    brought = {canonicalize_name(Requirement(line).name) for line in lines}
    assert imported - declared - brought <= {"triton"}, "torch brings it where it was built for GPUs"


def test_the_versions_of_python_are_said_alike() -> None:
    said = {text.split(" :: ")[-1] for text in PROJECT["classifiers"] if " :: Python :: 3." in text}
    (tried,) = re.findall(r"for version in (.*); do", (ROOT / ".ci" / "resolution").read_text())
    assert said == set(tried.split())
    lowest = min(said, key=lambda version: int(version.split(".")[1]))
    assert PROJECT["requires-python"] == f">={lowest}"


def test_the_resolution_tries_every_extra_that_jobs_use() -> None:
    (listed,) = re.findall(r"^extras=\((.*)\)$", (ROOT / ".ci" / "resolution").read_text(), flags=re.MULTILINE)
    rest = PROJECT["optional-dependencies"].keys() - set(listed.split())
    assert rest == {"dev", "hf", "test", "third-party", "timm", "torchvision"}, (
        "they bring other builds of torch, or no job"
    )


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:2] == ["Apache", "License"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_names_the_version_or_is_unreleased() -> None:
    titles = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert len(titles) == len(set(titles))


def test_commits_are_checked_by_what_ci_checks() -> None:
    config = OmegaConf.load(ROOT / ".pre-commit-config.yaml")
    assert all(repo.repo == "local" for repo in config.repos), "nothing is fetched but packages"
    entries = {hook.entry for repo in config.repos for hook in repo.hooks if hook.language == "system"}
    commands = set(re.findall(r"\.venv/bin/((?:ruff|mypy)[^']*)'", (ROOT / ".ci" / "run").read_text()))
    assert commands == {"ruff check", "ruff format --check", "mypy"}
    assert entries == {"ruff check --fix", "ruff format", "mypy", "hadolint"}
