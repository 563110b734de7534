"""The course of one job."""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from ls_lightning.assemble import build_data, build_model, build_trainer, without_unused
from ls_lightning.callbacks.agreement import RanksAgree
from ls_lightning.callbacks.elapsed import Elapsed
from ls_lightning.callbacks.idle_hooks import skip_idle_hooks
from ls_lightning.callbacks.resume_point import ResumePoint
from ls_lightning.callbacks.seeded_steps import SeededSteps
from ls_lightning.cluster import check_processes
from ls_lightning.config import check_targets
from ls_lightning.errors import ConfigError, as_config_error, one_line
from ls_lightning.job.logged import add_logged, logged_metrics
from ls_lightning.job.result import job_result
from ls_lightning.sweep.find import OVERRIDES
from ls_lightning.sweep.folder import Claim, check_folder, checkpoint_of, decisive
from ls_lightning.sweep.results import write_result
from ls_lightning.wandb_logger import keep_job

_PACKAGE = str(Path(__file__).parent.parent)


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
    check_targets(cfg)
    cfg = without_unused(cfg)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    ckpt_path = checkpoint_of(folder, cfg.ckpt_path)
    if ckpt_path is None or _is_rank_zero():  # a rank that went on alone would wait for the others
        check_folder(folder, config, ckpt_path)
    quieten()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_data(cfg)
    model = build_model(cfg, data)
    trainer = build_trainer(cfg)
    check_processes(trainer)
    elapsed = Elapsed(since=started)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [ResumePoint(), *callbacks, RanksAgree(decisive(config)), SeededSteps(cfg.seed), elapsed]
    claim = Claim(folder, config, new=ckpt_path is None) if trainer.is_global_zero else None
    try:
        with as_config_error("logger", Exception):  # wandb begins its run here
            for logger in trainer.loggers:
                logger.log_hyperparams(config)
        _fit(trainer, model, data, ckpt_path)
        logged = _measure(trainer, model, data, cfg.evaluate)
    except BaseException as error:
        _close_wandb(trainer, exit_code=1)
        if claim is not None:
            claim.take_back() if isinstance(error, ConfigError) else claim.close()
        if isinstance(error, SystemExit) and trainer.interrupted:  # Lightning saved a checkpoint and exits
            raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}") from error
        raise
    result = job_result(trainer, data, config, folder, choices, started, elapsed.seconds)
    add_logged(result["metrics"], logged)
    if overrides and not (folder / OVERRIDES).exists():  # which a sweep writes
        result["overrides"] = list(overrides)
    if claim is not None:
        for logger in _wandb_loggers(trainer):
            keep_job(logger, folder, result)
        _close_wandb(trainer, exit_code=0)
        write_result(folder, result)
        claim.close()
    return result


def _is_rank_zero() -> bool:
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def quieten() -> None:
    """Leave away what Lightning says to everybody: the table at the end is what this program has to say."""
    for package in ("lightning.pytorch", "pytorch_lightning"):  # a user's module may import either
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # says what it raises as well
    of_every_job = (".*LeafSpec.*is deprecated", ".*does not have many workers", ".*logging interval")
    for message in (*of_every_job, "Checkpoint directory .* exists and is not empty"):  # that of a resumed job
        warnings.filterwarnings("ignore", message=message)
    # CalibrationMonitor does not count the samples that this warns of.
    warnings.filterwarnings("ignore", message="Using `DistributedSampler` with the dataloaders")


def _fit(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, ckpt_path: Path | None) -> None:
    began: list[int] = []
    trainer.callbacks.append(LambdaCallback(on_train_start=lambda *_: began.append(1)))  # type: ignore[attr-defined]
    skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
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
    if not began and ckpt_path is not None:
        rank_zero_warn(
            f"nothing was left to train: {ckpt_path} has {trainer.current_epoch} epochs ({trainer.global_step} steps) "
            f"behind it, and trainer.max_epochs={trainer.max_epochs}. It is measured again."
        )


def _raised_by_us(error: BaseException) -> bool:
    """Our own checks speak for themselves; an error out of the user's code needs its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _measure(
    trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, evaluate: str
) -> dict[str, dict[str, float]]:
    """Validate and test the final (or best) weights. Returns what was logged."""
    best = [c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    options: dict[str, Any] = {"ckpt_path": best[0] if evaluate == "best" else None, "verbose": False}
    logged: dict[str, dict[str, float]] = {}
    for stage, step, measure in (("val", "validation_step", trainer.validate), ("test", "test_step", trainer.test)):
        if is_overridden(step, model) and is_overridden(f"{stage}_dataloader", data, L.LightningDataModule):
            measure(model, datamodule=data, weights_only=False, **options)
            logged |= logged_metrics(trainer, model, stage)
    return logged


def _wandb_loggers(trainer: L.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _close_wandb(trainer: L.Trainer, exit_code: int) -> None:
    """Or all jobs of a process would land in one run."""
    if trainer.is_global_zero and _wandb_loggers(trainer):
        import wandb

        wandb.finish(exit_code=exit_code)
