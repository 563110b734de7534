"""SeededSteps: a step's random numbers depend on its number, not on what was drawn before it."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ls_lightning.seeds import mixed_seed


class SeededSteps(L.Callback):
    """Seed torch's generators anew for every training step, so that a resumed run draws what an unbroken one does.

    Dropout, and augmentation in the training process, draw from global generators, whose states no checkpoint of
    Lightning holds. Each rank has a stream of its own. Costs about 5 microseconds a step.

    Args:
        seed: of the run.

    Example:
        >>> trainer = L.Trainer(callbacks=[SeededSteps(seed=0)], logger=False)
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seed(trainer, "batch")

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seed(trainer, "batch")

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._seed(trainer, "step")

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seed(trainer, "batch")  # the next one is fetched before any hook of its step

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._seed(trainer, "batch")

    def _seed(self, trainer: L.Trainer, purpose: str) -> None:
        done = cast(_ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.total).processed
        seed = mixed_seed(purpose, self.seed, trainer.global_rank, done)
        # Not torch.manual_seed: where CUDA is not in use it formats the stack each time.
        torch.default_generator.manual_seed(seed)
        device = trainer.strategy.root_device
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
