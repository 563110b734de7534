"""The one place that reaches into a foreign module: see the classification losses that a step calls.

However a loss of torch is called, under any name, from any file, by ``nn.CrossEntropyLoss``, a partial or a closure,
the call ends in one of four native functions, which ``torch.nn.functional`` looks up by name every time. For the
duration of a step these names lead here. That sees every call and costs the others nothing.

Compiled code does not look them up: for dynamo ``F.cross_entropy`` is a single operation. Twins of the Python
functions, which dynamo traces into, take their place wherever the module's attributes and any file hold them. A twin
does what the original does, so one that is kept beyond the step does no harm; what the compiler takes past the twins
is an error. Nothing is written to the module that is not taken back at the end of the step.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any, Literal, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["multiclass", "binary"]


class LossCall(NamedTuple):
    """One call of a classification loss, as the module made it.

    Attributes:
        function: ``"cross_entropy"``, ``"nll_loss"``, ``"binary_cross_entropy_with_logits"``,
            ``"binary_cross_entropy"``, or the name of the loss that ``target`` names.
        logits: what it was given first: logits, log-probabilities (``nll_loss``) or probabilities
            (``binary_cross_entropy``).
        target: class indices or distributions; 0 and 1 for the binary ones.
        options: ``weight``, ``pos_weight``, ``ignore_index``, ``reduction`` where they are not the default, and
            whatever else a loss that ``target`` names was given.
        label_smoothing: how much the module smooths by itself.
        position: 0 for the first call of a step. Calls in compiled code count only where ``target`` is a predicate.
    """

    function: str
    logits: Tensor
    target: Tensor
    options: dict[str, Any]
    label_smoothing: float
    position: int

    def batch(self) -> tuple[Tensor, Tensor]:
        """Logits and target with the batch dimension that torch lets one sample go without."""
        if self.logits.ndim > (0 if self.kind == "binary" else 1):
            return self.logits, self.target
        return self.logits.unsqueeze(0), self.target.unsqueeze(0)

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

Select = Callable[[LossCall], bool]
Handle = Callable[[LossCall], Tensor | None]
"""Returns what the module shall get in place of its loss; None lets its own loss run."""


class Tap:
    """Sees every call of a classification loss in the steps of one module.

    Args:
        module: the root, usually a LightningModule.
        handle: called with each :class:`LossCall`.
        target: ``"auto"`` for all calls of torch's losses; a predicate on the :class:`LossCall`; or the dotted path
            of a loss module or function of any kind, e.g. ``"criterion"``, whose calls are then the ones that count.

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
        self._module = type(module).__name__
        self._select = target if callable(target) else None
        named = isinstance(target, str) and target != "auto"
        self._named = _Named(self, module, str(target)) if named else None
        self._places = [] if named else _places(module)

    @contextmanager
    def step(self) -> Iterator[None]:
        """See the calls made inside; afterwards everything is as it was."""
        self.calls = 0
        try:
            if self._named is not None:
                self._named.put()
            else:
                _SEAM.open(self)
                for place in self._places:
                    place.put()
            yield
        finally:
            for place in self._places:
                place.take_back()
            if self._named is not None:
                self._named.take_back()
            else:
                _SEAM.close(self)

    def offer(self, call: LossCall) -> Tensor | None:
        """The handler's answer to a call."""
        # A count in compiled code recompiles a function that is called several times a step.
        if self._select is not None or not torch.compiler.is_compiling():
            call = call._replace(position=self.calls)
            self.calls += 1
        if self._select is not None and not self._select(call):
            return None
        answer = self.handle(call)
        if answer is not None and not torch.compiler.is_compiling() and _is_checkpointed():
            raise RuntimeError(
                f"{self._module} calls {call.function} inside of activation checkpointing, which computes it a second "
                "time in the backward pass, where it is not seen. Call the loss outside of the checkpointed part."
            )
        return answer


class _Seam:
    """Leads the calls of torch's losses to the taps that are open."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self._busy = False
        self._held: list[tuple[ModuleType, str, Any]] = []

    def open(self, tap: Tap) -> None:
        if not self._taps:
            self._held = [(gate.namespace, gate.name, getattr(gate.namespace, gate.name)) for gate in _GATES]
            for gate in _GATES:
                setattr(gate.namespace, gate.name, gate.function)
        self._taps.append(tap)

    def close(self, tap: Tap) -> None:
        self._taps = [other for other in self._taps if other is not tap]
        if not self._taps:
            for namespace, name, own in self._held:
                setattr(namespace, name, own)
            self._held = []

    def pass_on(self, call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
        """For the gates: what the open taps make of a call."""
        return self.ask(self._taps, call, run_own)

    def ask(self, taps: Sequence[Tap], call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
        """The answer of one of the taps, or else the module's own loss."""
        if self._busy:  # a handler may call torch's losses too
            return run_own()
        self._busy = True
        try:
            answers = [answer for answer in [tap.offer(call) for tap in taps] if answer is not None]
        finally:
            self._busy = False
        if len(answers) > 1:
            raise ValueError(
                f"{len(answers)} callbacks answer the same call of {call.function}. Give each a target of its own."
            )
        return answers[0] if answers else run_own()


_SEAM = _Seam()


class _Gate(NamedTuple):
    """What stands in for the native ``namespace.name`` during a step."""

    namespace: ModuleType
    name: str
    function: Callable[..., Tensor]


def _gate(namespace: ModuleType, name: str, function: str, *names: str) -> _Gate:
    """For a native function that ``F.function`` ends in; ``names`` are those of its arguments after the target."""
    own = getattr(torch.ops.aten, name)

    def gate(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():
            raise RuntimeError(
                f"compiled code calls {function} through a partial, a closure or a default argument, where it cannot "
                f"be seen. Call it as F.{function} or by its loss module, or leave the loss out of torch.compile."
            )
        given = {"reduction": 0, **dict(zip(names, args, strict=False)), **kwargs}
        options = {**given, "reduction": _REDUCTIONS[given["reduction"]]}
        smoothing = options.pop("label_smoothing", 0.0)
        call = LossCall(function, input, target, _set_options(options), smoothing, 0)
        return _SEAM.pass_on(call, lambda: own(input, target, **given))

    return _Gate(namespace, name, gate)


def _refuse_chunks(*args: Any, **kwargs: Any) -> Tensor:
    raise NotImplementedError(
        "linear_cross_entropy with options=... computes the loss in chunks, without logits that could be smoothed or "
        "measured. Leave options away, or use a linear layer and cross_entropy."
    )


def _gates() -> Iterator[_Gate]:
    nn_ = torch._C._nn
    yield _gate(nn_, "cross_entropy_loss", "cross_entropy", "weight", "reduction", "ignore_index", "label_smoothing")
    yield _gate(nn_, "nll_loss_nd", "nll_loss", "weight", "reduction", "ignore_index")
    yield _gate(torch, *["binary_cross_entropy_with_logits"] * 2, "weight", "pos_weight", "reduction")
    yield _gate(nn_, *["binary_cross_entropy"] * 2, "weight", "reduction")
    try:
        chunked = importlib.import_module("torch.nn.modules.linear_cross_entropy")
    except ModuleNotFoundError:  # before torch 2.13
        return
    for name in ("_linear_cross_entropy_batch_chunked", "_linear_cross_entropy_batch_chunked_no_reduction"):
        if hasattr(chunked, name):
            yield _Gate(chunked, name, _refuse_chunks)


_REDUCTIONS = ("none", "mean", "sum")
_GATES = tuple(_gates())

_DEFAULTS: dict[str, Any] = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean"}


def _set_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those that are not the default."""
    return {name: v for name, v in options.items() if isinstance(v, Tensor) or v != _DEFAULTS.get(name)}


def _is_checkpointed() -> bool:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
    return False


class _Place(NamedTuple):
    """An attribute or global that holds one of torch's functions, and during a step its twin."""

    namespace: dict[str, Any]
    name: str
    function: Callable[..., Tensor]
    twin: Callable[..., Tensor]

    def put(self) -> None:
        if self.namespace.get(self.name) is self.function:
            self.namespace[self.name] = self.twin

    def take_back(self) -> None:
        if self.namespace.get(self.name) is self.twin:  # else the step has assigned something else
            self.namespace[self.name] = self.function


def _traceable(function: FunctionType) -> FunctionType:
    """The same function, with a code object that dynamo does not count as torch's own."""
    code = function.__code__.replace(co_filename=__file__)
    twin = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    functools.update_wrapper(twin, function)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _all_traceable() -> Iterator[_Place]:
    for name in (*_KINDS, "linear_cross_entropy"):
        function = getattr(F, name, None)
        if isinstance(function, FunctionType) and function.__module__ == F.__name__:
            yield _Place({}, name, function, _traceable(function))


_TRACEABLE = {id(place.function): place for place in _all_traceable()}


def _places(module: nn.Module) -> list[_Place]:
    """Where the attributes of the module and the globals of any file hold one of torch's functions."""
    files = [file for name, file in list(sys.modules.items()) if name == F.__name__ or name.split(".")[0] != "torch"]
    namespaces = [vars(holder) for holder in [*files, *module.modules()] if isinstance(holder, ModuleType | nn.Module)]
    return [
        _TRACEABLE[id(value)]._replace(namespace=namespace, name=name)
        for namespace in namespaces
        for name, value in list(namespace.items())
        if id(value) in _TRACEABLE
    ]


class _Named:
    """The loss that a dotted path names: a module, whose ``forward`` is replaced, or any other callable attribute."""

    def __init__(self, tap: Tap, module: nn.Module, path: str) -> None:
        self._tap = tap
        self._module = module
        self._path = path
        self._own: Any = None
        self._aim()

    def put(self) -> None:
        self._aim()
        self._namespace[self._key] = self._spy

    def take_back(self) -> None:
        if self._namespace.get(self._key) is not self._spy:  # the step has assigned something else
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
        if own is self._own or own == self._own:  # a bound method is another object each time
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

    def __init__(self, tap: Tap, loss: Any, function: Callable[..., Tensor]) -> None:
        partial = function if isinstance(function, functools.partial) else functools.partial(function)
        self._taps = [tap]
        self._function = function
        self._name = str(_MODULES.get(type(loss)) or getattr(loss, "__name__", type(loss).__name__))
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
        call = LossCall(self._name, logits, target, {**options, **_set_options(given)}, smoothing, 0)
        return _SEAM.ask(self._taps, call, lambda: self._function(*args, **kwargs))

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


_MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.BCELoss: "binary_cross_entropy",
}


def own_options(loss: object) -> dict[str, Any]:
    """``weight``, ``pos_weight``, ``ignore_index``, ``reduction`` of a loss module, where they are not the default."""
    found = {name: getattr(loss, name, default) for name, default in _DEFAULTS.items()}
    return _set_options({name: value for name, value in found.items() if not isinstance(value, nn.Parameter)})


def own_smoothing(loss: object) -> float:
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
