"""The one place that reaches into a foreign module: see the classification losses that a step calls.

A loss is called through one of four functions of ``torch.nn.functional``, also by ``nn.CrossEntropyLoss`` and its
kin. For the duration of a step these functions are replaced wherever the module's own code holds them: in
``torch.nn.functional``, in the globals of its files, in its attributes. The first step also runs under a
``TorchFunctionMode``, which sees every call however it is made, at about 14 microseconds for each call of torch. What
it finds outside of the replaced places is replaced there too from the next step on; where that is impossible, the
mode stays. Nothing is written to the module that is not taken back at the end of the step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Kind = Literal["multiclass", "binary"]


class LossCall(NamedTuple):
    """One call of a classification loss, as the module made it.

    Attributes:
        function: ``"cross_entropy"``, ``"nll_loss"``, ``"binary_cross_entropy_with_logits"``,
            ``"binary_cross_entropy"``, or the class name of the loss that ``target`` names.
        logits: what it was given first: logits, log-probabilities (``nll_loss``) or probabilities
            (``binary_cross_entropy``).
        target: class indices or distributions; 0 and 1 for the binary ones.
        options: ``weight``, ``pos_weight``, ``ignore_index``, ``reduction`` where they are not the default.
        label_smoothing: how much the module smooths by itself.
        position: 0 for the first call of a step; always 0 in compiled code.
    """

    function: str
    logits: Tensor
    target: Tensor
    options: dict[str, Any]
    label_smoothing: float
    position: int

    @property
    def kind(self) -> Kind | None:
        """``"multiclass"`` or ``"binary"`` (one logit per decision); None for a loss of the user's own class."""
        return _KINDS.get(self.function)

    @property
    def input(self) -> Literal["logits", "log_probs", "probs"]:
        """What ``logits`` are."""
        if self.function == "nll_loss":
            return "log_probs"
        return "probs" if self.function == "binary_cross_entropy" else "logits"


_KINDS: dict[str, Kind] = {
    "cross_entropy": "multiclass",
    "nll_loss": "multiclass",
    "binary_cross_entropy_with_logits": "binary",
    "binary_cross_entropy": "binary",
}
_FUNCTIONS: dict[str, Callable[..., Tensor]] = {name: getattr(F, name) for name in _KINDS}

Select = Callable[[LossCall], bool]
Handle = Callable[[LossCall], Tensor | None]
"""Returns what the module shall get in place of its loss; None lets its own loss run."""


@dataclass(frozen=True)
class _Place:
    """A dictionary entry that holds one of the functions, and is replaced during a step."""

    namespace: dict[str, Any]
    name: str
    function: str


class Tap:
    """Sees every call of a classification loss in the steps of one module.

    Args:
        module: the root, usually a LightningModule.
        handle: called with each :class:`LossCall`.
        target: ``"auto"`` for all calls of the four functions; a predicate on the :class:`LossCall`; or the dotted
            path of a submodule of any class, e.g. ``"criterion"``, whose calls are then the ones that count.

    Raises:
        LookupError: ``target`` is a path that leads nowhere.

    Example:
        >>> class Net(nn.Module):
        ...     def training_step(self, logits, y):
        ...         return F.cross_entropy(logits, y)
        >>> net, seen = Net(), []
        >>> tap = Tap(net, seen.append)
        >>> with tap.step():
        ...     loss = net.training_step(torch.zeros(2, 3), torch.tensor([0, 2]))
        >>> seen[0].function, seen[0].logits.shape
        ('cross_entropy', torch.Size([2, 3]))
    """

    def __init__(self, module: nn.Module, handle: Handle, target: str | Select = "auto") -> None:
        self.handle = handle
        self.calls = 0
        self._select = target if callable(target) else None
        self._replacements = _replacements(self)
        self._stand_in = _StandIn.at(module, target, self) if isinstance(target, str) and target != "auto" else None
        self._places = [] if self._stand_in else _places(module)
        self._look = self._stand_in is None and not is_compiled(module)
        self._may_look = self._look
        self._mode_stays = False
        self._expected: int | None = None
        self._inside = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """See the calls made inside; afterwards everything is as it was."""
        self.calls = 0
        mode = _Look(self) if self._look else nullcontext()
        looked = self._look
        held = [place.namespace[place.name] for place in self._places]
        places = list(self._places)
        try:
            if self._stand_in is not None:
                self._stand_in.put()
            for place in places:
                place.namespace[place.name] = self._replacements[place.function]
            with mode:
                yield
        finally:
            for place, function in zip(reversed(places), reversed(held), strict=True):
                place.namespace[place.name] = function
            if self._stand_in is not None:
                self._stand_in.take_back()
        # Another number of calls may mean a path that was not seen yet.
        self._look = self._may_look and (self._mode_stays or (not looked and self.calls != self._expected))
        self._expected = self.calls

    def seen(self, call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
        """Hand a call to the handler, or let the module's own loss run."""
        if self._inside:  # the handler may call these functions too
            return run_own()
        if not torch.compiler.is_compiling():
            call = call._replace(position=self.calls)
            self.calls += 1
        self._inside = True
        try:
            result = self.handle(call) if self._select is None or self._select(call) else None
            return run_own() if result is None else result
        finally:
            self._inside = False

    def learn(self, function: str, frame: FrameType | None) -> None:
        """Remember from where the function was called past the replaced places."""
        code = _FUNCTIONS[function].__code__
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        caller = frame.f_back if frame is not None else None
        found = [] if caller is None else _holding(caller.f_globals)
        known = {(id(place.namespace), place.name) for place in self._places}
        new = [place for place in found if (id(place.namespace), place.name) not in known]
        self._places += new
        self._mode_stays = self._mode_stays or not any(place.function == function for place in new)


class _Look(TorchFunctionMode):
    """Sees the calls that reach the functions past the replaced places."""

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap
        # Inside torch the functions name themselves by what torch.nn.functional holds: the replacement.
        self.names = {function: name for name, function in _FUNCTIONS.items()}
        self.names |= {function: name for name, function in tap._replacements.items()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = self.names.get(func)
        if name is None:
            return func(*args, **(kwargs or {}))
        if self.tap._inside:
            return _FUNCTIONS[name](*args, **(kwargs or {}))
        self.tap.learn(name, sys._getframe(1))
        return self.tap._replacements[name](*args, **(kwargs or {}))


def _replacements(tap: Tap) -> dict[str, Callable[..., Tensor]]:
    """Functions with the signatures of torch's, spelled out so that dynamo traces them without a graph break."""

    def cross_entropy(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        reduction = _reduction(size_average, reduce, reduction)
        options = _options(weight=weight, ignore_index=ignore_index, reduction=reduction)
        return tap.seen(
            LossCall("cross_entropy", input, target, options, label_smoothing, 0),
            lambda: _FUNCTIONS["cross_entropy"](
                input,
                target,
                weight=weight,
                ignore_index=ignore_index,
                reduction=reduction,
                label_smoothing=label_smoothing,
            ),
        )

    def nll_loss(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        reduction = _reduction(size_average, reduce, reduction)
        options = _options(weight=weight, ignore_index=ignore_index, reduction=reduction)
        return tap.seen(
            LossCall("nll_loss", input, target, options, 0.0, 0),
            lambda: _FUNCTIONS["nll_loss"](
                input, target, weight=weight, ignore_index=ignore_index, reduction=reduction
            ),
        )

    def binary_cross_entropy_with_logits(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> Tensor:
        reduction = _reduction(size_average, reduce, reduction)
        options = _options(weight=weight, pos_weight=pos_weight, reduction=reduction)
        return tap.seen(
            LossCall("binary_cross_entropy_with_logits", input, target, options, 0.0, 0),
            lambda: _FUNCTIONS["binary_cross_entropy_with_logits"](
                input, target, weight=weight, reduction=reduction, pos_weight=pos_weight
            ),
        )

    def binary_cross_entropy(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        reduction = _reduction(size_average, reduce, reduction)
        options = _options(weight=weight, reduction=reduction)
        return tap.seen(
            LossCall("binary_cross_entropy", input, target, options, 0.0, 0),
            lambda: _FUNCTIONS["binary_cross_entropy"](input, target, weight=weight, reduction=reduction),
        )

    return {
        "cross_entropy": cross_entropy,
        "nll_loss": nll_loss,
        "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
        "binary_cross_entropy": binary_cross_entropy,
    }


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """What torch's two deprecated arguments mean."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


_DEFAULTS: dict[str, Any] = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean"}


def _options(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if isinstance(value, Tensor) or value != _DEFAULTS[name]}


def _holding(namespace: dict[str, Any]) -> list[_Place]:
    """The names under which a namespace holds one of the functions."""
    functions = {id(function): name for name, function in _FUNCTIONS.items()}
    return [
        _Place(namespace, name, functions[id(value)]) for name, value in namespace.items() if id(value) in functions
    ]


def _places(module: nn.Module) -> list[_Place]:
    """``torch.nn.functional``, the files of the module's classes, the attributes of its submodules."""
    namespaces = {id(vars(F)): vars(F)}
    for submodule in module.modules():
        namespaces[id(vars(submodule))] = vars(submodule)
        for cls in type(submodule).__mro__:
            file = sys.modules.get(cls.__module__)
            if file is not None and not cls.__module__.startswith("torch."):
                namespaces[id(vars(file))] = vars(file)
    return [place for namespace in namespaces.values() for place in _holding(namespace)]


class _StandIn(nn.Module):
    """Takes the place of one submodule during a step, and hands its calls to the tap."""

    def __init__(self, tap: Tap, owner: nn.Module, name: str, own: nn.Module) -> None:
        super().__init__()
        self._seen = tap.seen
        # In a tuple, and so not a submodule: this one is never part of anything but a step.
        self._own = (own, owner, name)

    @classmethod
    def at(cls, module: nn.Module, path: str, tap: Tap) -> _StandIn:
        """The stand-in for the submodule at the dotted ``path``."""
        parent, _, name = path.rpartition(".")
        try:
            owner = module.get_submodule(parent)
        except AttributeError:
            owner = nn.Module()
        own = owner._modules.get(name)
        if own is None:
            raise LookupError(
                f"{type(module).__name__} has no submodule {path!r}. Name the attribute that holds the loss, or 'auto'."
            )
        return cls(tap, owner, name, own)

    def put(self) -> None:
        _, owner, name = self._own
        owner._modules[name] = self

    def take_back(self) -> None:
        own, owner, name = self._own
        owner._modules[name] = own

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        own = self._own[0]
        logits, target = [*args, *kwargs.values()][:2]
        function = _MODULES.get(type(own), type(own).__name__)
        call = LossCall(function, logits, target, own_options(own), own_smoothing(own), 0)
        return self._seen(call, lambda: own(*args, **kwargs))


_MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.BCELoss: "binary_cross_entropy",
}


def own_options(loss: nn.Module) -> dict[str, Any]:
    """``weight``, ``pos_weight``, ``ignore_index``, ``reduction`` of a loss module, where they are not the default."""
    return _options(**{name: getattr(loss, name, default) for name, default in _DEFAULTS.items()})


def own_smoothing(loss: nn.Module) -> float:
    """How much a loss module smooths by itself."""
    for name in ("label_smoothing", "smoothing"):
        value = getattr(loss, name, 0.0)
        if isinstance(value, int | float) and value:
            return float(value)
    return 0.0


def smoothing_modules(module: nn.Module) -> dict[str, float]:
    """Path and ``label_smoothing`` of every torch loss in ``module`` that smooths by itself."""
    found = {path: own_smoothing(child) for path, child in module.named_modules() if type(child) in _MODULES}
    return {path: smoothing for path, smoothing in found.items() if smoothing}


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` has been applied to the module, a submodule or a step of it."""
    steps = [getattr(module, name, None) for name in ("training_step", "validation_step", "test_step", "forward")]
    return (
        getattr(module, "_compiler_ctx", None) is not None
        or any(hasattr(step, "_torchdynamo_orig_callable") for step in steps)
        or any("_orig_mod" in child._modules or child._compiled_call_impl is not None for child in module.modules())
    )
