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
    entry.contexts.append(context)
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
        self.contexts: list[Context] = []

    def __call__(self) -> AbstractContextManager[None]:
        contexts = self.contexts if self._is_idle and self.contexts else [self._inner, *self.contexts]
        entered = contexts[0]()
        for context in contexts[1:]:
            entered = _Within(entered, context())
        return entered

    def remove(self, context: Context) -> None:
        self.contexts = [other for other in self.contexts if other is not context]
        if self.contexts or vars(self._plugin).get(self._name) is not self:
            return
        delattr(self._plugin, self._name)
        if self._own is not None:
            setattr(self._plugin, self._name, self._own)


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
