"""Answer the calls of a module's own loss with the smoothed one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from ls_lightning.functional.smoothing import smoothed_cross_entropy, smoothed_kl_div
from ls_lightning.losses import (
    LOSSES,
    FunctionLoss,
    SmoothedBCEWithLogits,
    SmoothedCrossEntropy,
    SmoothedKLDiv,
    build_loss,
)
from ls_lightning.tap import KINDS, Kind, LossCall, is_checkpointed

Loss = str | nn.Module | Callable[[Tensor, Tensor, Tensor], Tensor]


class CallListener(Protocol):
    """Is told of the calls of a loss, of each before it is answered."""

    def begin(self) -> None:
        """A step begins, perhaps again with the same batch."""

    def place(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """A call of class indices without options, outside of compiled code, whose answer may leave statistics.

        Returns:
            Where those of its rows go, float32 ``(4, S)``; None for nowhere, and then the call is told as others are.
        """

    def hear(self, call: LossCall) -> None:
        """Any other call."""


class SmoothedCalls:
    """Computes the smoothed loss for each :class:`~ls_lightning.tap.LossCall`, with the options of the call.

    Args:
        loss: a name, a module called with ``(logits, target)``, or a function called with ``(logits, target, eps)``.
        eps: where ``loss`` is a name or a function.
        override: smooth also where the module smooths by itself, in its place.

    Attributes:
        count: calls answered since ``count`` was set to 0; not counted in compiled code.
        answered: whether any call was answered.
        skipped: the function of a call that this loss is not for.
        target: what the first call that was answered was given, outside of compiled code, until it is set to None.
        watch: called with each call that is answered, outside of compiled code; None for nobody.
        listener: is told of every call, answered or not; None for nobody.
    """

    def __init__(self, loss: Loss, eps: float, override: bool = False) -> None:
        self.kind = _kind_of(loss)
        self.override = override
        self.loss = _as_module(loss, eps)
        self._others = {name for name, kind in KINDS.items() if self.kind not in (None, kind)}
        self._is_ours = type(self.loss) in LOSSES.values()
        self._function = _FUNCTIONS.get(loss) if isinstance(loss, str) else None
        self._leaves = _can_leave_statistics(self.loss)
        self._eps: float | None = None
        self.count = 0
        self.answered = False
        self.skipped: str | None = None
        self.target: Tensor | None = None
        self.watch: Callable[[LossCall], None] | None = None
        self.listener: CallListener | None = None

    def __call__(self, call: LossCall) -> Tensor | None:
        """The smoothed loss; None for a call that keeps its own."""
        if self.listener is None:
            return self._answer(call, None)
        place = self.listener.place(call.logits, call.target) if self._leaves_statistics(call) else None
        if place is None:
            self.listener.hear(call)
        return self._answer(call, place)

    def quick(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """The same for ``cross_entropy(logits, target)``, in a step that is not compiled and not the first."""
        if self._function is None or self._eps is None or not (self.answered and logits.requires_grad):
            return None
        if self.watch is not None or logits.ndim < 2 or is_checkpointed() or not torch.is_grad_enabled():
            return None
        place = None
        if self.listener is not None:
            place = None if target.is_floating_point() else self.listener.place(logits, target)
            if place is None:
                return None
        self.count += 1
        return self._function(logits, target, self._eps, statistics=place)

    def _answer(self, call: LossCall, place: Tensor | None) -> Tensor | None:
        if call.function in self._others:
            self.skipped = call.function
            return None
        compiling = is_dynamo_compiling()
        if not compiling and is_checkpointed():
            raise RuntimeError(
                f"{call.function} is called inside of activation checkpointing, which computes it a second time in the "
                "backward pass, where it is not seen. Call the loss outside of the checkpointed part."
            )
        if not (call.logits.requires_grad and torch.is_grad_enabled()):  # computed to be logged
            return None
        if call.label_smoothing and not self.override:
            raise ValueError(already_smooths(call.function, call.label_smoothing))
        if not compiling:
            self.count += 1
            if not self.answered:
                self.target = call.target
            if self.watch is not None:
                self.watch(call)
        self.answered = True
        if _is_usual(call) and not compiling and self._function is not None and self._eps is not None:
            return self._function(call.logits, call.target, self._eps, statistics=place)
        logits, target = call.batch()
        logits = _logit(logits) if call.input == "probs" else logits
        options = self._options(call) if place is None else {"statistics": place}
        answer = self.loss(logits, target, **options)
        if not isinstance(answer, Tensor):  # None would leave the module its own loss
            raise TypeError(
                f"a loss must return a tensor, got {answer!r} from {_name(self.loss)}. Is a return missing?"
            )
        return answer.squeeze(0) if logits.ndim > call.logits.ndim else answer

    def set_eps(self, eps: float) -> None:
        """Write it to the loss."""
        self.loss.set_eps(eps)  # type: ignore[operator]
        self._eps = eps

    def _leaves_statistics(self, call: LossCall) -> bool:
        if not (self._leaves and _is_usual(call)) or is_dynamo_compiling() or call.target.is_floating_point():
            return False
        return call.logits.requires_grad and torch.is_grad_enabled()

    def _options(self, call: LossCall) -> dict[str, Any]:
        """The options of the call, if the loss can take them and has none of its own."""
        options = call.options
        if isinstance(self.loss, FunctionLoss):
            if options:
                _check_signature(self.loss.function, options)
            return options
        if not self._is_ours:
            for name, value in options.items():
                raise self._cannot_take(name, value)
            return options
        if call.kind == "multiclass" and call.input == "logits" and getattr(self.loss, "input", "") == "log_probs":
            raise ValueError(
                f"the module calls {call.function} with logits, got a loss with input='log_probs'. Use input='logits'."
            )
        for name, value in options.items():
            own = getattr(self.loss, name, None)
            if name not in _UNSET:
                raise self._cannot_take(name, value)
            if own is not value and own != _UNSET[name] and (isinstance(value, Tensor) or own != value):
                raise ValueError(
                    f"{name} is given twice: {_shown(value)} by the module's own loss and {_shown(own)} by the loss "
                    f"{type(self.loss).__name__}. Leave it away in one of them."
                )
        return {**options, "input": "log_probs"} if call.input == "log_probs" else options

    def _cannot_take(self, name: str, value: object) -> ValueError:
        return ValueError(
            f"the module calls its loss with {name}={_shown(value)}, which the loss {type(self.loss).__name__} cannot "
            "take. Pass a function of (logits, target, eps, ...) instead."
        )


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "ce": smoothed_cross_entropy,
    "kl": smoothed_kl_div,
}
"""What losses with options as they are by default come to."""

_UNSET: dict[str, Any] = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean"}


def already_smooths(where: str, label_smoothing: float) -> str:
    """The message for a module whose own loss smooths."""
    return (
        f"{where} already smooths (label_smoothing={label_smoothing}); smoothing twice is not what eps says. Set it to "
        "0 there, leave LabelSmoothing away, or let eps take its place: LabelSmoothing(override=True)."
    )


def _kind_of(loss: Loss) -> Kind | None:
    """The task that a loss is for; None for a function or module of the user's own."""
    if loss == "bce" or isinstance(loss, SmoothedBCEWithLogits):
        return "binary"
    return "multiclass" if isinstance(loss, str) or type(loss) in LOSSES.values() else None


def _as_module(loss: Loss, eps: float) -> nn.Module:
    if isinstance(loss, str):
        return build_loss(loss, eps=eps)
    if isinstance(loss, type):
        raise TypeError(f"loss must be an instance, got the class {loss.__name__}: pass {loss.__name__}(...).")
    return loss if isinstance(loss, nn.Module) else FunctionLoss(loss, eps=eps)


def _is_usual(call: LossCall) -> bool:
    return not call.options and call.function == "cross_entropy" and call.logits.ndim > 1


def _can_leave_statistics(loss: nn.Module) -> bool:
    """Whether it can leave statistics of rows, with the same ones ignored as torch's own loss does."""
    is_known = type(loss) in (SmoothedCrossEntropy, SmoothedKLDiv)
    return is_known and getattr(loss, "ignore_index", None) == -100 and getattr(loss, "input", None) == "logits"


def _logit(probs: Tensor) -> Tensor:
    """The logit of what a sigmoid in this dtype may have rounded to 0 or 1."""
    range_ = torch.finfo(probs.dtype)
    return torch.logit(probs.clamp(range_.tiny, 1 - range_.eps / 2))


def _check_signature(function: Callable[..., Tensor], options: dict[str, Any]) -> None:
    try:
        inspect.signature(function).bind(None, None, None, **options)
    except TypeError as error:
        raise ValueError(
            f"the module calls its loss with {', '.join(options)}, which the loss function cannot take: {error}. Let "
            "it take (logits, target, eps, **options)."
        ) from None


def _name(loss: nn.Module) -> str:
    named = loss.function if type(loss) is FunctionLoss else type(loss)
    return str(getattr(named, "__name__", named))


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
