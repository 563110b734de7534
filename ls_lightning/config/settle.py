"""The configuration as it will run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ls_lightning.config.files import check_checkpoints, check_data_files, check_extras, check_given
from ls_lightning.config.rules import check_eps, check_values
from ls_lightning.config.schedule import check_schedule, leave_progress_open, warm_up
from ls_lightning.config.schema import NEGATIVE, is_ours
from ls_lightning.errors import ConfigError


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
    negative = cfg.loss.get("_target_") == NEGATIVE
    check_eps("eps", None if OmegaConf.is_missing(cfg, "eps") else cfg.eps, negative)
    if "eps" in cfg.loss:
        check_eps("loss.eps", cfg.loss.eps, negative)
        if OmegaConf.is_missing(cfg, "eps"):
            cfg.eps = cfg.loss.eps
        elif cfg.eps != cfg.loss.eps:
            raise ConfigError(f"eps and loss.eps are one number, got eps={cfg.eps} and loss.eps={cfg.loss.eps}.")
    if negative:
        warm_up(cfg)
    leave_progress_open(cfg)
    OmegaConf.resolve(cfg)
    check(cfg)
    return cfg


def check(cfg: DictConfig) -> None:
    """Check every value that can be judged without loading torch.

    Raises:
        ConfigError: with one line that names the key, what it must be and what came.
    """
    check_given(cfg, [str(key) for key in OmegaConf.missing_keys(cfg)])
    check_values(cfg)
    check_schedule(cfg)
    check_data_files(cfg)
    check_checkpoints(cfg)
    check_extras(cfg)


def _keep_own_keys(cfg: DictConfig, group: str, overrides: Sequence[str]) -> None:
    """``model._target_=their.Net`` must not inherit the options of the class that it replaces."""
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    if f"{group}._target_" not in typed or is_ours(str(cfg[group].get("_target_"))):
        return
    own = {key.split(".")[1] for key in typed if key.startswith(f"{group}.")}
    if group == "loss":
        own.add("eps")
    cfg[group] = {key: cfg[group]._get_node(key) for key in cfg[group] if key in own}


def _refuse_mixture(cfg: DictConfig, group: str, overrides: Sequence[str], option: Any) -> None:
    """A class that a file, e.g. an experiment, puts in the place of ours must not get our options unasked."""
    target = str(cfg[group].get("_target_", "ls_lightning."))
    typed = any(override.lstrip("+").startswith(f"{group}._target_=") for override in overrides)
    if option is None or typed or is_ours(target):
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
    return str(target) if target is not None and is_ours(str(target)) else None
