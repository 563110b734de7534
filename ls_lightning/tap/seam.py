"""Where the calls of torch's losses are met: the native functions, and for compiled code the Python ones."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, Protocol

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch._guards import TracingContext
from torch.nn import functional as F

from ls_lightning.tap.call import KINDS, LossCall, set_options


class Listener(Protocol):
    """A :class:`~ls_lightning.tap.Tap`."""

    def offer(self, call: LossCall) -> Tensor | None:
        """An answer in place of the loss, or None."""


class Seam:
    """Leads the calls of torch's losses to the taps that are open."""

    def __init__(self) -> None:
        self._taps: list[Listener] = []
        self._busy = False
        self._held: list[tuple[ModuleType, str, Any]] = []

    def open(self, tap: Listener) -> None:
        """Let the tap see what is called from now on."""
        if not self._taps:
            self._held = [(gate.namespace, gate.name, getattr(gate.namespace, gate.name)) for gate in GATES]
            for gate in GATES:
                setattr(gate.namespace, gate.name, gate.function)
        self._taps.append(tap)

    def close(self, tap: Listener) -> None:
        """See no more; after the last tap the names are torch's own again."""
        self._taps = [other for other in self._taps if other is not tap]
        if not self._taps:
            for namespace, name, own in self._held:
                setattr(namespace, name, own)
            self._held = []

    def pass_on(self, call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
        """For the gates: what the open taps make of a call."""
        return self.ask(self._taps, call, run_own)

    def ask(self, taps: Sequence[Listener], call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
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


SEAM = Seam()


class Gate(NamedTuple):
    """What stands in for the native ``namespace.name`` during a step."""

    namespace: ModuleType
    name: str
    function: Callable[..., Tensor]


def _gate(namespace: ModuleType, name: str, function: str, *names: str) -> Gate:
    """For a native function that ``F.function`` ends in; ``names`` are those of its arguments after the target."""
    own = getattr(torch.ops.aten, name)

    def gate(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.compiler.is_dynamo_compiling() and TracingContext.try_get() is not None:
            raise RuntimeError(
                f"compiled code calls {function} through a partial, a closure or a default argument, where it cannot "
                f"be seen. Call it as F.{function} or by its loss module, or leave the loss out of torch.compile."
            )
        given = {"reduction": 0, **dict(zip(names, args, strict=False)), **kwargs}
        options = {**given, "reduction": _REDUCTIONS[given["reduction"]]}
        smoothing = options.pop("label_smoothing", 0.0)
        call = LossCall(function, input, target, set_options(options), smoothing, 0)
        return SEAM.pass_on(call, lambda: own(input, target, **given))

    return Gate(namespace, name, gate)


def _refuse_chunks(*args: Any, **kwargs: Any) -> Tensor:
    raise NotImplementedError(
        "linear_cross_entropy with options=... computes the loss in chunks, without logits that could be smoothed or "
        "measured. Leave options away, or use a linear layer and cross_entropy."
    )


def _gates() -> Iterator[Gate]:
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
            yield Gate(chunked, name, _refuse_chunks)


_REDUCTIONS = ("none", "mean", "sum")
GATES = tuple(_gates())


class Place(NamedTuple):
    """An attribute or global that holds one of torch's functions, and during a step its twin."""

    namespace: dict[str, Any]
    name: str
    function: Callable[..., Tensor]
    twin: Callable[..., Tensor]

    def put(self) -> None:
        """Hold the twin, unless something else is held by now."""
        if self.namespace.get(self.name) is self.function:
            self.namespace[self.name] = self.twin

    def take_back(self) -> None:
        """Hold the function again, unless the step has assigned something else."""
        if self.namespace.get(self.name) is self.twin:
            self.namespace[self.name] = self.function


def _traceable(function: FunctionType) -> FunctionType:
    """The same function, with a code object that dynamo does not count as torch's own."""
    code = function.__code__.replace(co_filename=__file__)
    twin = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    functools.update_wrapper(twin, function)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _all_traceable() -> Iterator[Place]:
    for name in (*KINDS, "linear_cross_entropy"):
        function = getattr(F, name, None)
        if isinstance(function, FunctionType) and function.__module__ == F.__name__:
            yield Place({}, name, function, _traceable(function))


_TRACEABLE = {id(place.function): place for place in _all_traceable()}


def places(module: nn.Module) -> list[Place]:
    """Where the attributes of the module and the globals of any file hold one of torch's functions."""
    files = [file for name, file in list(sys.modules.items()) if name == F.__name__ or name.split(".")[0] != "torch"]
    namespaces = [vars(holder) for holder in [*files, *module.modules()] if isinstance(holder, ModuleType | nn.Module)]
    return [
        _TRACEABLE[id(value)]._replace(namespace=namespace, name=name)
        for namespace in namespaces
        for name, value in list(namespace.items())
        if id(value) in _TRACEABLE
    ]


def is_checkpointed() -> bool:
    """Whether the caller runs inside of activation checkpointing, as the backward pass will do a second time."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
    return False
