"""Build the objects that a configuration names: data, model, callbacks, loggers, Trainer."""

from __future__ import annotations

import inspect
import os
from importlib.resources import files
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from ls_lightning.config.targets import locate
from ls_lightning.errors import ConfigError, as_config_error
from ls_lightning.zoo.classifier import Classifier

_UNSET = -100  # what losses ignore unless they are told otherwise
_KINDS = (InstantiationException, MisconfigurationException)


def build_data(cfg: DictConfig) -> L.LightningDataModule:
    """The data module.

    Raises:
        ConfigError: it cannot be built, or is none.
    """
    with as_config_error("data", *_KINDS):
        data = instantiate(cfg.data)
    if not isinstance(data, L.LightningDataModule):
        raise ConfigError(f"data._target_ must be a LightningDataModule, got {cfg.data._target_}.")
    return data


def build_model(cfg: DictConfig, data: L.LightningDataModule) -> L.LightningModule:
    """A LightningModule as it is; any other network in our classifier, shaped by the data.

    Raises:
        ConfigError: it cannot be built, does not fit the data, or is no network.
    """
    cls = model_class(cfg)
    if issubclass(cls, L.LightningModule):
        with as_config_error("model", *_KINDS):
            model: L.LightningModule = instantiate(cfg.model)
        return model
    with as_config_error("data", *_KINDS):
        data.prepare_data()
        data.setup("fit")
        facts = _facts(data)
    _check_loss(cfg, facts["task"])
    accepted = inspect.signature(cls).parameters
    known = {name: value for name, value in facts.items() if name in accepted}
    if "num_tokens" in facts and "num_tokens" not in known and cls.__module__.startswith("ls_lightning."):
        raise ConfigError(
            f"the data gives numbers of words, which {cls.__name__} does not read. Use a model that does, such as "
            "model=text_cnn; or for texts data.features=tfidf."
        )
    for name in known.keys() & cfg.model.keys():
        if cfg.model[name] != known[name]:
            raise ConfigError(f"model.{name} must be {known[name]}, as the data has it, got {cfg.model[name]}.")
    needed = [name for name, p in accepted.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    lacking = [name for name in needed if name not in known and name not in cfg.model]
    if lacking:
        raise ConfigError(
            f"{cls.__name__} needs {lacking[0]}: give +model.{lacking[0]}=<value>, or let {type(data).__name__} have "
            f"num_classes and input_shape after setup('fit')."
        )
    with as_config_error("model", *_KINDS):
        network = instantiate(cfg.model, _partial_=True)(**known)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"{cls.__name__} has no parameters to train.")
    with as_config_error("optimizer", *_KINDS):
        return Classifier(
            network,
            task=facts["task"],
            ignore_index=_ignore_index(cfg, data),
            optimizer=instantiate(cfg.optimizer, _partial_=True),
        )


def without_unused(cfg: DictConfig) -> DictConfig:
    """Without the optimizer where a LightningModule has its own: what is left is what is trained.

    Raises:
        ConfigError: an optimizer was asked for, which would be ignored.
    """
    cls = model_class(cfg)
    if not issubclass(cls, L.LightningModule) or "optimizer" not in cfg:
        return cfg
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    usual = OmegaConf.create(files("ls_lightning.conf").joinpath("optimizer", "adamw.yaml").read_text())
    if cfg.optimizer != usual or any(override.lstrip("+~").startswith("optimizer") for override in typed):
        raise ConfigError(
            f"{cls.__name__} is a LightningModule with configure_optimizers of its own, so optimizer would be ignored. "
            "Leave it away; what your class takes is given to it, e.g. +model.lr=0.1."
        )
    cfg = cfg.copy()
    with open_dict(cfg):
        del cfg["optimizer"]
    return cfg


def model_class(cfg: DictConfig) -> type[nn.Module]:
    """What ``model._target_`` names.

    Raises:
        ConfigError: it is not there, or no class of networks.
    """
    cls = locate("model._target_", cfg.model._target_)
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise ConfigError(
            f"model._target_ must be a class, a LightningModule or nn.Module, got {cfg.model._target_}"
            f"{'' if isinstance(cls, type) else ', a function'}."
        )
    return cls


def build_trainer(cfg: DictConfig) -> L.Trainer:
    """The Trainer with the callbacks and loggers of the configuration.

    Raises:
        ConfigError: one of them cannot be built, or the machine has no such devices.
    """
    _check_devices(cfg)
    _check_loss_is_built(cfg)
    with as_config_error("callbacks", *_KINDS):
        callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
    with as_config_error("logger", *_KINDS):
        loggers: list[Logger] = [instantiate(logger) for logger in cfg.logger.values() if logger]
    with as_config_error("trainer", *_KINDS):
        trainer: L.Trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers or False)
    return trainer


def _check_loss_is_built(cfg: DictConfig) -> None:
    """A function of logits and target is no loss until a class names its options."""
    loss = locate("loss._target_", str(cfg.loss.get("_target_")))
    if not inspect.isfunction(loss) or cfg.loss.get("_partial_"):
        return
    lacking = [n for n, p in inspect.signature(loss).parameters.items() if p.default is p.empty and n not in cfg.loss]
    if lacking:
        raise ConfigError(
            f"loss._target_ must be a class, got the function {cfg.loss._target_}, which needs {', '.join(lacking)}. "
            "Make one of it: class Mine(ls.losses.FunctionLoss), whose __init__(self, eps) calls "
            f"super().__init__({loss.__name__}, eps)."
        )


def _check_devices(cfg: DictConfig) -> None:
    accelerator, devices = cfg.trainer.get("accelerator"), cfg.trainer.get("devices")
    gpus = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not gpus and not torch.backends.mps.is_available():
        raise ConfigError("trainer.accelerator=gpu needs a GPU, and this machine has none. Use trainer=cpu.")
    cores = os.cpu_count() or 1
    most = 4 * cores if accelerator == "cpu" or not gpus else gpus
    if isinstance(devices, int) and devices > most:
        found = f"{gpus} GPUs" if most == gpus else f"{cores} cores, enough for {most} processes"
        raise ConfigError(f"trainer.devices must be at most what this machine has, {found}, got {devices}.")


def _facts(data: L.LightningDataModule) -> dict[str, Any]:
    """What a network has to know of the data."""
    num_classes = getattr(data, "num_classes", None)
    if num_classes is None:
        raise ConfigError(
            f"{type(data).__name__} must have num_classes after setup('fit'), so that the model's output fits; "
            "set it there, or use a LightningModule of your own."
        )
    task = getattr(data, "task", "multiclass")
    facts = {"task": task, "num_classes": num_classes, "num_outputs": 1 if task == "binary" else num_classes}
    more = {name: getattr(data, name) for name in ("input_shape", "num_tokens") if hasattr(data, name)}
    return {**facts, **more}


def _ignore_index(cfg: DictConfig, data: L.LightningDataModule) -> int | None:
    """What stands where there is no label: the data say it, or else ``loss.ignore_index``; in all stages alike."""
    of_data: int | None = getattr(data, "ignore_index", None)
    of_loss: int | None = cfg.loss.get("ignore_index", _UNSET)
    if of_loss in (_UNSET, of_data):
        return of_data
    if of_data is not None:
        raise ConfigError(f"loss.ignore_index must be {of_data}, as the data has it, got {of_loss}.")
    return of_loss


def _check_loss(cfg: DictConfig, task: str) -> None:
    binary = cfg.loss.get("_target_") == "ls_lightning.losses.SmoothedBCEWithLogits"
    if str(cfg.loss.get("_target_")).startswith("ls_lightning.") and binary != (task != "multiclass"):
        raise ConfigError(
            f"the task of the data is {task}, got the loss {cfg.loss._target_.rpartition('.')[2]}, which is for "
            f"another. Use loss={'ce' if binary else 'bce'}."
        )
