"""The command line's configuration: its schema, its rules, and one clear line for every mistake.

Imports neither torch nor lightning: a wrong value is answered before they are loaded.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ls_lightning.errors import ConfigError, one_line
from ls_lightning.schedules import Feedback, Schedule, peak
from ls_lightning.schedules.checks import name_of


@dataclass
class JobSchema:
    """The scalars at the top level are typed; the groups stay open for classes of the user's own."""

    eps: float = MISSING
    seed: int = 0
    name: str | None = None
    ckpt_path: str | None = None
    evaluate: str = "last"
    loss: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_schema() -> None:
    """Let ``defaults: [job_schema]`` find the schema."""
    ConfigStore.instance().store(name="job_schema", node=JobSchema)


def settle(cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any] | None = None) -> DictConfig:
    """The configuration as it will run: own classes without our options, ``eps`` filled in, interpolations resolved.

    Args:
        cfg: as Hydra composed it.
        overrides: what the user typed, e.g. ``["model._target_=my.Net", "+model.width=3"]``.
        choices: the option of each group, e.g. ``{"data": "digits"}``.

    Raises:
        ConfigError: a value is out of range, contradicts another, or names something that is not there.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    for group in ("model", "data", "loss", "schedule"):
        _keep_own_keys(cfg, group, overrides)
        _refuse_mixture(cfg, group, overrides, (choices or {}).get(group))
    negative = cfg.loss.get("_target_") == _NEGATIVE
    check_eps("eps", None if OmegaConf.is_missing(cfg, "eps") else cfg.eps, negative)
    if "eps" in cfg.loss:
        check_eps("loss.eps", cfg.loss.eps, negative)
        if OmegaConf.is_missing(cfg, "eps"):
            cfg.eps = cfg.loss.eps
        elif cfg.eps != cfg.loss.eps:
            raise ConfigError(f"eps and loss.eps are one number, got eps={cfg.eps} and loss.eps={cfg.loss.eps}.")
    if negative:
        _warm_up(cfg)
    _leave_progress_open(cfg)
    OmegaConf.resolve(cfg)
    check(cfg)
    return cfg


def check(cfg: DictConfig) -> None:
    """Check every value that can be judged without loading torch.

    Raises:
        ConfigError: with one line that names the key, what it must be and what came.
    """
    missing = [str(key) for key in OmegaConf.missing_keys(cfg)]
    if missing:
        raise ConfigError(f"{missing[0]} is needed, got nothing: {missing[0]}=<value>.{_where_to_get(cfg, missing[0])}")
    for key, (needed, fits) in _RULES.items():
        group = key.partition(".")[0]
        target = str(OmegaConf.select(cfg, f"{group}._target_", default="ls_lightning"))
        if "." in key and group not in _LIBRARIES and not _is_ours(target):
            continue
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value not in (_ABSENT, None) and not fits(value):
            raise ConfigError(f"{key} must be {needed}, got {value!r}.")
    _check_schedule(cfg)
    _check_files(cfg)
    _check_extras(cfg)


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf, which print several.

    Args:
        error: what was raised while the configuration was composed.
    """
    text = str(error)
    if text.startswith("Error in call to target") and error.__cause__ is not None:
        return one_line(error.__cause__)
    if match := re.match(r"Ambiguous value for argument '(.+?)'", text):
        return f"{match.group(1)} has several values: -m sweeps over them; a list is written key=[a,b]."
    if "does not support sweep type" in text:
        return f"{text.splitlines()[0].rstrip('.')}. A range is searched by hydra/sweeper=ls_optuna."
    if match := re.search(r"Could not (?:find|load) 'hydra/launcher/(submitit|joblib)", text):
        extra = "slurm" if match.group(1) == "submitit" else "joblib"
        return f"this launcher needs hydra-{match.group(1)}-launcher: pip install 'ls-lightning[{extra}]'."
    if "'${trainer.devices}'" in text and "could not be converted to Integer" in text:
        return "hydra/launcher=slurm needs the number of devices of each machine: trainer.devices=4."
    if match := re.search(r"Could not find '(.+)/([^'/]+)'", text):
        group, option = match.groups()
        options = re.findall(r"^\t(\S+)$", text, re.M)
        hint = (
            _did_you_mean(option, options) or f" A file of yours, {group}/{option}.yaml, needs --config-dir=<folder>."
        )
        return f"{group} must be one of {', '.join(options)}, got {option!r}.{hint}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        known = [name for name in _known_keys() if ("." in name) == ("." in key)]
        return (
            f"{key} is not a key of the configuration.{_did_you_mean(key, known)} "
            f"--help lists them; a key of your own is added by +{key}=value."
        )
    if match := re.match(r"Error merging override eps=(.*)", text.splitlines()[0] if text else ""):
        return f"eps must be a number in [0, 1), got {match.group(1)}. It is the mass taken from the true class."
    text = text.removeprefix("Error merging override ")
    causes = [line.strip() for line in f"{text}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    causes = [line for line in causes if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return ": ".join(dict.fromkeys(line.rstrip(".:") for line in causes[:3])) + "."


def build_schedule(cfg: DictConfig) -> Schedule | Feedback:
    """The schedule of the configuration, which may be a function of the user's own.

    Raises:
        ConfigError: it cannot be built, or is neither a function of progress nor a Feedback.
    """
    from hydra.utils import instantiate

    try:
        schedule: object = instantiate(cfg.schedule)
    except Exception as error:
        raise ConfigError(f"schedule: {error.__cause__ or error}".splitlines()[0]) from error
    if isinstance(schedule, Feedback) or callable(schedule):
        return schedule
    raise ConfigError(f"schedule._target_ must give a function of progress, got {schedule!r}.")


def check_eps(key: str, value: Any, negative: bool = False) -> None:
    """``ConfigError`` unless ``value`` is None or a number in [0, 1); at most 0 if the loss's is ``negative``."""
    if negative:
        if value is not None and not _number(value, lambda eps: -math.inf < eps <= 0):
            raise ConfigError(f"{key} must be at most 0 for loss=negative, got {value}. Use loss=ce to smooth.")
    elif value is not None and not _number(value, lambda eps: 0 <= eps < 1):
        raise ConfigError(f"{key} must be in [0, 1), got {value}. It is the mass taken from the true class.")


_ABSENT = object()
_NEGATIVE = "ls_lightning.losses.NegativeSmoothing"
_LIBRARIES = ("trainer", "optimizer", "callbacks")


def _number(value: Any, fits: Callable[[float], bool]) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and fits(value)


def _integer(value: Any, fits: Callable[[int], bool]) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and fits(value)


def _one_of(*options: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(options)}", lambda value: value in options


def _count(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an integer of at least {least}", lambda value: _integer(value, lambda n: n >= least)


def _share(closed: bool) -> tuple[str, Callable[[Any], bool]]:
    if closed:
        return "a number in [0, 1)", lambda value: _number(value, lambda x: 0 <= x < 1)
    return "a number in (0, 1)", lambda value: _number(value, lambda x: 0 < x < 1)


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("an integer in [0, 2**32)", lambda value: _integer(value, lambda n: 0 <= n < 2**32)),
    "evaluate": _one_of("last", "best"),
    "loss.reduction": ("mean, sum or batchmean", lambda value: value in ("mean", "sum", "batchmean")),
    "loss.spread": _one_of("all", "others"),
    "loss.weight_mode": _one_of("sample", "torch"),
    "loss.input": _one_of("logits", "log_probs"),
    "loss.warmup": _share(closed=False),
    "loss.ignore_index": ("an integer", lambda value: _integer(value, lambda n: True)),
    "metrics.num_bins": _count(1),
    "metrics.closed": _one_of("left", "right"),
    "data.batch_size": _count(1),
    "data.eval_batch_size": _count(1),
    "data.num_workers": _count(0),
    "data.split_seed": _count(0),
    "data.val_fraction": _share(closed=False),
    "data.test_fraction": _share(closed=False),
    "data.limit_train": _count(1),
    "data.label_noise": _share(closed=True),
    "data.val_label_noise": _share(closed=True),
    "data.input_noise": ("a number of at least 0", lambda value: _number(value, lambda x: 0 <= x < math.inf)),
    "callbacks.label_smoothing.interval": _one_of("step", "epoch"),
    "optimizer.lr": ("a number above 0", lambda value: _number(value, lambda x: x > 0)),
    "optimizer.weight_decay": ("a number of at least 0", lambda value: _number(value, lambda x: x >= 0)),
    "trainer.accelerator": ("a name such as auto, cpu or gpu", lambda value: isinstance(value, str)),
    "trainer.max_epochs": ("an integer of at least 1", lambda value: _integer(value, lambda n: n >= 1)),
    "trainer.log_every_n_steps": _count(0),
    "trainer.accumulate_grad_batches": _count(1),
    "trainer.check_val_every_n_epoch": _count(1),
    "trainer.num_nodes": _count(1),
}


def _is_ours(target: str) -> bool:
    return target.startswith("ls_lightning.")


def _keep_own_keys(cfg: DictConfig, group: str, overrides: Sequence[str]) -> None:
    """``model._target_=their.Net`` must not inherit the options of the class that it replaces."""
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    if f"{group}._target_" not in typed or _is_ours(str(cfg[group].get("_target_"))):
        return
    own = {key.split(".")[1] for key in typed if key.startswith(f"{group}.")}
    if group == "loss":
        own.add("eps")
    cfg[group] = {key: cfg[group]._get_node(key) for key in cfg[group] if key in own}


def _refuse_mixture(cfg: DictConfig, group: str, overrides: Sequence[str], option: Any) -> None:
    """A class that a file, e.g. an experiment, puts in the place of ours must not get our options unasked."""
    target = str(cfg[group].get("_target_", "ls_lightning."))
    typed = any(override.lstrip("+").startswith(f"{group}._target_=") for override in overrides)
    if option is None or typed or _is_ours(target):
        return
    ours = _target_of(group, str(option))
    if ours is not None and ours != target:
        raise ConfigError(
            f"{group}._target_ {target} is set in a file over {group}={option}, whose options it would get. Begin that "
            f"file's defaults with 'override /{group}: null'."
        )


def _target_of(group: str, option: str) -> str | None:
    """The class of an option of ours; None if it is not ours."""
    file = files("ls_lightning.conf") / group / f"{option}.yaml"
    target = OmegaConf.select(OmegaConf.create(file.read_text()), "_target_") if file.is_file() else None
    return str(target) if target is not None and _is_ours(str(target)) else None


def _warm_up(cfg: DictConfig) -> None:
    """Negative smoothing begins with plain cross-entropy: ``loss.warmup`` is its schedule."""
    schedule = str(cfg.schedule.get("_target_", ""))
    warmup = cfg.loss.get("warmup")
    if not _is_ours(schedule):  # a schedule of the user's own; LabelSmoothing looks where it starts
        return
    if not schedule.endswith((".Constant", ".Delayed")):
        raise ConfigError(
            f"schedule must be left away with loss=negative, got {schedule.rpartition('.')[2]}. loss.warmup says when "
            "eps falls below 0."
        )
    if warmup is None:
        raise ConfigError(
            "loss=negative needs a warm-up of plain cross-entropy, got none: loss.warmup=0.5 for half of training."
        )
    cfg.schedule = {"_target_": "ls_lightning.schedules.Delayed", "eps": cfg.eps, "start_at": warmup}


def _leave_progress_open(cfg: DictConfig) -> None:
    """A function that still needs an argument is the curve itself; one that needs none returns it."""
    target = str(cfg.schedule.get("_target_", ""))
    if _is_ours(target) or "_partial_" in cfg.schedule:
        return
    from hydra.utils import get_object

    try:
        function = get_object(target)
        parameters = {} if isinstance(function, type) else inspect.signature(function).parameters
    except Exception as error:
        raise ConfigError(f"schedule: {one_line(error)}") from error
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.default is p.empty and p.name not in cfg.schedule for p in positional):
        cfg.schedule["_partial_"] = True


def _check_schedule(cfg: DictConfig) -> None:
    """Build the schedule, and see that the eps of the results is the eps of the training."""
    schedule, ours = build_schedule(cfg), _is_ours(str(cfg.schedule.get("_target_", "")))
    if cfg.loss.get("_target_") == _NEGATIVE and not ours:  # LabelSmoothing judges it
        return
    try:
        named = schedule.start if isinstance(schedule, Feedback) else peak(schedule)
    except Exception as error:
        raise ConfigError(f"schedule: {one_line(error)}") from error
    # The highest eps of a function of the user's own is known from its values at some points.
    if not math.isclose(cfg.eps, named, rel_tol=1e-9 if ours else 1e-3):
        follow = "" if ours else " Or let the schedule follow it by 'schedule.<key>=${eps}'."
        raise ConfigError(
            f"eps={cfg.eps} is not that of the schedule {name_of(schedule)}, so results would name an eps that was not "
            f"trained. Set eps={named:.6g}.{follow}"
        )


def _check_files(cfg: DictConfig) -> None:
    for key in ("path", "noisy_labels"):
        path = cfg.data.get(key)
        if _is_ours(str(cfg.data.get("_target_"))) and path is not None and not Path(str(path)).expanduser().exists():
            rule = f"data.{key} must be an existing file or folder, got {path!r} (from {Path.cwd()})."
            raise ConfigError(rule + _where_to_get(cfg, f"data.{key}"))
    if cfg.ckpt_path not in (None, "last") and not Path(cfg.ckpt_path).is_file():
        raise ConfigError(f"ckpt_path must be 'last' or an existing checkpoint, got {cfg.ckpt_path!r}.")
    if cfg.evaluate == "best" and not any("monitor" in callback for callback in cfg.callbacks.values() if callback):
        raise ConfigError("evaluate=best needs a checkpoint of the best epoch: callbacks=best.")


def _where_to_get(cfg: DictConfig, key: str) -> str:
    """Where to download the data of an experiment."""
    group, _, name = key.partition(".")
    source = OmegaConf.select(cfg, f"{group}.expects.get.{name}", throw_on_missing=False)
    return "" if source is None else f" {cfg.data.expects.name}: {source}"


_EXTRAS = {
    "DigitsData": ("sklearn", "data=digits needs scikit-learn: pip install 'ls-lightning[data]'."),
    "BreastCancerData": (
        "sklearn",
        "data=breast_cancer needs scikit-learn: pip install 'ls-lightning[data]'.",
    ),
    "TimmModel": ("timm", "model=timm needs timm: pip install 'ls-lightning[timm]'."),
    "TorchvisionModel": (
        "torchvision",
        "model=torchvision needs torchvision: pip install 'ls-lightning[torchvision]'.",
    ),
    "ImageFolderData": ("PIL", "data=image_folder needs Pillow: pip install 'ls-lightning[image]'."),
    "HFDatasetData": ("datasets", "data=hf_dataset needs datasets: pip install 'ls-lightning[hf]'."),
    "TensorBoardLogger": (
        "tensorboard",
        "logger=tensorboard needs tensorboard: pip install 'ls-lightning[tensorboard]'.",
    ),
}


def _check_extras(cfg: DictConfig) -> None:
    groups = [cfg.data, cfg.model, *(logger for logger in cfg.logger.values() if isinstance(logger, DictConfig))]
    for group in groups:
        module, message = _EXTRAS.get(str(group.get("_target_")).rpartition(".")[2], (None, ""))
        if module is not None and find_spec(module) is None:
            raise ConfigError(message)


def _known_keys() -> list[str]:
    """Those of all options of all groups."""
    groups = list(JobSchema.__annotations__)
    options = {
        f"{group}.{key}"
        for group in groups
        if (folder := files("ls_lightning.conf") / group).is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
        for key in re.findall(r"^([a-z]\w*):", file.read_text(encoding="utf-8"), re.M)
    }
    return [*groups, "experiment", *sorted(options)]


def _did_you_mean(word: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, options, n=1)
    return f" Did you mean {close[0]}?" if close else ""
