"""Be inside of a step of the module, and of nothing else that a Trainer does with a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import lightning as L
from lightning.pytorch.plugins import Precision

Step = Literal["train", "val", "test"]
Context = Callable[[], AbstractContextManager[None]]


def enter_with_step(trainer: L.Trainer, step: Step, context: Context) -> Callable[[], None]:
    """Enter ``context()`` around every training, validation or test step of ``trainer``.

    Lightning enters its precision plugin's context there, in all strategies. The plugin's method is replaced on the
    instance; the LightningModule is not touched.

    Returns:
        What undoes it, in any order with others.
    """
    plugin = trainer.precision_plugin
    name = f"{step}_step_context"
    entry = vars(plugin).get(name)
    if not isinstance(entry, _Entry):
        entry = _Entry(plugin, name)
        setattr(plugin, name, entry)
    entry.add(context)
    return partial(entry.remove, context)


def nothing() -> None:
    """What undoes nothing; a lambda could not be sent to the processes of ``strategy="ddp_spawn"``."""


class _Entry:
    """In place of the plugin's method: enters its context, and then ours."""

    def __init__(self, plugin: Any, name: str) -> None:
        self._plugin = plugin
        self._name = name
        self._own = vars(plugin).get(name)
        self._inner: Context = getattr(plugin, name)
        self._is_idle = self._own is None and _is_idle(plugin, name)
        self._ours: list[Context] = []
        self._first: Context = self._inner
        self._others: list[Context] = []

    def __call__(self) -> AbstractContextManager[None]:
        entered = self._first()
        for context in self._others:
            entered = _Within(entered, context())
        return entered

    def add(self, context: Context) -> None:
        self._put([*self._ours, context])

    def remove(self, context: Context) -> None:
        self._put([other for other in self._ours if other is not context])
        if self._ours or vars(self._plugin).get(self._name) is not self:
            return
        delattr(self._plugin, self._name)
        if self._own is not None:
            setattr(self._plugin, self._name, self._own)

    def _put(self, ours: list[Context]) -> None:
        self._ours = ours
        self._first, *self._others = ours if self._is_idle and ours else [self._inner, *ours]


def _is_idle(plugin: Any, name: str) -> bool:
    """Whether the method is Lightning's own and does nothing: by generators, which take long all the same."""
    methods = name, "forward_context"
    if any(key in vars(plugin) or getattr(type(plugin), key, None) is not getattr(Precision, key) for key in methods):
        return False
    named = getattr(getattr(Precision, name), "__wrapped__", nothing).__code__.co_names
    return named == ("forward_context",) and type(plugin.forward_context()) is nullcontext


class _Within:
    """One context in another. A generator would take longer than most contexts, in every step."""

    def __init__(self, outer: AbstractContextManager[Any], inner: AbstractContextManager[Any]) -> None:
        self._outer = outer
        self._inner = inner

    def __enter__(self) -> None:
        self._outer.__enter__()
        try:
            self._inner.__enter__()
        except BaseException:
            self._outer.__exit__(*sys.exc_info())
            raise

    def __exit__(self, *error: Any) -> bool | None:
        try:
            ended = self._inner.__exit__(*error)
        except BaseException:
            if not self._outer.__exit__(*sys.exc_info()):
                raise
            return True
        return self._outer.__exit__(*(None, None, None) if ended else error) or ended
