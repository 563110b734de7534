"""See the calls of the one loss that a dotted path names, of whatever kind it is."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ls_lightning.tap.call import MODULES, LossCall, own_options, own_smoothing, set_options
from ls_lightning.tap.seam import SEAM, Listener


class Named:
    """The loss that a dotted path names: a module, whose ``forward`` is replaced, or any other callable attribute."""

    def __init__(self, tap: Listener, module: nn.Module, path: str) -> None:
        self._tap = tap
        self._module = module
        self._path = path
        self._own: Any = None
        self._aim()

    def __enter__(self) -> None:
        """See the calls from now on."""
        self._tap.calls = 0
        self._aim()
        held = self._namespace.get(self._key)
        if isinstance(held, _Spy):  # of another tap that names the same loss
            held.taps.append(self._tap)
        else:
            self._spy.taps = [self._tap]
            self._namespace[self._key] = self._spy

    def __exit__(self, *error: object) -> None:
        """See no more."""
        held = self._namespace.get(self._key)
        if isinstance(held, _Spy) and held is not self._spy and self._tap in held.taps:
            held.taps.remove(self._tap)
        if held is not self._spy:  # the step has assigned something else
            return
        if self._was_there:
            self._namespace[self._key] = self._held
        else:
            del self._namespace[self._key]

    def _aim(self) -> None:
        """At what the path leads to now."""
        parent, _, name = self._path.rpartition(".")
        try:
            owner = self._module.get_submodule(parent)
            own: Any = getattr(owner, name)
        except AttributeError:
            own = None
        if not callable(own):
            raise LookupError(
                f"{type(self._module).__name__} has no submodule {self._path!r}, nor a function of that name. Name the "
                "attribute that holds the loss, or 'auto'."
            )
        if own is self._own or isinstance(own, _Spy):
            return
        is_module = isinstance(own, nn.Module)
        self._own = own
        self._namespace: dict[str, Any] = vars(own if is_module else owner)
        self._key = "forward" if is_module else name
        self._was_there = self._key in self._namespace
        self._held = own.forward if is_module else own
        self._spy = _Spy(self._tap, own, self._held)


class _Spy:
    """Called in place of ``function``, the loss itself or the ``forward`` of the module ``loss``."""

    def __init__(self, tap: Listener, loss: Any, function: Callable[..., Tensor]) -> None:
        partial = function if isinstance(function, functools.partial) else functools.partial(function)
        self.taps = [tap]
        self._function = function
        self._name = str(MODULES.get(type(loss)) or getattr(loss, "__name__", type(loss).__name__))
        self._own = own_options(loss), own_smoothing(loss)
        self._bound = partial.args, partial.keywords
        self._names = _parameters(partial.func)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        positional = [*self._bound[0], *args]
        names = [*self._names, *(f"argument {index + 1}" for index in range(len(self._names), len(positional)))]
        given = {**dict(zip(names, positional, strict=False)), **self._bound[1], **kwargs}
        if names[0] not in given or names[1] not in given:
            return self._function(*args, **kwargs)
        logits, target = given.pop(names[0]), given.pop(names[1])
        if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
            raise TypeError(
                f"{self._name} is called with a {type(logits).__name__} and a {type(target).__name__}, needed logits "
                "and target. Name a loss that is called with these two."
            )
        options, smoothing = self._own
        smoothing = given.pop("label_smoothing", smoothing)
        call = LossCall(self._name, logits, target, {**options, **set_options(given)}, smoothing, 0)
        return SEAM.ask(self.taps, call, lambda: self._function(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the module that a step makes holds its own loss."""
        return copy.deepcopy(self._function, memo)


def _parameters(function: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters, at least two."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin
        found = []
    names = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*names, *("input", "target")[len(names) :]]
