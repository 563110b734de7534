"""TrainMetrics: what the batches of an epoch are measured by as they are trained on."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L

from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.stage_metrics import Build, Measured, StageMetrics
from ls_lightning.callbacks.train_outputs import TrainOutputs


class TrainMetrics:
    """Metrics of the training steps, which a validation amid an epoch leaves alone and a checkpoint keeps.

    Args:
        outputs: where logits and targets come from.
        build: as of :class:`~ls_lightning.callbacks.stage_metrics.StageMetrics`.
    """

    def __init__(self, outputs: TrainOutputs, build: Build) -> None:
        self._outputs = outputs
        self._metrics = StageMetrics(build, 1)
        self._loaded: dict[str, Any] | None = None
        self._failed = False

    def open(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a fit, or go on where a checkpoint that was loaded broke off."""
        from ls_lightning.callbacks.label_smoothing import LabelSmoothing  # which imports CalibrationMonitor

        reads = partial(self._metrics.reads_statistics, 0)
        self._outputs.open(trainer, pl_module, first_of(trainer, LabelSmoothing), reads)
        self._metrics.reset(1)
        self._failed = False
        if self._loaded is not None and trainer.is_global_zero:  # it holds the sums of all ranks
            self._metrics.resume(0, **self._loaded, device=pl_module.device)
        self._loaded = None

    def add(self, pl_module: L.LightningModule, batch: Any, outputs: Any, first: bool) -> None:
        """Add the batch that has just been trained on; the first of an epoch begins anew."""
        if first:  # what is there, a checkpoint has of an epoch whose end it did not see
            self._metrics.reset(1)
        found = self._outputs.of_batch(pl_module, batch, outputs)
        if found is not None:
            self._metrics.update(0, found)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Measured]:
        """Compute everything at the end of an epoch, and begin anew; every rank has to call it."""
        self._outputs.end_epoch()
        found = {} if self._outputs.given_up else {"train": self._metrics.measure(trainer, pl_module.device)[0]}
        self._metrics.reset(1)
        return found

    def close(self, failed: bool = False) -> None:
        """End a fit. After an exception a checkpoint may still be written, with the sums so far."""
        self._outputs.close()
        self._failed = failed
        if not failed:
            self._metrics.reset(1)

    def save(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the sums so far into a checkpoint."""
        if self._failed and trainer.world_size > 1:  # the others may be anywhere, so nothing is gathered from them
            return
        found = self._metrics.state(0, trainer, pl_module.device)
        if found is not None:
            checkpoint[_KEY] = found

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Remember what a checkpoint holds for the fit that begins."""
        self._loaded = checkpoint.get(_KEY)


_KEY = "ls_lightning.train_metrics"
