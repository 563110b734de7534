"""What a job was trained with beside eps and seed, in a form in which jobs can be compared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ls_lightning.sweep.find import CONFIG

_SECTIONS = ("evaluate", "loss", "model", "optimizer", "data", "trainer", "metrics")
_NOT_SETTINGS = re.compile(
    r"(loss\.eps|\w+\._partial_|(loss|model|data|trainer|metrics)\._target_"
    r"|trainer\.(default_root_dir|enable_\w+|log_every_n_steps|num_sanity_val_steps|accelerator|devices|num_nodes))"
)
_OF_THE_JOB = re.compile(r"^  (default_root_dir|eps): .*\n(    .*\n)*", re.MULTILINE)
"""Lines that differ in every job; what is left is mostly the same text, and parsed once."""
_SHAPES = {"Constant", "Linear", "Cosine", "TwoStage", "Step", "Warmup", "CosLog", "Delayed"}
_EPS = ("eps", "start", "end")
_WORDS = {
    "constant(eps=eps)": "constant",
    "linear(start=eps, end=0.0)": "linear decay",
    "cosine(start=eps, end=0.0)": "cosine decay",
    "two_stage(eps=eps, drop_at=0.8)": "two-stage",
}
NO_SMOOTHING = "-"


def schedule_label(text: Any, eps: float) -> str:
    """The form of a schedule, the same for every eps; ``"-"`` where nothing is smoothed.

    Args:
        text: as in ``result.json``.
        eps: of the job; numbers that follow it are called so.

    Example:
        >>> schedule_label("Linear(start=0.1, end=0.0)", 0.1), schedule_label("Linear(start=0.0, end=0.0)", 0.0)
        ('linear decay', '-')
        >>> schedule_label("Step(eps=0.2, milestones=(0.5, 0.75), gamma=0.5)", 0.2)
        'step(eps=eps, milestones=(0.5, 0.75), gamma=0.5)'
    """
    if text is None:
        return NO_SMOOTHING
    try:
        call = ast.parse(str(text), mode="eval").body
    except (SyntaxError, ValueError):
        return str(text)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return str(text)
    if eps == 0 and call.func.id in _SHAPES and not any(_heights(call)):
        return NO_SMOOTHING
    form = ast.unparse(_Relative(eps).visit(call))
    return _WORDS.get(form, form)


def _heights(call: ast.Call) -> Iterator[bool]:
    """Of every eps that the schedule or one in it names, whether it is above 0."""
    for node in ast.walk(call):
        if isinstance(node, ast.keyword) and node.arg in _EPS:
            yield _number(node.value) != 0


def _number(node: ast.expr) -> Any:
    """What a literal stands for, ``-0.4`` too; None for another expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


class _Relative(ast.NodeTransformer):
    """Snake case for classes, ``eps`` for the numbers that follow it."""

    def __init__(self, eps: float) -> None:
        self._eps = eps

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.id).lower())

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        if node.arg in _EPS and _number(node.value) == self._eps != 0:
            return ast.keyword(node.arg, ast.Name("eps"))
        return ast.keyword(node.arg, self.visit(node.value))


def read_settings(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Everything of a job that decides its numbers, by dotted key, without eps, seed and schedule.

    Args:
        folder: of the job; ``config.yaml`` in it.
        result: its result, which names model and data.
    """
    found: dict[str, Any] = dict(_flatten("", {key: _plain(result.get(key)) for key in ("model", "data", "devices")}))
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return found
    for section in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        if section.partition(":")[0] in _SECTIONS:
            found |= _flat_section(_OF_THE_JOB.sub("", section))
    return found


@lru_cache(maxsize=1024)
def _flat_section(text: str) -> dict[str, Any]:
    return {key: value for key, value in _flatten("", _parse(text)) if not _NOT_SETTINGS.fullmatch(key)}


def _flatten(head: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield head, _plain(value)
        return
    for key, item in value.items():
        yield from _flatten(f"{head}.{key}" if head else str(key), item)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None if it cannot be read."""
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _parse(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError:
        return None
