"""The rule of the stairs: a module imports only from floors below its own, or from inside its own folder."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ls_lightning

PACKAGE = "ls_lightning"
ROOT = Path(ls_lightning.__file__).parent

FLOORS = {
    "errors": 0,
    "functional": 0,
    "schedules": 0,
    "seeds": 0,
    "cluster": 1,
    "config": 1,
    "eps_buffer": 1,
    "plots": 1,
    "sweep": 1,
    "tap": 1,
    "loggers": 2,
    "losses": 2,
    "metrics": 2,
    "wandb_logger": 2,
    "wandb_run": 1,
    "schedule_chart": 2,
    "zoo": 2,
    "callbacks": 3,
    "assemble": 4,
    "autoload": 4,
    "mixin": 4,
    "job": 5,
    "report": 6,
    "stacked": 6,
    "train": 6,
}
ONLY = {"functional": {"torch", "triton"}, "schedules": set[str]()}  # third parties that a storey may import at all
_LATE = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "wandb"}
NEVER = {"config": _LATE, "report": _LATE, "sweep": _LATE}


def imports(path: Path, root: Path) -> Iterator[str]:
    """Every module or name that a file imports, absolute, wherever in the file the import stands."""
    folder = [PACKAGE, *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def storey(dotted: str) -> str:
    """``ls_lightning.zoo.models.MLP`` -> ``zoo``."""
    return [*dotted.split("."), ""][1]


def refused(home: str, third_party: str) -> bool:
    if home in ONLY:
        return third_party not in ONLY[home] | sys.stdlib_module_names
    return third_party in NEVER.get(home, ())


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        home = path.relative_to(root).parts[0].removesuffix(".py")
        if home == "__init__":
            continue
        where = str(path.relative_to(root))
        if home not in FLOORS:
            found.append(f"{where}: {home} has no floor")
            continue
        for name in imports(path, root):
            top = name.split(".")[0]
            if top == PACKAGE:
                target = storey(name)
                if target not in FLOORS:
                    found.append(f"{where}: imports {name}, which has no floor")
                elif target != home and FLOORS[target] >= FLOORS[home]:
                    found.append(f"{where}: floor {FLOORS[home]} imports {target} of floor {FLOORS[target]}")
            elif refused(home, top):
                found.append(f"{where}: {home} must not import {top}")
    return found


def test_the_house_keeps_the_rule() -> None:
    assert "\n".join(violations(ROOT)) == ""


def test_the_plan_names_no_storey_that_is_not_there() -> None:
    built = {path.name.removesuffix(".py") for path in ROOT.iterdir()}
    assert sorted(FLOORS.keys() - built) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        (
            "losses.py",
            "from ls_lightning.callbacks.x import X",
            "imports callbacks",
        ),
        ("losses.py", "from ls_lightning import metrics", "imports metrics"),
        ("losses.py", "import ls_lightning.train as t", "imports train"),
        ("losses.py", "from . import mixin", "imports mixin"),
        ("losses.py", "from ls_lightning import LabelSmoothing", "has no floor"),
        ("losses.py", "import ls_lightning as ls", "has no floor"),
        ("zoo/models.py", "from ..losses import build_loss", "imports losses"),
        ("zoo/deep/nets.py", "from ...metrics import ECE", "imports metrics"),
        ("zoo/models.py", "def build():\n    from ls_lightning import job", "imports job"),
        (
            "tap.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ls_lightning.losses import X",
            "losses",
        ),
        ("functional/eps.py", "import numpy as np", "must not import numpy"),
        ("functional/eps.py", "from ls_lightning.schedules import Linear", "imports schedules"),
        ("schedules/curves.py", "import torch.nn", "must not import torch"),
        ("config.py", "def check():\n    from lightning import Trainer", "must not import lightning"),
        ("attic.py", "import math", "attic has no floor"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    (found,) = violations(tmp_path)
    assert found.startswith(file)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from ls_lightning.mixin import LabelSmoothingMixin"),
        ("losses.py", "import math, torch\nfrom ls_lightning.functional.smoothing import soft_cross_entropy"),
        ("zoo/models.py", "from .checks import check_int\nfrom . import data_base"),
        ("zoo/deep/nets.py", "from ..checks import check_int"),
        ("callbacks/a.py", "from ls_lightning.callbacks.b import B\nfrom ls_lightning import plots"),
        ("config.py", "import hydra\nfrom ls_lightning.schedules import Schedule"),
    ],
)
def test_a_step_down_is_fine(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path) == []


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a new interpreter after ``code``."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "wandb", "matplotlib", "sklearn", "triton"}


@pytest.mark.parametrize(
    ("code", "needed", "unwanted"),
    [
        ("import ls_lightning", "ls_lightning", HEAVY | {"hydra", "omegaconf", "numpy"}),
        (
            "from ls_lightning import losses, functional\nlosses.SmoothedCrossEntropy(eps=0.1)",
            "torch",
            (HEAVY - {"torch"}) | {"hydra", "omegaconf"},
        ),
        ("import ls_lightning.schedules", "ls_lightning", HEAVY | {"hydra", "omegaconf", "numpy"}),
        ("import ls_lightning.config", "hydra", HEAVY),
        ("import ls_lightning.train", "hydra", HEAVY),
        ("import ls_lightning.report.__main__", "rich", HEAVY | {"hydra", "numpy"}),
    ],
    ids=["the package", "a loss", "the schedules", "the configuration", "the command line", "the report"],
)
def test_an_import_brings_only_what_it_needs(code: str, needed: str, unwanted: set[str]) -> None:
    loaded = loaded_after(code)
    assert needed in loaded
    assert sorted(loaded & unwanted) == []


def type_checking_names(path: Path) -> list[str]:
    """The names that type checkers and editors see."""
    blocks = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    statements = [node for block in blocks for node in block.body]
    imported = [node for node in statements if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imported for alias in node.names]


@pytest.mark.parametrize("name", ls_lightning.__all__)
def test_a_public_name_resolves(name: str) -> None:
    value = getattr(ls_lightning, name)
    if isinstance(value, type):
        assert value.__name__ == name
        assert value is getattr(importlib.import_module(value.__module__), name)
    else:
        assert value is importlib.import_module(f"{PACKAGE}.{name}")


def test_the_contents_are_the_same_for_readers_editors_and_dir() -> None:
    assert sorted(type_checking_names(ROOT / "__init__.py")) == sorted(ls_lightning.__all__)
    assert sorted(dir(ls_lightning)) == sorted(ls_lightning.__all__)
    assert len(set(ls_lightning.__all__)) == len(ls_lightning.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ls_lightning' has no attribute 'LabelSmoother'"):
        ls_lightning.LabelSmoother  # noqa: B018
    assert not hasattr(ls_lightning, "job_schema")
