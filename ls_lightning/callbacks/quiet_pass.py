"""Pass data through a module's step between two training steps, and leave no trace in its run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

_LOGS = ("log", "log_dict")


def quiet_pass(
    trainer: L.Trainer, module: L.LightningModule, loader: Iterable[Any], limit: float, index: int = 0
) -> Iterator[tuple[int, Any, Any]]:
    """Yield ``(batch_idx, batch, outputs)`` of the module's validation step, or training step where it has none.

    In evaluation mode, without gradients; nothing is logged, and the random numbers of the run go on as they were.

    Args:
        trainer: of the fit.
        module: whose step.
        loader: batches, not yet on the device.
        limit: batches at most.
        index: of the loader, for a step that takes ``dataloader_idx``.
    """
    step: Any = module.validation_step if is_overridden("validation_step", module) else module.training_step
    named = inspect.signature(step).parameters
    with _aside(trainer, module):
        for batch_idx, batch in enumerate(loader):
            if batch_idx >= limit:
                break
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=index)
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=index)
            given = {"batch_idx": batch_idx, "dataloader_idx": index}
            with trainer.precision_plugin.val_step_context():
                outputs = step(batch, **{name: value for name, value in given.items() if name in named})
            yield batch_idx, batch, outputs


@contextmanager
def _aside(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    own: dict[str, Any] = {name: vars(module)[name] for name in _LOGS if name in vars(module)}
    device = trainer.strategy.root_device
    try:
        module.eval()
        for name in _LOGS:
            vars(module)[name] = _say_nothing
        with torch.no_grad(), torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            yield
    finally:
        for name in _LOGS:
            vars(module).pop(name, None)
        vars(module).update(own)
        for part, training in modes:
            part.training = training


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    """In place of ``self.log``."""
