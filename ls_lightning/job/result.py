"""What ``result.json`` says of a job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.confidence_levels import confidence_levels
from ls_lightning.callbacks.label_smoothing import LabelSmoothing
from ls_lightning.callbacks.out_of_scope import OutOfScope
from ls_lightning.callbacks.stage_metrics import Measured
from ls_lightning.callbacks.temperature_scaling import TemperatureScaling
from ls_lightning.functional.measures import ReliabilityBins
from ls_lightning.functional.risk import RiskCoverage, sampled_curve
from ls_lightning.schedules.checks import name_of
from ls_lightning.sweep.folder import job_digest
from ls_lightning.sweep.provenance import git_revision, versions


def job_result(
    trainer: L.Trainer,
    data: L.LightningDataModule,
    config: dict[str, Any],
    folder: Path,
    choices: dict[str, str],
    started: float,
    seconds: float,
) -> dict[str, Any]:
    """What ``result.json`` says of a job, once the callbacks of its Trainer have measured it.

    Args:
        trainer: at the end of the job.
        data: what it was trained on.
        config: as it was trained, as plain values.
        folder: as of :func:`run_job`.
        choices: the same.
        started: when, by ``time.time``.
        seconds: how long it took.
    """
    return {
        "status": "complete",
        "name": config["name"] or folder.name,
        **_smoothing(trainer, config, choices),
        "seed": config["seed"],
        "model": _chosen("model", config, choices),
        "data": _chosen("data", config, choices),
        "label_noise": getattr(data, "measured_noise", None),
        "digest": job_digest(config),
        **_found(trainer),
        **_bayes(trainer, data),
        "steps": trainer.global_step,
        "devices": trainer.world_size,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "duration_s": round(seconds, 3),
        "versions": versions(),
        "git": git_revision(),
    }


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


def _smoothing(trainer: L.Trainer, config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    callback = first_of(trainer, LabelSmoothing)
    if callback is None:
        return {"eps": 0.0, "loss": "none", "schedule": None}
    found = {"eps": config["eps"], "loss": _chosen("loss", config, choices), "schedule": name_of(callback.schedule)}
    loop = callback.feedback
    if loop is None:
        return found
    return {**found, "feedback": {"eps": loop.eps, "gap": loop.gap, "gain": loop.gain, "updates": loop.updates}}


def _chosen(group: str, config: dict[str, Any], choices: dict[str, str]) -> str:
    """The option of a config group, or the user's own class."""
    target = str(config[group]["_target_"])
    return choices.get(group, target) if target.startswith("ls_lightning.") else target
