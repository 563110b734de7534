"""FeedbackLoop: what LabelSmoothing does when its schedule is Feedback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.gap_sums import GapSums
from ls_lightning.callbacks.held_out import HeldOut
from ls_lightning.callbacks.horizon import estimated_steps, estimated_validations
from ls_lightning.callbacks.quiet_pass import quiet_pass
from ls_lightning.callbacks.step_outputs import StepOutputs
from ls_lightning.eps_buffer import EpsBuffer
from ls_lightning.schedules import Feedback
from ls_lightning.tap import Select


class FeedbackLoop:
    """Measure the gap of each validation, or of a held-out slice, and move eps by it.

    Args:
        schedule: the rule.
        target: which call of a loss is measured, unless a ``CalibrationMonitor`` of the Trainer says it.
        total_steps: optimizer steps of the run; None asks the Trainer.

    Attributes:
        eps: one number, or with ``per_class`` and from the first update on one for each class.
        gap: what the last update saw; nan before it.
        updates: how many there were.
    """

    def __init__(self, schedule: Feedback, target: str | Select = "auto", total_steps: int | None = None) -> None:
        self.schedule = schedule
        self.target = target
        self.total_steps = total_steps
        self._held_out = None if schedule.held_out is None else HeldOut(schedule.held_out)
        self._trainer: L.Trainer | None = None
        self._outputs: StepOutputs | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what was found in a fit before."""
        self.eps = [self.schedule.start]
        self.gap = math.nan
        self.gain = self.schedule.gain
        self.updates = 0
        self._measured_at = 0  # batches trained on at the last update
        self._due = False
        self._sums: GapSums | None = None

    def open(self, trainer: L.Trainer) -> None:
        """Before the Trainer makes its loaders."""
        self.reset()
        self._trainer = trainer
        if self._held_out is not None:
            self._held_out.withhold(trainer)

    def close(self) -> None:
        """Leave the Trainer as it was; a checkpoint may still be written."""
        if self._trainer is not None:
            self._due = self._is_due(self._trainer)
        if self._outputs is not None:
            self._outputs.forget()
        if self._held_out is not None:
            self._held_out.give_back()
        self._trainer = self._outputs = self._sums = None

    def begin(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Before the first step, or the first after a checkpoint, which may have come before a measurement was over."""
        if self._held_out is None and not trainer.enable_validation:
            raise ValueError(
                "Feedback measures the gap in validation, got a Trainer and a module that have none. Let it withhold a "
                "share of the training data: Feedback(held_out=0.1)."
            )
        self.gain = self.schedule.gain_for(self._expected(trainer)) if self.gain is None else self.gain
        if self._due:
            self._measure(trainer, module)

    def batch_trained(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """After each training batch."""
        if self._held_out is not None and self._is_due(trainer):
            self._measure(trainer, module)

    def validation_started(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin to count, unless this validation is only the rest of one that a checkpoint broke off."""
        self._sums = None
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self._held_out is None and fitting and self._is_new(trainer):
            self._sums = GapSums()
            self._read_with(trainer).open(trainer, module, "val")

    def batch_validated(
        self, module: L.LightningModule, batch: Any, outputs: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Count a batch."""
        if self._sums is None or self._outputs is None or dataloader_idx != self.schedule.dataloader_idx:
            return
        self._count(self._sums, self._outputs, module, batch, outputs, batch_idx, dataloader_idx)

    def validation_ended(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Move eps."""
        sums, self._sums = self._sums, None
        if sums is not None:
            self._update(trainer, module, sums)

    def validation_closed(self) -> None:
        """Let go of the step; a monitor may have done so before."""
        if self._outputs is not None:
            self._outputs.close()

    def write(self, loss: nn.Module) -> float:
        """Give eps to the loss; returns it, or the mean over the classes."""
        if len(self.eps) == 1:
            loss.set_eps(self.eps[0])  # type: ignore[operator]
            return self.eps[0]
        if not isinstance(loss, EpsBuffer):
            raise ValueError(
                f"Feedback(per_class=True) needs a loss with an eps per class, got {type(loss).__name__}. Pass one of "
                "ls_lightning.losses, or a function of (logits, target, eps)."
            )
        if loss.eps.ndim == 0:
            for name in ("eps", "_eps_rest"):
                setattr(loss, name, getattr(loss, name).expand(len(self.eps)).clone())
        loss.set_eps(torch.tensor(self.eps, dtype=torch.float64))
        return math.fsum(self.eps) / len(self.eps)

    def logged(self) -> dict[str, float]:
        """What is logged beside ``ls/eps``."""
        if not self.updates:
            return {}
        spread = {} if len(self.eps) == 1 else {"ls/eps_min": min(self.eps), "ls/eps_max": max(self.eps)}
        return {"ls/gap": self.gap, **spread}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {
            "eps": list(self.eps),
            "gap": self.gap,
            "gain": self.gain,
            "updates": self.updates,
            "measured_at": self._measured_at,
            "due": self._due if self._trainer is None else self._is_due(self._trainer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.eps, self.gap, self.gain = list(state["eps"]), state["gap"], state["gain"]
        self.updates, self._measured_at, self._due = state["updates"], state["measured_at"], state["due"]

    def _expected(self, trainer: L.Trainer) -> int:
        steps = self.total_steps or estimated_steps(trainer)
        if self._held_out is None:
            return estimated_validations(trainer, steps)
        return steps * trainer.accumulate_grad_batches // (self.schedule.every or int(trainer.num_training_batches))

    def _is_new(self, trainer: L.Trainer) -> bool:
        return _trained_batches(trainer) != self._measured_at

    def _is_due(self, trainer: L.Trainer) -> bool:
        """Whether the last batch is one after which the gap is measured, and it has not been yet."""
        epoch_loop = trainer.fit_loop.epoch_loop
        current = cast(_ProcessedTracker, epoch_loop.batch_progress.current)  # a break leaves a gap in the total
        if current.processed != current.ready or not self._is_new(trainer):
            return False
        if self._held_out is None:
            fetcher = trainer.fit_loop._data_fetcher
            return fetcher is not None and bool(epoch_loop._should_check_val_fx(fetcher))
        if self.schedule.every is None:
            return bool(epoch_loop.batch_progress.is_last_batch)
        return _trained_batches(trainer) % self.schedule.every == 0

    def _measure(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure here and now, beside Lightning's own validation."""
        sums, index = GapSums(), self.schedule.dataloader_idx
        reader = self._read_with(trainer)
        loader, limit = self._loader(trainer)
        reader.open(trainer, module, "val", None if self._held_out is None else [loader])
        index = index if self._held_out is None else 0
        for batch_idx, batch, outputs in quiet_pass(trainer, module, loader, limit, index):
            self._count(sums, reader, module, batch, outputs, batch_idx, index)
        reader.close()
        self._update(trainer, module, sums)

    def _loader(self, trainer: L.Trainer) -> tuple[Iterable[Any], float]:
        if self._held_out is not None:
            assert self._held_out.loader is not None
            return self._held_out.loader, math.inf
        loop, index = trainer.fit_loop.epoch_loop.val_loop, self.schedule.dataloader_idx
        trainer.validating = True
        loop.setup_data()
        trainer.training = True
        assert loop._combined_loader is not None
        return loop._combined_loader.flattened[index], loop._max_batches[index]

    def _read_with(self, trainer: L.Trainer) -> StepOutputs:
        """The monitor's reader, which knows of ``read=`` and ``target=``, or one of our own."""
        if self._outputs is None:
            callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
            monitors = [callback for callback in callbacks if isinstance(callback, CalibrationMonitor)]
            self._outputs = monitors[0].step_outputs if monitors else StepOutputs("CalibrationMonitor", self.target)
        return self._outputs

    def _count(
        self, sums: GapSums, reader: StepOutputs, module: L.LightningModule, batch: Any, outputs: Any, *at: int
    ) -> None:
        found = reader.of_batch(module, batch, outputs, *at)
        if found is not None:
            sums.add(found)

    def _update(self, trainer: L.Trainer, module: L.LightningModule, sums: GapSums) -> None:
        gap, gaps = sums.gaps(trainer, module.device)
        self._measured_at, self._due = _trained_batches(trainer), False
        self.updates += 1
        self.gap = gap
        if math.isnan(gap):
            rank_zero_warn("Feedback saw no sample in validation, so eps stays as it is.")
        if not self.schedule.per_class:
            gaps = [gap]
        elif len(self.eps) == 1:
            self.eps *= len(gaps)
        self.eps = [self.schedule.next_eps(eps, one, self.gain) for eps, one in zip(self.eps, gaps, strict=True)]


def _trained_batches(trainer: L.Trainer) -> int:
    return cast(_ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.total).processed
