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
        self._seen = 0
        self._has_run = False
        self._listens = False
        self._reads: Callable[[dict[str, Any], torch.device], bool] | None = None
        self._num_classes = 0
        self._usual = _NO_CALL
        self._room = _NO_CALL.logits
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
            smoothing: answers calls of losses. Where it looks for the same ones it tells of them, which takes less time
                than to look again, and may leave statistics of their rows in passing.
            reads: whether those are wanted for batches that metrics measure with such options, on such a device.
        """
        self.close()
        self._num_mixed = None
        self._has_warned = False
        if self._only.read is not None:
            return
        if smoothing is not None and self._looks_for_the_same(smoothing):
            self._reads = reads
            smoothing.tell(self)
        else:
            self._tap = Tap(pl_module, self.hear, self._only.target)
            self._undo = enter_with_step(trainer, "train", self._enter)

    def close(self) -> None:
        """End the fit; nothing of it is kept."""
        self._undo()
        self._undo = nothing
        self._tap = None
        self._calls = []
        self._has_run = self._listens = False
        self._seen = self._num_classes = 0
        self._usual = _NO_CALL
        self._reads = self._statistics = None

    def of_batch(self, pl_module: L.LightningModule, batch: Any, outputs: Any) -> Outputs | None:
        """What the batch that has just been trained on was; None if it was not, or that cannot be known.

        Raises:
            LookupError: the step called no loss, or several, or one with mixtures of classes.
        """
        calls, self._calls = self._calls, []
        statistics, self._statistics = self._statistics, None
        self._has_run = False
        if pl_module.automatic_optimization and not outputs:  # training_step returned None
            return None
        if statistics is not None and len(calls) == 1 and not self._only.given_up:
            return Outputs(calls[0].logits, calls[0].target, _USUAL, len(calls[0].target), statistics)
        seen = self._seen if self._tap is None else self._tap.calls
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

    def begin(self) -> None:
        """A step begins; of its runs with one batch the first counts."""
        self._listens, self._has_run = not self._has_run, True
        self._seen = 0

    def place(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Where the statistics of a call's rows go; None for nowhere."""
        if not self._listens or logits.dtype == torch.float64:  # of which float32 would keep less
            return None
        if logits.shape != self._usual.logits.shape and not self._expect(logits, target):
            return None
        self._statistics = place = torch.empty_like(self._room)
        self._calls.append(self._usual)
        self._seen += 1
        return place

    def _expect(self, logits: Tensor, target: Tensor) -> bool:
        """Prepare for calls of this shape; whether statistics of their rows are wanted."""
        if logits.shape[1] != self._num_classes:
            options = {"num_classes": logits.shape[1], **_USUAL}
            if self._reads is None or not self._reads(options, logits.device):
                return False
            self._num_classes = logits.shape[1]
        shapes = torch.empty(logits.shape, device="meta"), torch.empty(target.shape, device="meta")
        self._usual = LossCall("cross_entropy", *shapes, {}, 0.0, 0)
        self._room = torch.empty(LINES, target.numel(), device=logits.device)
        return True

    def hear(self, call: LossCall) -> None:
        """A call of which copies are kept, if it is trained on."""
        if not self._listens:
            return
        trains = call.logits.requires_grad and torch.is_grad_enabled()
        if torch.compiler.is_dynamo_compiling():  # what is copied here would be copied in the compiled code
            if trains:
                self._calls.append(call)
            return
        self._seen += 1
        if torch._C._current_graph_task_id() != -1:  # checkpointing computes it again in the backward pass
            return
        if trains or is_checkpointed():
            self._calls.append(call._replace(logits=call.logits.detach().clone(), target=call.target.detach().clone()))

    def _looks_for_the_same(self, smoothing: LabelSmoothing) -> bool:
        """Whether the calls that count are those ``smoothing`` sees; a loss that it names calls none of torch's."""
        own, its = self._only.target, smoothing.target
        return own is its or own == its or (own == "auto" and isinstance(its, str))

    def _enter(self) -> AbstractContextManager[Any]:
        self.begin()
        assert self._tap is not None
        return self._tap.step()


_USUAL: dict[str, Any] = {"task": "multiclass", "ignore_index": -100}
_NO_CALL = LossCall("", torch.empty(0, device="meta"), torch.empty(0, device="meta"), {}, 0.0, 0)
