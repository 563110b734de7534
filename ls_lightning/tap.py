"""The one place that reaches into a foreign module: find the losses it holds, replace one, put it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["multiclass", "binary"]

_KINDS: dict[type[nn.Module], Kind] = {
    nn.CrossEntropyLoss: "multiclass",
    nn.NLLLoss: "multiclass",
    nn.BCEWithLogitsLoss: "binary",
}


@dataclass(frozen=True, eq=False)
class LossSite:
    """A place in a module that holds a loss.

    Attributes:
        path: dotted name from the root module, e.g. ``"criterion"`` or ``"heads.main.loss"``.
        owner: the module that holds it.
        name: its name in ``owner``.
        module: the loss that its author put there.
    """

    path: str
    owner: nn.Module
    name: str
    module: nn.Module

    @property
    def kind(self) -> Kind | None:
        """``"multiclass"`` or ``"binary"`` (one logit per decision); None for a loss of the user's own class."""
        return _KINDS.get(type(self.module))

    @property
    def input(self) -> str:
        """What the loss is called with: ``"logits"`` or ``"log_probs"``."""
        return "log_probs" if type(self.module) is nn.NLLLoss else "logits"

    @property
    def label_smoothing(self) -> float:
        """How much the author's loss smooths by itself."""
        for name in ("label_smoothing", "smoothing"):
            value = getattr(self.module, name, 0.0)
            if isinstance(value, int | float) and value:
                return float(value)
        return 0.0

    def options(self) -> dict[str, Any]:
        """The author's ``weight``, ``pos_weight``, ``ignore_index``, ``reduction``, where they are not the default."""
        defaults: dict[str, Any] = {
            "weight": None,
            "pos_weight": None,
            "ignore_index": -100,
            "reduction": "mean",
        }
        found: dict[str, Any] = {}
        for name, default in defaults.items():
            value = getattr(self.module, name, default)
            if isinstance(value, Tensor) or value != default:
                found[name] = value
        if self.input != "logits":
            found["input"] = self.input
        return found

    def put(self, replacement: nn.Module) -> None:
        """Let the module use ``replacement`` here. No state dict, hook or parameter is touched."""
        self.owner._modules[self.name] = replacement

    def restore(self) -> None:
        """Put the author's loss back."""
        self.owner._modules[self.name] = self.module


def find_losses(module: nn.Module, target: str = "auto") -> list[LossSite]:
    """The classification losses that ``module`` or a submodule holds as attribute.

    Args:
        module: any module, usually a LightningModule.
        target: ``"auto"`` for every ``nn.CrossEntropyLoss``, ``nn.NLLLoss`` and ``nn.BCEWithLogitsLoss``
            (exactly these types: subclasses may compute something else), or the dotted path of one
            module of any class, e.g. ``"criterion"``.

    Raises:
        LookupError: there is none, or ``target`` names no submodule.

    Example:
        >>> net = nn.Module()
        >>> net.criterion = nn.CrossEntropyLoss()
        >>> [site.path for site in find_losses(net)]
        ['criterion']
    """
    sites = [
        LossSite(path=f"{prefix}.{name}" if prefix else name, owner=owner, name=name, module=child)
        for prefix, owner in module.named_modules()
        for name, child in owner._modules.items()
        if child is not None
    ]
    where = type(module).__name__
    if target == "auto":
        found = [site for site in sites if site.kind is not None]
        if not found:
            raise LookupError(
                f"{where} holds no nn.CrossEntropyLoss, nn.NLLLoss or nn.BCEWithLogitsLoss, so no loss was found. "
                "Name the attribute that holds the loss: target='criterion', or subclass with LabelSmoothingMixin."
            )
        return found
    found = [site for site in sites if site.path == target]
    if not found:
        raise LookupError(f"{where} has no submodule {target!r}. Name the attribute that holds the loss, or 'auto'.")
    return found
