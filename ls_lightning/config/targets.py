"""The object that a ``_target_`` names, or one line that says what was looked for and what is there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from ls_lightning.errors import ConfigError, did_you_mean, one_line

_MOST = 8


def check_targets(cfg: DictConfig) -> None:
    """``ConfigError`` unless every ``_target_`` can be called with what is given to it. Imports what they name."""
    for group in cfg:
        for head, node in _nodes(str(group), cfg[group]):
            _check_arguments(head, locate(f"{head}._target_", node["_target_"]), list(map(str, node)))


def locate(key: str, target: str) -> Any:
    """The class or function that a dotted path names.

    Args:
        key: of the configuration, e.g. ``"model._target_"``.
        target: e.g. ``"my_project.Net"``.

    Raises:
        ConfigError: there is no such module or name, it cannot be called, or its module cannot be imported.

    Example:
        >>> locate("loss._target_", "math.sqr")
        Traceback (most recent call last):
        ls_lightning.errors.ConfigError: loss._target_=math.sqr: the module math has no 'sqr'. Did you mean math.sqrt?
    """
    said = f"{key}={target}"
    if not re.fullmatch(r"\w+(\.\w+)+", target):
        raise ConfigError(f"{said} must be <module>.<name>, such as my_project.Net.{_meant(target)}")
    names = target.split(".")
    found: Any = _import(said, names[0])
    for depth, name in enumerate(names[1:], 1):
        if not hasattr(found, name) and isinstance(found, ModuleType) and _has_module(found, name):
            _import(said, ".".join(names[: depth + 1]))
        if not hasattr(found, name):
            raise ConfigError(f"{said}: {_lacks(found, name, '.'.join(names[:depth]))}")
        found = getattr(found, name)
    if not callable(found):
        content = _content(found) if isinstance(found, ModuleType) else ""
        raise ConfigError(f"{said} must be a class or a function, got {_short(found)}.{content}")
    return found


def _nodes(head: str, node: Any) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig):
        if isinstance(node.get("_target_"), str):
            yield head, node
        for key in node:
            yield from _nodes(f"{head}.{key!s}", node[key])


def _check_arguments(head: str, called: Any, keys: list[str]) -> None:
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):  # of a builtin
        return
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    strange = next((key for key in keys if not key.startswith("_") and key not in parameters), None)
    if strange is not None:
        name = getattr(called, "__name__", str(called))
        hint = did_you_mean(strange, parameters) or f" It takes {', '.join(parameters) or 'nothing'}."
        raise ConfigError(f"{head}.{strange} is no argument of {name}.{hint}")


def _import(said: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise ConfigError(f"{said}: importing {module} failed, {one_line(error)}{_line_of(error)}.") from error
        near = get_close_matches(module, [str(one.name) for one in pkgutil.iter_modules()], n=1, cutoff=0.75)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{said}: there is no module {module!r}.{hint} A file of yours is found in the folder where the command is "
            "started, another with PYTHONPATH=<folder>."
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(
            f"{said}: importing {module} failed, {kind}: {one_line(error)}{_line_of(error)}. LS_DEBUG=1 shows the "
            "traceback."
        ) from error


def _line_of(error: Exception) -> str:
    """Where in a file of the user's it happened."""
    if isinstance(error, SyntaxError):
        return ""  # which says it
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""


def _has_module(package: ModuleType, name: str) -> bool:
    return any(one.name == name for one in pkgutil.iter_modules(getattr(package, "__path__", [])))


def _lacks(found: Any, name: str, path: str) -> str:
    inside = [one.name for one in pkgutil.iter_modules(getattr(found, "__path__", []))]
    classes_last = sorted(dir(found), key=lambda one: inspect.isclass(getattr(found, one, None)))
    near = _nearest(name, path, [*inside, *classes_last])
    if not isinstance(found, ModuleType):
        return f"{path} has no {name!r}.{near}"
    place = f" ({found.__file__})" if getattr(found, "__file__", None) and not near else ""
    return f"the module {path}{place} has no {name!r}.{near or _content(found)}"


def _nearest(name: str, path: str, names: list[str]) -> str:
    """Whatever the case of its letters; of two that differ in nothing else the last."""
    by_case = {one.lower(): one for one in names}
    near = get_close_matches(name.lower(), by_case, n=1)
    return f" Did you mean {path}.{by_case[near[0]]}?" if near else ""


def _content(module: ModuleType) -> str:
    """The classes and functions that are its own."""
    own = [
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    ]
    return f" It has {', '.join(own[:_MOST])}{', ...' if len(own) > _MOST else ''}." if own else ""


def _meant(target: str) -> str:
    """``Net``, ``mine:Net`` or ``mine/net.py:Net`` with dots, where that is to be found here."""
    path = re.sub(r"\.py(?=[:.]|$)", "", target).replace("/", ".").replace(":", ".").strip(".")
    if "." in path and re.fullmatch(r"\w+(\.\w+)+", path):
        return f" Did you mean {path}?"
    defined = re.compile(rf"^(?:class|def) {re.escape(target)}\b", re.MULTILINE)
    for file in sorted(Path.cwd().glob("*.py"))[:100]:
        if defined.search(file.read_text(encoding="utf-8", errors="replace")):
            return f" Did you mean {file.stem}.{target}?"
    return ""


def _short(value: Any) -> str:
    if isinstance(value, ModuleType):
        return "a module"
    text = repr(value)
    return f"{text if len(text) <= 40 else f'{text[:37]}...'} ({type(value).__name__})"
