"""ResumePoint: a run goes on where its checkpoint was written, wherever in an epoch that was."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override


class ResumePoint(L.Callback):
    """Settle the counts of Lightning's training loop in every checkpoint, so that a resumed run does all of it once.

    Lightning tells from the counts at which hook a checkpoint was written, and knows some hooks only. A run that an
    exception ended amid a validation goes on without it or with half of it, amid accumulated batches without the
    gradients of those before, at the start of an epoch with the next one; a step that broke off is counted twice from
    then on, so that a second resume in its epoch trains on a batch too many.

    With this the validation is begun anew, accumulated batches are trained on again from the first of them, and
    everything else is done once. It has to be the first callback of its Trainer.

    Example:
        >>> trainer = L.Trainer(callbacks=[ResumePoint()], logger=False)
    """

    def __init__(self) -> None:
        super().__init__()
        self._validating = False
        self._validated_at = -1

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has found by now where to go on; a batch that broke off is none of the run's any more.
        total = cast(_ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.total)
        total.ready = total.started = total.processed

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = False
        self._validated_at = trainer.fit_loop.epoch_loop._batches_that_stepped

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        counts = _Counts(trainer, checkpoint["loops"]["fit_loop"])
        if counts.epoch["started"] < counts.epoch["ready"]:
            counts.move_epoch(ready=-1, completed=-1)  # as at the end of the one before
        elif counts.epoch["processed"] < counts.epoch["started"]:
            self._settle_amid_epoch(trainer, counts)
        if trainer.max_steps >= 0 and counts.epoch["completed"] < counts.epoch["processed"]:
            # An epoch that ends there Lightning would end twice, or train on a batch to find that it has ended.
            if counts.is_over():
                counts.begin_next_epoch()
            else:  # max_steps had cut it short
                counts.move_epoch(processed=-1)
                counts.go_on_at(counts.done)

    def _settle_amid_epoch(self, trainer: L.Trainer, counts: _Counts) -> None:
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        if counts.wait():
            return
        after_batch = counts.batch["completed"] < counts.done == counts.batch["ready"]  # in on_train_batch_end
        due = after_batch and fetcher is not None and loop._should_check_val_fx(fetcher)
        if counts.accumulated() and not counts.is_over():
            counts.go_on_at(counts.done - counts.accumulated())
        elif due or self._validating or counts.validation_broke_off():
            counts.validate()
        elif not counts.is_over():
            counts.steps["_batches_that_stepped"] += after_batch or self._validated_at == loop._batches_that_stepped
            counts.go_on_at(counts.done)
        elif after_batch:  # else the validation that ends the epoch has ended, which Lightning knows
            counts.steps["_batches_that_stepped"] += 1
            counts.move_epoch(processed=1)


class _Counts:
    """The counts in a checkpoint.

    Args:
        trainer: which writes it.
        loops: what it holds of the fit loop; changed in place.
    """

    def __init__(self, trainer: L.Trainer, loops: dict[str, Any]) -> None:
        self._epochs: dict[str, Any] = loops["epoch_progress"]
        self._batches: dict[str, Any] = loops["epoch_loop.batch_progress"]
        self._validation: dict[str, Any] = loops["epoch_loop.val_loop.batch_progress"]
        self._accumulate, self._size = trainer.accumulate_grad_batches, trainer.num_training_batches
        self.epoch: dict[str, int] = self._epochs["current"]
        self.batch: dict[str, int] = self._batches["current"]
        self.steps: dict[str, int] = loops["epoch_loop.state_dict"]
        self._validation["total"] = dict(self._validation["current"])  # of this epoch, and no more

    @property
    def done(self) -> int:
        """Batches of the epoch that were trained on."""
        return self.batch["processed"]

    def is_over(self) -> bool:
        """Whether those are all of them."""
        return self.done == self.batch["ready"] and bool(self._batches["is_last_batch"] or self.done == self._size)

    def accumulated(self) -> int:
        """Batches whose gradients wait for more of them."""
        return self.done % self._accumulate

    def validation_broke_off(self) -> bool:
        """Whether one is to be done anew, as in a run that has not come to that since it was resumed."""
        current: dict[str, int] = self._validation["current"]
        return current["processed"] < current["ready"]

    def wait(self) -> bool:
        """Leave all as it was read where a run that was resumed has not gone on yet."""
        total, current = self._batches["total"], self._batches["current"]
        ahead = current["ready"] - current["processed"]
        waits: bool = total["ready"] - total["processed"] < ahead
        if waits:
            total["ready"] = total["started"] = total["processed"] + ahead
        return waits

    def move_epoch(self, **changes: int) -> None:
        for stage, change in changes.items():
            for counts in self._epochs["total"], self._epochs["current"]:
                counts[stage] += change

    def begin_next_epoch(self) -> None:
        """As when the first training step of it breaks off."""
        self.move_epoch(ready=1, started=1, completed=1)
        self.batch.update(dict.fromkeys(self.batch, 0))
        self.go_on_at(0)

    def go_on_at(self, batch: int) -> None:
        """As when the training step of this batch breaks off, whose validation and steps so far are done."""
        before = self._batches["total"]["processed"] - self.done
        for counts, done in (self._batches["total"], before + batch), (self._batches["current"], batch):
            counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
        self._batches["is_last_batch"] = False
        # Lightning takes it for a step that was made.
        self.steps["_batches_that_stepped"] -= (batch + 1) % self._accumulate == 0 or batch + 1 == self._size
        self._validate_from(ready=0)

    def validate(self) -> None:
        """As when the validation after these batches breaks off in its first batch."""
        for counts in self._batches["total"], self._batches["current"]:
            counts.update(dict.fromkeys(counts, counts["processed"]))
        self._validate_from(ready=1)

    def _validate_from(self, ready: int) -> None:
        for counts in self._validation["total"], self._validation["current"]:
            counts.update(ready=ready, started=ready, processed=0, completed=0)
        self._validation["is_last_batch"] = False
