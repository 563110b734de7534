"""What is known of one call of a classification loss, and what a loss module says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

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
        return KINDS.get(self.function)

    @property
    def input(self) -> Literal["logits", "log_probs", "probs"]:
        """What ``logits`` are."""
        if self.function == "nll_loss":
            return "log_probs"
        return "probs" if self.function == "binary_cross_entropy" else "logits"


KINDS: dict[str, Kind] = {
    "cross_entropy": "multiclass",
    "nll_loss": "multiclass",
    "binary_cross_entropy_with_logits": "binary",
    "binary_cross_entropy": "binary",
}

Select = Callable[[LossCall], bool]
Handle = Callable[[LossCall], Tensor | None]
"""Returns what the module shall get in place of its loss; None lets its own loss run."""

Quick = Callable[[Tensor, Tensor], Tensor | None]
"""Answers `cross_entropy(logits, target)` before it is made a `LossCall`; None where the handler has to look at it."""

_DEFAULTS: dict[str, Any] = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean"}


def set_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those that are not the default."""
    return {name: v for name, v in options.items() if isinstance(v, Tensor) or v != _DEFAULTS.get(name)}


MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.BCELoss: "binary_cross_entropy",
}


def own_options(loss: object) -> dict[str, Any]:
    """``weight``, ``pos_weight``, ``ignore_index``, ``reduction`` of a loss module, where they are not the default."""
    found = {name: getattr(loss, name, default) for name, default in _DEFAULTS.items()}
    return set_options({name: value for name, value in found.items() if not isinstance(value, nn.Parameter)})


def own_smoothing(loss: object) -> float:
    """How much a loss module smooths by itself."""
    for name in ("label_smoothing", "smoothing"):
        value = getattr(loss, name, 0.0)
        if isinstance(value, int | float) and value:
            return float(value)
    return 0.0


def smoothing_modules(module: nn.Module) -> dict[str, float]:
    """Path and ``label_smoothing`` of every torch loss in ``module`` that smooths by itself."""
    found = {path: own_smoothing(child) for path, child in module.named_modules() if type(child) in MODULES}
    return {path: smoothing for path, smoothing in found.items() if smoothing}
