"""One job of a stack: what it would have alone."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ls_lightning.assemble import build_model
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.temperature_scaling import TemperatureScaling
from ls_lightning.callbacks.train_loss import TrainLoss
from ls_lightning.eps_buffer import EpsBuffer
from ls_lightning.sweep.folder import Claim
from ls_lightning.zoo.classifier import Classifier

T = TypeVar("T")


class Member:
    """A job's network, callbacks and folder, as its configuration says; its callbacks see a Trainer of their own.

    Args:
        config: as :func:`ls_lightning.config.settle` returns it, as plain values.
        folder: of the job.
        choices: the option chosen in each config group.
        data: set up; what all members share.
    """

    def __init__(
        self, config: dict[str, Any], folder: Path, choices: dict[str, str], data: L.LightningDataModule
    ) -> None:
        self.config, self.folder, self.choices = config, folder, choices
        L.seed_everything(config["seed"], workers=True, verbose=False)
        model = build_model(OmegaConf.create({name: config[name] for name in ("model", "loss", "optimizer")}), data)
        if not isinstance(model, Classifier):
            raise TypeError(f"a stack is made of networks in our Classifier, got {type(model).__name__}.")
        self.classifier = model
        own = [options for name, options in config["callbacks"].items() if options and name != "pictures"]
        self.callbacks = [copy.deepcopy(_callback(json.dumps(options))) for options in own]
        self.train_loss = only(self.callbacks, TrainLoss)
        self.smoothing = only(self.callbacks, LabelSmoothing)
        self.monitor = only(self.callbacks, CalibrationMonitor)
        self.scaling = only(self.callbacks, TemperatureScaling)
        self.claim = Claim(folder, config)

    @property
    def loss(self) -> EpsBuffer:
        """The smoothed loss, which ``smoothing`` writes eps to."""
        loss = self.smoothing._calls.loss
        if not isinstance(loss, EpsBuffer):
            raise TypeError(f"a stack is trained with losses of this package, got {type(loss).__name__}.")
        return loss

    @property
    def kind(self) -> str:
        """Equal for members whose losses differ in nothing but eps."""
        return json.dumps({key: value for key, value in self.config["loss"].items() if key not in ("eps", "warmup")})

    @property
    def optimizer(self) -> str:
        """Equal for members with the same optimizer settings."""
        return json.dumps(self.config["optimizer"], sort_keys=True)


@cache
def _callback(options: str) -> L.Callback:
    """To be copied: Hydra takes as long for it as a copy for a hundred."""
    callback: L.Callback = instantiate(json.loads(options))
    return callback


def only(callbacks: list[Any], kind: type[T]) -> T:
    """The one callback of a kind."""
    (found,) = (callback for callback in callbacks if isinstance(callback, kind))
    return found
