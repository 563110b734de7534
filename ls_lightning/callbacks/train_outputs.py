"""TrainOutputs: the logits and targets of a training step, as they were when the loss was called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ls_lightning.callbacks.only_call import OnlyCall, Read
from ls_lightning.callbacks.single_class import single_class
from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.callbacks.step_outputs import Outputs, read_call
from ls_lightning.tap import LossCall, Select, Tap, is_checkpointed


class TrainOutputs:
    """Sees with which logits and targets the module calls the loss that it is trained on.

    Every batch counts once: the first time that an optimizer runs the step, with the weights from before the batch.
    What is kept of a call are copies, since the step and the backward pass may write to the logits.

    Args:
        owner: the name of the callback, for messages.
        target: which call counts, see :class:`~ls_lightning.CalibrationMonitor`.
        read: in place of the calls, see there.
        strict: False warns once where True raises a LookupError.
    """

    def __init__(
        self, owner: str, target: str | Select = "auto", read: Read | None = None, strict: bool = True
    ) -> None:
        self._only = OnlyCall(owner, target, read, strict)
        self._num_mixed: Tensor | None = None
        self._has_warned = False
        self._tap: Tap | None = None
        self._calls: list[LossCall] = []
        self._has_run = False
        self._listens = False
        self._undo: Callable[[], None] = nothing

    @property
    def given_up(self) -> bool:
        """Whether nothing is measured, as a warning has said."""
        return self._only.given_up

    def open(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a fit."""
        self.close()
        self._num_mixed = None
        self._has_warned = False
        if self._only.read is None:
            self._tap = Tap(pl_module, self._see, self._only.target)
            self._undo = enter_with_step(trainer, "train", self._enter)

    def close(self) -> None:
        """End the fit; nothing of it is kept."""
        self._undo()
        self._undo = nothing
        self._tap = None
        self._calls = []
        self._has_run = self._listens = False

    def of_batch(self, pl_module: L.LightningModule, batch: Any, outputs: Any) -> Outputs | None:
        """What the batch that has just been trained on was; None if it was not, or that cannot be known.

        Raises:
            LookupError: the step called no loss, or several, or one with mixtures of classes.
        """
        calls, self._calls = self._calls, []
        self._has_run = False
        if pl_module.automatic_optimization and not outputs:  # training_step returned None
            return None
        seen = 0 if self._tap is None else self._tap.calls
        call = self._only.of_step(calls, seen, "train", pl_module, batch, outputs)
        if call is None:
            return None
        logits, target, options = read_call(call)
        if call.target.is_floating_point():
            target, mixed = single_class(call, target, options)
            if self._num_mixed is None and mixed.any():  # waits for the device, in the first step alone
                where = f"the loss of {type(pl_module).__name__}.training_step is called with mixtures of classes"
                self._only.refuse(f"{where}, of which none is the label. {self._remedy}")
                return None
            self._num_mixed = mixed.sum() if self._num_mixed is None else self._num_mixed + mixed.sum()
        return Outputs(logits, target, options, len(logits))

    def end_epoch(self) -> None:
        """Say, once in a fit, that samples were left out."""
        if self._num_mixed is None or self._has_warned or not self._num_mixed:
            return
        self._has_warned = True
        rank_zero_warn(
            f"{self._only.owner} leaves out {int(self._num_mixed)} training samples, whose targets are mixtures of "
            f"classes. {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        return (
            f"Leave train=True away, or say what the labels are: {self._only.owner}(train=True, "
            "read=lambda module, batch, outputs: (logits, labels))."
        )

    def _enter(self) -> AbstractContextManager[Any]:
        self._listens, self._has_run = not self._has_run, True
        assert self._tap is not None
        return self._tap.step()

    def _see(self, call: LossCall) -> None:
        if not self._listens:
            return
        trains = call.logits.requires_grad and torch.is_grad_enabled()
        if torch.compiler.is_compiling():  # what is copied here would be copied in the compiled code, in every stage
            if trains:
                self._calls.append(call)
            return
        if torch._C._current_graph_task_id() != -1:  # checkpointing computes it again in the backward pass
            return
        if trains or is_checkpointed():
            logits, target = call.logits.detach().clone(), call.target.detach().clone()
            self._calls.append(
                LossCall(call.function, logits, target, call.options, call.label_smoothing, call.position)
            )
