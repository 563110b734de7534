"""Metrics that a module of the user's logs by itself, under the names that the report reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

import lightning as L

from ls_lightning.sweep.measures import STAGE
from ls_lightning.zoo.classifier import Classifier

_LOADER = re.compile(r"/dataloader_idx_\d+$")
_OURS = re.compile(r"(ls|\w+_scaled)/")


def logged_metrics(trainer: L.Trainer, model: L.LightningModule, stage: str) -> dict[str, dict[str, float]]:
    """What a pass of validation or test logged, whoever did it: ``val/f1`` or ``val_f1`` as ``{"val": {"f1": ...}}``.

    Args:
        trainer: behind the pass.
        model: the loss of our own `Classifier` is the NLL of hard labels, and left out.
        stage: ``"val"`` or ``"test"``.

    Returns:
        Values by stage, or ``val/dataloader_idx_0`` where there are several loaders, and name.
    """
    found: dict[str, dict[str, float]] = {}
    for home, name, value in _logged(trainer, stage):
        if not (isinstance(model, Classifier) and name == "loss"):
            found.setdefault(home, {})[name] = value
    return found


def add_logged(metrics: dict[str, dict[str, float]], logged: dict[str, dict[str, float]]) -> None:
    """Put them beside those that callbacks measured, which keep their names."""
    for stage, values in logged.items():
        ours = metrics.get(stage, {})
        metrics[stage] = {**ours, **values, **ours}


def _logged(trainer: L.Trainer, stage: str) -> Iterator[tuple[str, str, float]]:
    for name, value in trainer.callback_metrics.items():
        if not _OURS.match(name):
            loader = _LOADER.search(name)
            home = stage + (loader[0] if loader else "")
            yield home, STAGE.sub("", name.removesuffix(loader[0] if loader else "")), float(value)
