"""TrainOutputs: the logits and targets of a training step, as they were when the loss was called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ls_lightning.callbacks.only_call import OnlyCall, Read
from ls_lightning.callbacks.single_class import single_class
from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.callbacks.step_outputs import Outputs, read_call
from ls_lightning.functional.row_statistics import LINES
from ls_lightning.tap import LossCall, Select, Tap, is_checkpointed

if TYPE_CHECKING:  # it imports CalibrationMonitor
    from ls_lightning.callbacks.label_smoothing import LabelSmoothing


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
        self._reads: Callable[[dict[str, Any], torch.device], bool] | None = None
        self._num_classes = 0
        self._shape = torch.empty(0, device="meta")
        self._place: tuple[Tensor, Tensor] | None = None
        self._statistics: Tensor | None = None
        self._undo: Callable[[], None] = nothing

    @property
    def given_up(self) -> bool:
        """Whether nothing is measured, as a warning has said."""
        return self._only.given_up

    def open(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        smoothing: LabelSmoothing | None = None,
        reads: Callable[[dict[str, Any], torch.device], bool] | None = None,
    ) -> None:
        """Begin a fit.

        Args:
            trainer: of the fit.
            pl_module: what is trained.
            smoothing: answers the calls of the loss, and may leave statistics of their rows in passing.
            reads: whether those are wanted for batches that metrics measure with such options, on such a device.
        """
        self.close()
        self._num_mixed = None
        self._has_warned = False
        if self._only.read is None:
            self._tap = Tap(pl_module, self._see, self._target(smoothing))
            self._undo = enter_with_step(trainer, "train", self._enter)
            self._reads = reads
            if smoothing is not None and reads is not None:
                smoothing.leave_statistics(self._give_place)

    def close(self) -> None:
        """End the fit; nothing of it is kept."""
        self._undo()
        self._undo = nothing
        self._tap = None
        self._calls = []
        self._has_run = self._listens = False
        self._num_classes = 0
        self._place = self._statistics = None

    def of_batch(self, pl_module: L.LightningModule, batch: Any, outputs: Any) -> Outputs | None:
        """What the batch that has just been trained on was; None if it was not, or that cannot be known.

        Raises:
            LookupError: the step called no loss, or several, or one with mixtures of classes.
        """
        calls, self._calls = self._calls, []
        statistics, self._statistics, self._place = self._statistics, None, None
        self._has_run = False
        if pl_module.automatic_optimization and not outputs:  # training_step returned None
            return None
        seen = 0 if self._tap is None else self._tap.calls
        call = self._only.of_step(calls, seen, "train", pl_module, batch, outputs)
        if call is None:
            return None
        if statistics is not None:
            return Outputs(call.logits, call.target, _USUAL, len(call.target), statistics)
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

    def _target(self, smoothing: LabelSmoothing | None) -> str | Select:
        """Ours; or of a loss that ``smoothing`` answers where it is called, so that it calls none of torch's."""
        if self._only.target == "auto" and smoothing is not None and isinstance(smoothing.target, str):
            return smoothing.target
        return self._only.target

    def _give_place(self, call: LossCall) -> Tensor | None:
        """Where the statistics of the call's rows go; None for nowhere."""
        logits = call.logits
        if not self._listens or logits.dtype == torch.float64:  # of which float32 would keep less
            return None
        if logits.shape[1] != self._num_classes:
            options = {"num_classes": logits.shape[1], **_USUAL}
            if self._reads is None or not self._reads(options, logits.device):
                return None
            self._num_classes = logits.shape[1]
        place = torch.empty(LINES, call.target.numel(), device=logits.device)
        self._place = logits, place
        return place

    def _enter(self) -> AbstractContextManager[Any]:
        self._listens, self._has_run = not self._has_run, True
        assert self._tap is not None
        return self._tap.step()

    def _see(self, call: LossCall) -> None:
        if not self._listens:
            return
        trains = call.logits.requires_grad and torch.is_grad_enabled()
        if torch.compiler.is_dynamo_compiling():  # what is copied here would be copied in the compiled code
            if trains:
                self._calls.append(call)
            return
        place, self._place = self._place, None
        if place is not None and place[0] is call.logits:
            self._statistics = place[1]
            if self._shape.shape != call.logits.shape:
                self._shape = torch.empty(call.logits.shape, device="meta")
            self._calls.append(_with(call, self._shape, call.target))
        elif torch._C._current_graph_task_id() != -1:  # checkpointing computes it again in the backward pass
            return
        elif trains or is_checkpointed():
            self._calls.append(_with(call, call.logits.detach().clone(), call.target.detach().clone()))


def _with(call: LossCall, logits: Tensor, target: Tensor) -> LossCall:
    """A call with others in place of its tensors, in less time than ``_replace`` takes."""
    return LossCall(call.function, logits, target, call.options, call.label_smoothing, call.position)


_USUAL: dict[str, Any] = {"task": "multiclass", "ignore_index": -100}
