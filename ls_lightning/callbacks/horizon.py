"""How long a run will be, as far as its Trainer knows."""

from __future__ import annotations

import math
from typing import Any

import lightning as L


def estimated_steps(trainer: L.Trainer) -> int:
    """Optimizer steps of the whole fit.

    Raises:
        ValueError: this Trainer cannot know.
    """
    steps: float = math.inf if _accumulation_changes(trainer) else trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        raise ValueError(
            "the schedule needs the number of training steps, which this Trainer cannot know (endless data, max_time "
            "or a changing accumulation). Say it: LabelSmoothing(total_steps=10_000)."
        )
    return int(steps)


def estimated_validations(trainer: L.Trainer, steps: int) -> int:
    """Validations within ``steps`` optimizer steps.

    Raises:
        ValueError: validation is by the clock, or only at the end of endless data.
    """
    batches, stride = steps * trainer.accumulate_grad_batches, trainer.val_check_batch
    epoch = float(trainer.num_training_batches)
    every = trainer.check_val_every_n_epoch
    if every is not None and epoch < math.inf and stride is not None:
        steps_an_epoch = math.ceil(epoch / trainer.accumulate_grad_batches)
        return int(epoch // min(stride, epoch)) * (math.ceil(steps / steps_an_epoch) // every)
    if stride is None or stride == math.inf:
        raise ValueError(
            "Feedback needs the number of validations for its gain, which this Trainer cannot know. Say the gain "
            "itself, about 4 / number of validations: Feedback(gain=0.05)."
        )
    return int(batches // stride)


def _accumulation_changes(trainer: L.Trainer) -> bool:
    """Lightning's estimate would go on with the accumulation of the first epoch."""
    # By name: lightning and pytorch_lightning each have their own.
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if type(callback).__name__ == "GradientAccumulationScheduler"]
    return any(len(set(callback.scheduling.values())) > 1 for callback in found)
