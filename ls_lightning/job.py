"""One job: fit, measure, write the result."""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf

from ls_lightning.assemble import build_data, build_model, build_trainer
from ls_lightning.callbacks.agreement import RanksAgree
from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.confidence_levels import confidence_levels
from ls_lightning.callbacks.elapsed import Elapsed
from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.out_of_scope import OutOfScope
from ls_lightning.callbacks.seeded_steps import SeededSteps
from ls_lightning.callbacks.stage_metrics import Measured
from ls_lightning.callbacks.temperature_scaling import TemperatureScaling
from ls_lightning.cluster import check_processes
from ls_lightning.config import check_targets
from ls_lightning.errors import ConfigError, as_config_error, one_line
from ls_lightning.functional.measures import ReliabilityBins
from ls_lightning.functional.risk import RiskCoverage, sampled_curve
from ls_lightning.schedules.checks import name_of
from ls_lightning.sweep.find import OVERRIDES
from ls_lightning.sweep.folder import Claim, check_folder, checkpoint_of, decisive, job_digest
from ls_lightning.sweep.provenance import git_revision, versions
from ls_lightning.sweep.results import write_result
from ls_lightning.wandb_logger import keep_job

_PACKAGE = str(Path(__file__).parent)


def run_job(cfg: DictConfig, folder: Path, choices: dict[str, str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train and measure one configuration; leave its folder complete.

    Args:
        cfg: as :func:`ls_lightning.config.settle` returns it.
        folder: the job's folder; ``result.json`` is written to it last.
        choices: the option chosen in each config group, e.g. ``{"loss": "kl"}``.
        overrides: what was typed, for the commands of a report.

    Returns:
        The result, as in ``result.json``.

    Raises:
        ConfigError: the configuration does not fit together; nothing was trained.
        KeyboardInterrupt: training was interrupted; ``checkpoints/last.ckpt`` is there to resume from.
    """
    started = time.time()
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    ckpt_path = checkpoint_of(folder, cfg.ckpt_path)
    if ckpt_path is None or _is_rank_zero():  # a rank that went on alone would wait for the others
        check_folder(folder, config, ckpt_path)
    _quieten()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    check_targets(cfg)
    data = build_data(cfg)
    model = build_model(cfg, data)
    trainer = build_trainer(cfg)
    check_processes(trainer)
    elapsed = Elapsed(since=started)
    ours = [RanksAgree(decisive(config)), SeededSteps(cfg.seed), elapsed]
    trainer.callbacks.extend(ours)  # type: ignore[attr-defined]
    claim = Claim(folder, config) if trainer.is_global_zero else None
    try:
        with as_config_error("logger", Exception):  # wandb begins its run here
            for logger in trainer.loggers:
                logger.log_hyperparams(config)
        _fit(trainer, model, data, ckpt_path)
        _measure(trainer, model, data, cfg.evaluate)
    except BaseException as error:
        _close_wandb(trainer, exit_code=1)
        if claim is not None:
            claim.take_back() if isinstance(error, ConfigError) else claim.close()
        if isinstance(error, SystemExit) and trainer.interrupted:  # Lightning saved a checkpoint and exits
            raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}") from error
        raise
    result = job_result(trainer, data, cfg, folder, choices, started, elapsed.seconds)
    if overrides and not (folder / OVERRIDES).exists():  # which a sweep writes
        result["overrides"] = list(overrides)
    if claim is not None:
        for logger in _wandb_loggers(trainer):
            keep_job(logger, folder, result)
        _close_wandb(trainer, exit_code=0)
        write_result(folder, result)
        claim.close()
    return result


def job_result(
    trainer: L.Trainer,
    data: L.LightningDataModule,
    cfg: DictConfig,
    folder: Path,
    choices: dict[str, str],
    started: float,
    seconds: float,
) -> dict[str, Any]:
    """What ``result.json`` says of a job, once the callbacks of its Trainer have measured it.

    Args:
        trainer: at the end of the job.
        data: what it was trained on.
        cfg: as of :func:`run_job`.
        folder: the same.
        choices: the same.
        started: when, by ``time.time``.
        seconds: how long it took.
    """
    return {
        "status": "complete",
        "name": cfg.name or folder.name,
        **_smoothing(trainer, cfg, choices),
        "seed": cfg.seed,
        "model": _chosen("model", cfg, choices),
        "data": _chosen("data", cfg, choices),
        "label_noise": getattr(data, "measured_noise", None),
        "digest": job_digest(OmegaConf.to_container(cfg, resolve=True)),  # type: ignore[arg-type]
        **_found(trainer),
        **_bayes(trainer, data),
        "steps": trainer.global_step,
        "devices": trainer.world_size,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "duration_s": round(seconds, 3),
        "versions": versions(),
        "git": git_revision(),
    }


def _is_rank_zero() -> bool:
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def _quieten() -> None:
    """Leave away what Lightning says to everybody: the table at the end is what this program has to say."""
    for package in ("lightning.pytorch", "pytorch_lightning"):  # a user's module may import either
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # says what it raises as well
    for message in (".*LeafSpec.*is deprecated", ".*does not have many workers", ".*logging interval"):
        warnings.filterwarnings("ignore", message=message)
    # CalibrationMonitor does not count the samples that this warns of.
    warnings.filterwarnings("ignore", message="Using `DistributedSampler` with the dataloaders")


def _fit(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, ckpt_path: Path | None) -> None:
    try:
        # The checkpoint is the user's own: it holds the state of optimizers and callbacks, not weights alone.
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    except MisconfigurationException as error:
        raise ConfigError(one_line(error)) from error
    except Exception as error:
        if _raised_by_us(error) and (trainer.global_step <= 1 or ckpt_path is not None):
            raise ConfigError(one_line(error)) from error
        if ckpt_path is not None and trainer.global_step == 0:
            raise ConfigError(f"{ckpt_path} does not fit this job: {one_line(error)[:200]}") from error
        raise
    if trainer.max_epochs is not None and trainer.current_epoch > trainer.max_epochs > 0:
        raise ConfigError(
            f"trainer.max_epochs must be at least the {trainer.current_epoch} epochs that {ckpt_path} has behind it, "
            f"got {trainer.max_epochs}."
        )


def _raised_by_us(error: BaseException) -> bool:
    """Our own checks speak for themselves; an error out of the user's code needs its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _measure(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, evaluate: str) -> None:
    """Validate and test the final (or best) weights."""
    best = [c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    ckpt_path = best[0] if evaluate == "best" else None
    if is_overridden("validation_step", model) and is_overridden("val_dataloader", data, L.LightningDataModule):
        trainer.validate(model, datamodule=data, ckpt_path=ckpt_path, verbose=False, weights_only=False)
    if is_overridden("test_step", model) and is_overridden("test_dataloader", data, L.LightningDataModule):
        trainer.test(model, datamodule=data, ckpt_path=ckpt_path, verbose=False, weights_only=False)


def _found(trainer: L.Trainer) -> dict[str, Any]:
    """Validation and test metrics as CalibrationMonitor saw them."""
    monitor, scaling = first_of(trainer, CalibrationMonitor), first_of(trainer, TemperatureScaling)
    plain = {} if monitor is None else monitor.measured
    found = _measured(plain)
    if scaling is not None:
        temperature = scaling.summary()
        found["temperature"] = temperature and {**temperature, **_measured(scaling.measured)}
    unknown = first_of(trainer, OutOfScope)
    for stage, values in ({} if unknown is None else unknown.results).items():
        home = found["temperature"] if "_scaled" in stage else found
        home["metrics"].setdefault(stage.replace("_scaled", ""), {}).update(values)
    return found


def _measured(found: dict[str, Measured]) -> dict[str, Any]:
    """Of each stage the metrics, and the reliability diagram and the risk-coverage curve as lists."""
    levels = {stage: confidence_levels(one) for stage, one in found.items()}
    bins = {stage: one.reliability for stage, one in found.items()}
    return {
        "metrics": {stage: dict(one.values) for stage, one in found.items()},
        "reliability": {stage: _lists(one) for stage, one in bins.items() if one is not None},
        "risk_coverage": {stage: _lists(sampled_curve(one)) for stage, one in levels.items() if one is not None},
    }


def _bayes(trainer: L.Trainer, data: Any) -> dict[str, Any]:
    """What the true probabilities score on test, where generated data know them."""
    monitor = first_of(trainer, CalibrationMonitor)
    if monitor is None or "test" not in monitor.measured or not hasattr(data, "log_posterior"):
        return {}
    metrics = monitor.build(task=data.task, num_classes=data.num_classes, ignore_index=data.ignore_index)
    metrics.update(data.log_posterior(), data.test_set.target)
    return {"bayes": {"test": {name: value.item() for name, value in metrics.compute().items()}}}


def _lists(columns: ReliabilityBins | RiskCoverage) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in columns._asdict().items()}


def _smoothing(trainer: L.Trainer, cfg: DictConfig, choices: dict[str, str]) -> dict[str, Any]:
    callback = first_of(trainer, LabelSmoothing)
    if callback is None:
        return {"eps": 0.0, "loss": "none", "schedule": None}
    found = {"eps": cfg.eps, "loss": _chosen("loss", cfg, choices), "schedule": name_of(callback.schedule)}
    loop = callback.feedback
    if loop is None:
        return found
    return {**found, "feedback": {"eps": loop.eps, "gap": loop.gap, "gain": loop.gain, "updates": loop.updates}}


def _chosen(group: str, cfg: DictConfig, choices: dict[str, str]) -> str:
    """The option of a config group, or the user's own class."""
    target = str(cfg[group]._target_)
    return choices.get(group, target) if target.startswith("ls_lightning.") else target


def _wandb_loggers(trainer: L.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _close_wandb(trainer: L.Trainer, exit_code: int) -> None:
    """Or all jobs of a process would land in one run."""
    if trainer.is_global_zero and _wandb_loggers(trainer):
        import wandb

        wandb.finish(exit_code=exit_code)
