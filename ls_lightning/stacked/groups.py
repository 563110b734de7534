"""Which jobs of a sweep are trained as one batched model, and why the others are not. Needs no torch."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ls_lightning.autoload import VARIABLES

_NETWORKS = ("Linear", "MLP")
_CONVOLUTIONS = ("CNN", "ResNet")
_IN_MEMORY = ("DigitsData", "BreastCancerData", "NpzData")
_ELEMENTWISE = ("Adagrad", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD")
_WITH_STATE = {"OnlineLabelSmoothing": "learns its target from epoch to epoch"}
_PRECISIONS = (None, "32", "32-true", "64", "64-true")

# What may be set, and to what; None stands for any value. The callbacks and the logger of the default configuration.
_TRAINER: dict[str, Any] = {
    "_target_": ("lightning.Trainer",), "accelerator": ("auto", "cpu"), "devices": (1,), "num_nodes": (1,),
    "strategy": ("auto",), "precision": _PRECISIONS, "max_epochs": None, "max_steps": (-1,), "max_time": (None,),
    "accumulate_grad_batches": (1,), "gradient_clip_val": None, "gradient_clip_algorithm": (None, "norm", "value"),
    "limit_train_batches": (None,),
    "limit_val_batches": (None,), "limit_test_batches": (None,), "check_val_every_n_epoch": (1,),
    "log_every_n_steps": None, "num_sanity_val_steps": (0,), "deterministic": None, "benchmark": None,
    "enable_progress_bar": None, "enable_model_summary": (False,), "default_root_dir": None,
}  # fmt: skip
_ON_GPU = {"accelerator": ("auto", "gpu", "cuda")}
_CALLBACKS: dict[str, dict[str, Any]] = {
    "train_loss": {"_target_": ("ls_lightning.callbacks.train_loss.TrainLoss",), "accuracy": None},
    "label_smoothing": {
        "_target_": ("ls_lightning.LabelSmoothing",), "loss": None, "schedule": None, "target": ("auto",),
        "total_steps": None, "interval": None,
    },
    "calibration_monitor": {
        "_target_": ("ls_lightning.CalibrationMonitor",), "metrics": None, "target": ("auto",), "train": (False,),
    },
    "temperature_scaling": {"_target_": ("ls_lightning.TemperatureScaling",), "bounds": None},
    "checkpoint": {
        "_target_": ("lightning.pytorch.callbacks.ModelCheckpoint",), "dirpath": None, "filename": ("last",),
        "save_top_k": (1,), "save_on_exception": (True,), "enable_version_counter": (False,),
    },
    "out_of_scope": {"_target_": ("ls_lightning.OutOfScope",)},
    "pictures": {"_target_": ("ls_lightning.callbacks.pictures.Pictures",), "folder": None},
}  # fmt: skip
_OPTIONAL = ("out_of_scope", "pictures")
_LOGGERS = {"csv": {"_target_": ("ls_lightning.loggers.CSVHistory",), "save_dir": None}}


@dataclass(frozen=True)
class Candidate:
    """A job that might be stacked.

    Args:
        config: as :func:`ls_lightning.config.settle` returns it, as plain values.
        folder: of the job, which its configuration names in some places.
        gpu: whether it is trained on one, and that is no reason to be alone.
    """

    config: dict[str, Any]
    folder: Path
    gpu: bool = False


def plan(candidates: Sequence[Candidate]) -> tuple[list[list[int]], dict[int, str]]:
    """Sort jobs into stacks.

    Returns:
        The stacks, each of the numbers of two candidates or more; and for every other candidate why it is alone.
    """
    alone: dict[int, str] = {}
    stacks: dict[str, list[int]] = {}
    for k, candidate in enumerate(candidates):
        reason = why_alone(candidate.config, candidate.gpu)
        if reason is not None:
            alone[k] = reason
        else:
            stacks.setdefault(_shape(candidate), []).append(k)
    for members in stacks.values():
        if len(members) == 1:
            alone[members[0]] = "no other job differs from it only in eps, loss, schedule, seed or learning rate"
    return [members for members in stacks.values() if len(members) > 1], alone


def why_alone(config: dict[str, Any], gpu: bool = False) -> str | None:
    """What keeps a job from being stacked with any other, on a CPU or on a GPU; None if nothing does."""
    checks = (_environment, partial(_model, gpu=gpu), _data, _loss, _optimizer, partial(_run, gpu=gpu))
    return next((reason for check in checks if (reason := check(config)) is not None), None)


def _environment(config: dict[str, Any]) -> str | None:
    given = [name for name in VARIABLES if os.environ.get(name)]
    return f"{given[0]} is set" if given else None


def _model(config: dict[str, Any], gpu: bool) -> str | None:
    name = _own(config["model"], "ls_lightning.zoo.models.")
    if name in _CONVOLUTIONS and not gpu:
        return f"model {name}: convolutions gain nothing from it on a CPU"
    if name not in _NETWORKS + _CONVOLUTIONS:
        return f"the model {config['model'].get('_target_')} has no stacked form"
    return None


def _data(config: dict[str, Any]) -> str | None:
    if _own(config["data"], "ls_lightning.zoo.") not in _IN_MEMORY:
        return f"the data {config['data'].get('_target_')} is not held in memory by this package"
    if config["data"].get("num_workers"):
        return "data.num_workers is above 0"
    if config["data"].get("ignore_index") is not None:
        return "data.ignore_index is set"
    return None


def _loss(config: dict[str, Any]) -> str | None:
    loss, schedule = config["loss"], config["schedule"]
    name = _own(loss, "ls_lightning.losses.")
    if name is None:
        return f"the loss {loss.get('_target_')} is not one of this package's"
    if name in _WITH_STATE:
        return f"loss {name} {_WITH_STATE[name]}"
    for key, usual in (("ignore_index", -100), ("input", "logits")):
        if loss.get(key, usual) != usual:
            return f"loss.{key} is set"
    if loss.get("reduction", "mean") not in ("mean", "sum", "batchmean"):
        return f"loss.reduction is {loss['reduction']}"
    if _own(schedule, "ls_lightning.schedules.") is None:
        return f"the schedule {schedule.get('_target_')} is not one of this package's"
    return "schedule=feedback follows the job's own validation" if _own(schedule, "") == "Feedback" else None


def _optimizer(config: dict[str, Any]) -> str | None:
    target = str(config["optimizer"].get("_target_"))
    if target.startswith("torch.optim.") and target.rpartition(".")[2] in _ELEMENTWISE:
        return None
    return f"the optimizer {target} is not known to treat every number by itself"


def _run(config: dict[str, Any], gpu: bool) -> str | None:
    if config["ckpt_path"] is not None or config["evaluate"] != "last":
        return "ckpt_path or evaluate is set"
    trainer = _differs(config["trainer"], _TRAINER | (_ON_GPU if gpu else {}))
    if trainer is not None:
        return f"trainer.{trainer} is set"
    for group, known in (("callbacks", _CALLBACKS), ("logger", _LOGGERS)):
        found = {name: options for name, options in config[group].items() if options}
        for name in found.keys() ^ known.keys():
            if name not in _OPTIONAL:
                return f"{group}.{name} is {'added' if name in found else 'left away'}"
        for name, options in found.items():
            key = _differs(options, known[name])
            if key is not None:
                return f"{group}.{name}.{key} is set"
    return None


def _differs(options: dict[str, Any], known: dict[str, Any]) -> str | None:
    """The first key whose value is not a known one."""
    for key, value in options.items():
        if key not in known or (known[key] is not None and value not in known[key]):
            return key
    return None


def _own(group: dict[str, Any], package: str) -> str | None:
    """The class that a group names, if it is of this package."""
    target = str(group.get("_target_"))
    return target.rpartition(".")[2] if target.startswith(package) else None


def _shape(candidate: Candidate) -> str:
    """All that members of a stack have in common."""
    config = copy.deepcopy(candidate.config)
    for key in ("eps", "seed", "name", "loss", "schedule"):
        del config[key]
    for key in ("lr", "weight_decay"):
        config["optimizer"].pop(key, None)
    for key in ("loss", "schedule"):
        del config["callbacks"]["label_smoothing"][key]
    return json.dumps(config, sort_keys=True, default=str).replace(json.dumps(str(candidate.folder))[1:-1], "")
