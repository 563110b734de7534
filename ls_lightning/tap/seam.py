"""Where the calls of torch's losses are met: the native functions, and for compiled code the Python ones."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any, Protocol

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch._guards import TracingContext
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F

from ls_lightning.tap.call import KINDS, LossCall, Quick


class Listener(Protocol):
    """A :class:`~ls_lightning.tap.Tap`."""

    calls: int
    quick: Quick | None

    def offer(self, call: LossCall) -> Tensor | None:
        """An answer in place of the loss, or None."""


class Seam:
    """Leads the calls of torch's losses to the taps that are open.

    Attributes:
        taps: those that are.
        busy: whether one of them answers, which may call torch's losses too.
        held: namespaces, names there, and what was held there before the first of them.
    """

    def __init__(self) -> None:
        self.taps: list[Listener] = []
        self.busy = False
        self.held: list[tuple[dict[str, Any], str, Any]] = []

    def ask(self, taps: Sequence[Listener], call: LossCall, run_own: Callable[[], Tensor]) -> Tensor:
        """The answer of one of the taps, or else the module's own loss."""
        if self.busy:
            return run_own()
        self.busy = True
        try:
            answers = []
            for tap in taps:
                answer = tap.offer(call)
                if answer is not None:
                    answers.append(answer)
        finally:
            self.busy = False
        if len(answers) > 1:
            raise ValueError(
                f"{len(answers)} callbacks answer the same call of {call.function}. Give each a target of its own."
            )
        return answers[0] if answers else run_own()


SEAM = Seam()


class Opening:
    """A context in which a tap sees the calls of torch's losses; it is entered in every step, so it is short.

    Args:
        tap: sees what is called.
        places: which hold twins meanwhile, where they still hold functions.
    """

    def __init__(self, tap: Listener, places: Sequence[Place]) -> None:
        self._tap = tap
        self._places = places

    def __enter__(self) -> None:
        self._tap.calls = 0
        try:
            if not SEAM.taps:
                held = SEAM.held = []
                for namespace, name, function in GATES:
                    held.append((namespace, name, namespace[name]))
                    namespace[name] = function
            SEAM.taps = [*SEAM.taps, self._tap]
            for namespace, name, function, twin in self._places:
                if namespace.get(name) is function:
                    namespace[name] = twin
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        """What the step has assigned stays, and after the last tap the names are torch's own again."""
        for namespace, name, function, twin in self._places:
            if namespace.get(name) is twin:
                namespace[name] = function
        SEAM.taps = [other for other in SEAM.taps if other is not self._tap]
        if not SEAM.taps:
            for namespace, name, own in SEAM.held:
                namespace[name] = own
            SEAM.held = []


# Plain tuples, since they are taken apart in every step.
Gate = tuple[dict[str, Any], str, Callable[..., Tensor]]
"""The namespace of a module, the name of a native function there, and what stands in for it during a step."""

Place = tuple[dict[str, Any], str, Callable[..., Tensor], Callable[..., Tensor]]
"""A namespace, an attribute or global there, one of torch's functions that it holds, and its twin during a step."""


def _gate(namespace: ModuleType, name: str, function: str, **usual: Any) -> Gate:
    """For a native function that ``F.function`` ends in; ``usual`` are its arguments after the target, as F has them.

    Its own ``reduction`` is 0.
    """
    native, traceable = getattr(namespace, name), getattr(torch.ops.aten, name)
    as_usual = tuple(usual.values())
    tensors = as_usual.count(None)

    def gate(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # What compiled code computes with while it is being compiled is no tensor of torch's own class.
        if type(input) is not Tensor and not torch.compiler.is_dynamo_compiling() and TracingContext.try_get():
            raise RuntimeError(
                f"compiled code calls {function} through a partial, a closure or a default argument, where it cannot "
                f"be seen. Call it as F.{function} or by its loss module, or leave the loss out of torch.compile."
            )
        given: dict[str, Any] = usual
        options: dict[str, Any] = {}
        if kwargs or args[tensors:] != as_usual[tensors:] or args[0] is not None or args[tensors - 1] is not None:
            given = {"reduction": 0, **dict(zip(usual, args, strict=False)), **kwargs}
            for key, value in given.items():
                if isinstance(value, Tensor) or value != usual[key]:
                    options[key] = _REDUCTIONS[value] if key == "reduction" else value
        smoothing = options.pop("label_smoothing", 0.0)

        def run_own() -> Tensor:
            run = traceable if torch.compiler.is_compiling() else native
            loss: Tensor = run(input, target, **given)
            return loss

        return SEAM.ask(SEAM.taps, LossCall(function, input, target, options, smoothing, 0), run_own)

    return vars(namespace), name, gate


def _refuse_chunks(*args: Any, **kwargs: Any) -> Tensor:
    raise NotImplementedError(
        "linear_cross_entropy with options=... computes the loss in chunks, without logits that could be smoothed or "
        "measured. Leave options away, or use a linear layer and cross_entropy."
    )


def _gates() -> Iterator[Gate]:
    nn_ = torch._C._nn
    class_options = {"weight": None, "reduction": 1, "ignore_index": -100}
    yield _gate(nn_, "cross_entropy_loss", "cross_entropy", **class_options, label_smoothing=0.0)
    yield _gate(nn_, "nll_loss_nd", "nll_loss", **class_options)
    yield _gate(torch, *["binary_cross_entropy_with_logits"] * 2, weight=None, pos_weight=None, reduction=1)
    yield _gate(nn_, *["binary_cross_entropy"] * 2, weight=None, reduction=1)
    try:
        chunked = importlib.import_module("torch.nn.modules.linear_cross_entropy")
    except ModuleNotFoundError:  # before torch 2.13
        return
    for name in ("_linear_cross_entropy_batch_chunked", "_linear_cross_entropy_batch_chunked_no_reduction"):
        if hasattr(chunked, name):
            yield vars(chunked), name, _refuse_chunks


_REDUCTIONS = ("none", "mean", "sum")
GATES = tuple(_gates())


def _traceable(function: FunctionType) -> FunctionType:
    """The same function, with a code object that dynamo does not count as torch's own."""
    code = function.__code__.replace(co_filename=__file__)
    twin = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    functools.update_wrapper(twin, function)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


_USUAL = None, -100, None, "mean", 0.0


def _shortened(twin: FunctionType) -> Callable[..., Tensor]:
    """``F.cross_entropy`` that meets a usual call here already, by half as many calls; others come to the gate."""
    native: Callable[..., Tensor] = torch._C._nn.cross_entropy_loss

    @functools.wraps(twin)
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
        is_usual = weight is None and (size_average, ignore_index, reduce, reduction, label_smoothing) == _USUAL
        is_plain = type(input) is Tensor and type(target) is Tensor and not _is_mode_enabled()
        if is_usual and is_plain and not is_dynamo_compiling():
            taps = SEAM.taps
            if len(taps) == 1 and not SEAM.busy:
                answer = _answer_quickly(taps[0], input, target)
                if answer is not None:
                    return answer
            call = LossCall("cross_entropy", input, target, {}, 0.0, 0)
            return SEAM.ask(SEAM.taps, call, lambda: native(input, target, None, 1, -100, 0.0))
        loss: Tensor = twin(input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        return loss

    return cross_entropy


def _answer_quickly(tap: Listener, logits: Tensor, target: Tensor) -> Tensor | None:
    if tap.quick is None:
        return None
    SEAM.busy = True
    try:
        answer = tap.quick(logits, target)
    finally:
        SEAM.busy = False
    if answer is not None:
        tap.calls += 1
    return answer


def _twin(function: FunctionType) -> Callable[..., Tensor]:
    twin = _traceable(function)
    return _shortened(twin) if function.__name__ == "cross_entropy" else twin


def _all_traceable() -> Iterator[FunctionType]:
    for name in (*KINDS, "linear_cross_entropy"):
        function = getattr(F, name, None)
        if isinstance(function, FunctionType) and function.__module__ == F.__name__:
            yield function


_TWINS = {id(function): (function, _twin(function)) for function in _all_traceable()}


def places(module: nn.Module) -> list[Place]:
    """Where the attributes of the module and the globals of any file hold one of torch's functions."""
    files = [file for name, file in list(sys.modules.items()) if name == F.__name__ or name.split(".")[0] != "torch"]
    namespaces = [vars(holder) for holder in [*files, *module.modules()] if isinstance(holder, ModuleType | nn.Module)]
    return [
        (namespace, name, *_TWINS[id(value)])
        for namespace in namespaces
        for name, value in list(namespace.items())
        if id(value) in _TWINS
    ]


def is_checkpointed() -> bool:
    """Whether the caller runs inside of activation checkpointing, as the backward pass will do a second time."""
    # One kind of it turns gradients off, the other saves tensors by hooks: cheaper to ask than to look at all frames.
    if torch.is_grad_enabled() and _top_hooks is not None and _top_hooks(False) is None:
        return False
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
    return False


_is_mode_enabled = torch._C._is_torch_function_mode_enabled
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # from torch 2.8 on
