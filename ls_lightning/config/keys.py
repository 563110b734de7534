"""A key that is not there: which one was meant?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ls_lightning.config.schema import is_ours

_OWN = ("model", "data", "loss", "schedule", "metrics")
_MOST = 8


def explain_key(key: str, error: BaseException | None, typed: Sequence[str] | None = None) -> str:
    """One line for an override of a key that the configuration has not, with the one that was meant.

    Args:
        key: dotted, as typed.
        error: of OmegaConf, which knows where it looked.
        typed: the command line; None takes that of this process.
    """
    parent = getattr(error, "parent_node", None)
    full = str(getattr(error, "full_key", None) or key)
    head, _, name = full.rpartition(".")
    said = f"{full} is not a key of the configuration."
    if not isinstance(parent, DictConfig):
        return f"{said} --help lists them."
    named = _typed_target(head, sys.argv[1:] if typed is None else typed)
    add = f"{full} is not a key yet: what a class of your own takes is added by a plus, +{key}=<value>."
    if named is not None and not is_ours(named):
        return add
    beside = [str(one) for one in parent if not str(one).startswith("_")] + ([] if head else ["experiment"])
    near = _nearest(name, head, beside, parent._get_root())
    if not near and head in _OWN and not is_ours(str(parent.get("_target_", "ls_lightning."))):
        return add
    hint = f" Did you mean {' or '.join(near)}?" if near else _of_other_options(head, name)
    last = "" if hint else f" --help lists all; a key of your own is added by +{key}=<value>."
    return f"{said}{hint}{_those_of(parent, beside)}{last}"


def _typed_target(head: str, typed: Sequence[str]) -> str | None:
    """The class in whose place the keys beside it will not stay."""
    named = [word.partition("=")[2] for word in typed if word.lstrip("+").startswith(f"{head}._target_=")]
    return named[-1] if named and head in _OWN else None


def _nearest(name: str, head: str, beside: Sequence[str], root: Any) -> list[str]:
    """Those beside it that are near; else ``trainer.max_epochs`` for ``max_epochs``."""
    elsewhere: dict[str, str] = {}
    for path in _paths("", root):
        elsewhere.setdefault(path.rpartition(".")[2], path)
    here = {one: f"{head}.{one}".lstrip(".") for one in beside}
    for names, cutoff in ((here, 0.75), (elsewhere, 0.75), (here, 0.6)):
        near = get_close_matches(name, names, n=1, cutoff=cutoff)
        if near and not (head and names is elsewhere and near[0] != name):
            return [names[near[0]]]
    return []


def _paths(head: str, node: Any) -> Iterator[str]:
    """Every key of the groups, dotted."""
    if head:
        yield head
    if isinstance(node, DictConfig) and not node._is_missing() and not node._is_none():
        for key in map(str, node):
            if key not in ("hydra", "_target_", "_partial_"):
                yield from _paths(f"{head}.{key}".lstrip("."), node._get_node(key))


def _of_other_options(head: str, name: str) -> str:
    """``model.width`` is none of ``model=mlp``, but of ``model=resnet``."""
    folder = files("ls_lightning.conf") / head
    if not head or not folder.is_dir():
        return ""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            for key in OmegaConf.create(file.read_text(encoding="utf-8")):
                found.setdefault(str(key), []).append(file.name.removesuffix(".yaml"))
    near = next(iter(get_close_matches(name, found, n=1)), None)
    if near is None:
        return ""
    return f" {'It' if near == name else f'Did you mean {head}.{near}? It'} is of {head}={', '.join(found[near])}."


def _those_of(parent: DictConfig, beside: Sequence[str]) -> str:
    """What the class takes, of which they are arguments."""
    target = str(parent.get("_target_"))
    if not is_ours(target) or not 0 < len(beside) <= _MOST:
        return ""
    return f" {target.rpartition('.')[2]} has {', '.join(beside)}."
