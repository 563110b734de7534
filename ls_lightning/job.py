"""One job: build the objects that the configuration names, fit, measure, write the result."""

from __future__ import annotations

import inspect
import logging
import platform
import subprocess
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.config import ConfigError
from ls_lightning.sweep.results import RESULT, config_digest, read_result, write_result, write_text
from ls_lightning.zoo.classifier import Classifier

_TRAINED = ("eps", "seed", "loss", "schedule", "model", "optimizer", "data")
_PACKAGE = str(Path(__file__).parent)


def run_job(cfg: DictConfig, folder: Path, choices: dict[str, str]) -> dict[str, Any]:
    """Train and measure one configuration; leave its folder complete.

    Args:
        cfg: as :func:`ls_lightning.config.settle` returns it.
        folder: the job's folder; ``result.json`` is written to it last.
        choices: the option chosen in each config group, e.g. ``{"loss": "kl"}``.

    Returns:
        The result, as in ``result.json``.

    Raises:
        ConfigError: the configuration does not fit together; nothing was trained.
        KeyboardInterrupt: training was interrupted; ``checkpoints/last.ckpt`` is there to resume from.
    """
    started = time.time()
    _quieten()
    ckpt_path = _check_folder(cfg, folder)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    with _one_line("data"):
        data: L.LightningDataModule = instantiate(cfg.data)
        if not isinstance(data, L.LightningDataModule):
            raise ConfigError(f"data._target_ must be a LightningDataModule, got {cfg.data._target_}.")
    model = _build_model(cfg, data)
    with _one_line("callbacks"):
        callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
    with _one_line("logger"):
        loggers = [instantiate(logger) for logger in cfg.logger.values() if logger]
    with _one_line("trainer"):
        trainer: L.Trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers or False)
    if trainer.is_global_zero:
        _claim_folder(cfg, folder)
    try:
        for logger in loggers:
            logger.log_hyperparams(_plain(cfg))
        _fit(trainer, model, data, ckpt_path)
        metrics, reliability = _measure(trainer, model, data, cfg.evaluate)
    except ConfigError:
        if trainer.is_global_zero and ckpt_path is None:  # nothing was trained
            for name in ("config.yaml", "metrics.csv"):
                (folder / name).unlink(missing_ok=True)
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                logger.experiment.finish()
    result = {
        "status": "complete",
        "name": cfg.name or folder.name,
        **_smoothing(trainer, cfg, choices),
        "seed": cfg.seed,
        "model": choices.get("model"),
        "data": choices.get("data"),
        "digest": _digest(cfg),
        "metrics": metrics,
        "reliability": reliability,
        "steps": trainer.global_step,
        "devices": trainer.world_size,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "duration_s": round(time.time() - started, 3),
        "versions": _versions(),
        "git": _git_revision(),
    }
    if trainer.is_global_zero:
        write_result(folder, result)
    return result


def _quieten() -> None:
    """Leave away what Lightning says to everybody: the table at the end is what this program has to say."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*LeafSpec.*is deprecated", ".*does not have many workers", ".*logging interval"):
        warnings.filterwarnings("ignore", message=message)


def _check_folder(cfg: DictConfig, folder: Path) -> str | None:
    """Refuse to overwrite another job; return the checkpoint to resume from."""
    ckpt_path: str | None = cfg.ckpt_path
    if ckpt_path == "last":
        ckpt_path = str(folder / "checkpoints" / "last.ckpt")
        if not Path(ckpt_path).is_file():
            raise ConfigError(
                f"ckpt_path=last needs {ckpt_path}, which is not there. Name the job's folder: hydra.run.dir=<folder>."
            )
    stored = folder / "config.yaml"
    if rank_zero_only.rank != 0 or not stored.exists():
        return ckpt_path
    if ckpt_path is None and (read_result(folder) or (folder / "checkpoints").exists()):
        raise ConfigError(f"{folder} holds a job already. Resume it with ckpt_path=last, or choose another hydra.run.dir.")
    before = OmegaConf.load(stored)
    for key in _TRAINED:
        if ckpt_path is not None and before.get(key) != cfg.get(key):
            raise ConfigError(
                f"{folder} was trained with another {key} ({before.get(key)}, got {cfg.get(key)}). Resume with the same "
                "overrides, or choose another hydra.run.dir."
            )
    return ckpt_path


def _claim_folder(cfg: DictConfig, folder: Path) -> None:
    """From here on the folder holds this job, unfinished until ``result.json`` is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))


def _build_model(cfg: DictConfig, data: L.LightningDataModule) -> L.LightningModule:
    """A LightningModule as it is; any other network in our classifier, shaped by the data."""
    with _one_line("model"):
        cls = get_class(cfg.model._target_)
        if not issubclass(cls, nn.Module):
            raise ConfigError(f"model._target_ must be a LightningModule or nn.Module, got {cfg.model._target_}.")
        if issubclass(cls, L.LightningModule):
            _refuse_optimizer(cfg, cls)
            own: L.LightningModule = instantiate(cfg.model)
            return own
    with _one_line("data"):
        data.prepare_data()
        data.setup("fit")
        facts = _facts(data)
    with _one_line("model"):
        accepted = inspect.signature(cls).parameters
        known = {name: value for name, value in facts.items() if name in accepted}
        for name in known.keys() & cfg.model.keys():
            if cfg.model[name] != known[name]:
                raise ConfigError(f"model.{name} must be {known[name]}, as the data has it, got {cfg.model[name]}.")
        network = instantiate(cfg.model, _partial_=True)(**known)
        return Classifier(network, task=facts["task"], optimizer=instantiate(cfg.optimizer, _partial_=True))


def _facts(data: L.LightningDataModule) -> dict[str, Any]:
    task = getattr(data, "task", "multiclass")
    num_classes = getattr(data, "num_classes", None)
    if num_classes is None:
        raise ConfigError(
            f"{type(data).__name__} must have num_classes after setup('fit'), so that the model's output fits; "
            "set it there, or use a LightningModule of your own."
        )
    facts = {"task": task, "num_classes": num_classes, "num_outputs": 1 if task == "binary" else num_classes}
    return {**facts, "input_shape": data.input_shape} if hasattr(data, "input_shape") else facts


def _refuse_optimizer(cfg: DictConfig, cls: type) -> None:
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    if any(override.lstrip("+~").startswith("optimizer") for override in typed):
        raise ConfigError(
            f"{cls.__name__} is a LightningModule with configure_optimizers of its own, so optimizer would be ignored. "
            "Leave it away."
        )


def _fit(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, ckpt_path: str | None) -> None:
    try:
        # The checkpoint is the user's own: it holds the state of optimizers and callbacks, not weights alone.
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}") from error
        raise
    except MisconfigurationException as error:
        raise ConfigError(_first_line(error)) from error
    except (ValueError, TypeError, LookupError, ImportError) as error:
        if _raised_by_us(error) and (trainer.global_step == 0 or ckpt_path is not None):
            raise ConfigError(_first_line(error)) from error
        raise


def _measure(
    trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, evaluate: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Validation and test metrics of the final (or best) weights, as CalibrationMonitor saw them."""
    ckpt_path = "best" if evaluate == "best" else None
    if is_overridden("validation_step", model) and is_overridden("val_dataloader", data, L.LightningDataModule):
        trainer.validate(model, datamodule=data, ckpt_path=ckpt_path, verbose=False, weights_only=False)
    if is_overridden("test_step", model) and is_overridden("test_dataloader", data, L.LightningDataModule):
        trainer.test(model, datamodule=data, ckpt_path=ckpt_path, verbose=False, weights_only=False)
    monitors = [callback for callback in trainer.callbacks if isinstance(callback, CalibrationMonitor)]
    return (monitors[0].results, _bins(monitors[0])) if monitors else ({}, {})


def _bins(monitor: CalibrationMonitor) -> dict[str, dict[str, list[float]]]:
    return {
        stage: {name: column.tolist() for name, column in bins._asdict().items()}
        for stage, bins in monitor.reliability.items()
    }


def _smoothing(trainer: L.Trainer, cfg: DictConfig, choices: dict[str, str]) -> dict[str, Any]:
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, LabelSmoothing)]
    if not callbacks:
        return {"eps": 0.0, "loss": "none", "schedule": None}
    own = str(cfg.loss.get("_target_")).startswith("ls_lightning.")
    return {
        "eps": cfg.eps,
        "loss": choices.get("loss") if own else cfg.loss._target_,
        "schedule": repr(callbacks[0].schedule),
    }


@contextmanager
def _one_line(group: str) -> Iterator[None]:
    """Whatever goes wrong while a group's object is built is a mistake in its configuration."""
    try:
        yield
    except ConfigError:
        raise
    except InstantiationException as error:
        raise ConfigError(f"{group}: {_first_line(error.__cause__ or error)}") from error
    except (ValueError, TypeError, LookupError, OSError, ImportError, MisconfigurationException) as error:
        raise ConfigError(f"{group}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def _raised_by_us(error: BaseException) -> bool:
    """Our own checks speak for themselves; an error out of the user's code needs its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    config = OmegaConf.to_container(cfg, resolve=True)
    return {str(key): value for key, value in config.items()} if isinstance(config, dict) else {}


def _digest(cfg: DictConfig) -> str:
    """Of everything that decides the numbers."""
    config = _plain(cfg)
    config["trainer"].pop("default_root_dir", None)
    return config_digest({key: config[key] for key in (*_TRAINED, "trainer")})


def _versions() -> dict[str, str]:
    names = ("ls-lightning", "torch", "lightning", "torchmetrics", "hydra-core", "omegaconf")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _git_revision() -> dict[str, Any] | None:
    """Commit of the project in the working directory, and whether it had uncommitted changes."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
