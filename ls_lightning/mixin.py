"""LabelSmoothingMixin: label smoothing by subclassing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import lightning as L
from torch import Tensor, nn

from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.label_smoothing import LabelSmoothing

_CRITERION = "_smoothing_criterion"


class LabelSmoothingMixin:
    """Smooth the training loss of one's own LightningModule, or of an existing one by subclassing it.

    Attaches :class:`~ls_lightning.LabelSmoothing` and :class:`~ls_lightning.CalibrationMonitor` on top of the
    callbacks that the module configures already, unless the Trainer has one of that kind: then the Trainer's
    is the one that counts. Adds no parameter and no entry to the state dict, so checkpoints load with and
    without it.

    Attributes:
        smoothing: the arguments of :class:`~ls_lightning.LabelSmoothing`, as a class attribute or set on the
            instance in ``__init__``.

    Raises:
        TypeError: at class definition, if the mixin does not come before the LightningModule.

    Example:
        >>> class Theirs(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.criterion = nn.CrossEntropyLoss()
        >>> class Mine(LabelSmoothingMixin, Theirs):
        ...     smoothing = {"loss": "kl", "eps": 0.1, "schedule": "linear"}
        >>> [type(callback).__name__ for callback in Mine().configure_callbacks()]
        ['LabelSmoothing', 'CalibrationMonitor']
    """

    smoothing: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(LabelSmoothingMixin)]
        wrong = [c for c in before if _is_lightning_module(c) and not issubclass(c, LabelSmoothingMixin)]
        if wrong:
            raise TypeError(
                f"LabelSmoothingMixin must come before the LightningModule, or nothing is smoothed: "
                f"class {cls.__name__}(LabelSmoothingMixin, {wrong[0].__name__})."
            )

    def smoothing_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scheduled loss within a training step; everywhere else the plain loss of hard labels.

        Args:
            logits: ``(N, K)`` or ``(N, K, d1, ...)``; with ``loss="bce"`` any shape.
            target: class indices ``(N, ...)`` or distributions; with ``loss="bce"`` 0 or 1, shaped as the logits.

        Returns:
            The mean over the samples, 0-d.
        """
        loss: Tensor = self._criterion()(logits, target)
        return loss

    def configure_callbacks(self) -> Sequence[L.Callback]:
        """The callbacks of the classes above, and ours where the Trainer has none of the kind."""
        self._criterion()
        inherited = super().configure_callbacks()  # type: ignore[misc]
        callbacks = list(inherited) if isinstance(inherited, Sequence) else [inherited]
        trainer = getattr(self, "_trainer", None)
        present = [*callbacks, *(trainer.callbacks if trainer is not None else [])]
        if not any(isinstance(callback, LabelSmoothing) for callback in present):
            callbacks.append(LabelSmoothing(**self.smoothing))
        if not any(isinstance(callback, CalibrationMonitor) for callback in present):
            callbacks.append(CalibrationMonitor())
        return callbacks

    def _criterion(self) -> nn.Module:
        """A plain loss that LabelSmoothing finds and replaces as it does any other."""
        criterion: nn.Module | None = getattr(self, _CRITERION, None)
        if criterion is None:
            criterion = nn.BCEWithLogitsLoss() if self.smoothing.get("loss") == "bce" else nn.CrossEntropyLoss()
            setattr(self, _CRITERION, criterion)
        return criterion


def _is_lightning_module(cls: type) -> bool:
    """By name: ``lightning`` and ``pytorch_lightning`` each have their own."""
    names = [f"{base.__module__.split('.')[0]}.{base.__name__}" for base in cls.__mro__]
    return "lightning.LightningModule" in names or "pytorch_lightning.LightningModule" in names
