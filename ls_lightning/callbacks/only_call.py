"""OnlyCall: of the losses that a step calls, the one that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ls_lightning.tap import LossCall, Select

Read = Callable[[Any, Any, Any], tuple[Tensor, Tensor]]
Step = Literal["train", "val", "test"]

_METHODS = {"train": "training_step", "val": "validation_step", "test": "test_step"}


class OnlyCall:
    """The one call of a loss in a step, or what ``read`` gives in its place.

    Args:
        owner: the name of the callback, for messages.
        target: which call counts, see :class:`~ls_lightning.CalibrationMonitor`.
        read: in place of the calls, see there.
        strict: False warns once where True raises a LookupError.

    Attributes:
        given_up: whether it has warned.
    """

    def __init__(self, owner: str, target: str | Select, read: Read | None, strict: bool) -> None:
        self.owner = owner
        self.target = target
        self.read = read
        self.strict = strict
        self.given_up = False

    def of_step(
        self,
        calls: Sequence[LossCall],
        seen: int,
        step: Step,
        pl_module: L.LightningModule,
        batch: Any,
        outputs: Any,
    ) -> LossCall | None:
        """The call; None if that cannot be known.

        Args:
            calls: those that ``target`` selects.
            seen: how many there were before it did.
            step: which.
            pl_module: whose step it was.
            batch: what it was given.
            outputs: what it returned, as Lightning hands it on.

        Raises:
            LookupError: the step called no loss, or several.
        """
        if self.given_up:
            return None
        if len(calls) == 1 and self.read is None:
            return calls[0]
        if self.read is not None:
            with torch.no_grad(), pl_module.trainer.precision_plugin.forward_context():
                logits, target = self.read(pl_module, batch, outputs)
            return LossCall("read", logits, target, {}, 0.0, 0)
        self.refuse(self._complaint(calls, seen, step, f"{type(pl_module).__name__}.{_METHODS[step]}"))
        return None

    def refuse(self, complaint: str) -> None:
        """Raise it, or warn and measure nothing from now on.

        Raises:
            LookupError: with ``strict``.
        """
        if self.strict:
            raise LookupError(complaint)
        self.given_up = True
        rank_zero_warn(f"{self.owner} measures nothing: {complaint}")

    def _complaint(self, calls: Sequence[LossCall], seen: int, step: Step, where: str) -> str:
        if not calls and seen and callable(self.target):
            return f"target selects none of the {seen} losses that {where} calls."
        if not calls and seen and step == "train":
            return f"no gradient comes from the {seen} losses that {where} calls, so nothing is trained on them."
        if not calls:
            return (
                f"no loss was called in {where}, so nothing could be measured. Call the loss there too, or say where "
                f"logits and target are: {self.owner}(read=lambda module, batch, outputs: (logits, target))."
            )
        names = ", ".join(f"{call.function} on {tuple(call.logits.shape)}" for call in calls)
        return (
            f"{where} calls {len(calls)} losses ({names}); say which one is measured: "
            f"{self.owner}(target=lambda call: call.position == 0)."
        )
