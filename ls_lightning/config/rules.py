"""What each value must be, as far as it can be judged by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ls_lightning.config.schema import is_ours
from ls_lightning.errors import ConfigError

_ABSENT = object()
_LIBRARIES = ("trainer", "optimizer", "callbacks")


def check_values(cfg: DictConfig) -> None:
    """Judge every value that has a rule.

    Raises:
        ConfigError: with one line that names the key, what it must be and what came.
    """
    for key, (needed, fits) in _RULES.items():
        group = key.partition(".")[0]
        target = str(OmegaConf.select(cfg, f"{group}._target_", default="ls_lightning."))
        if "." in key and group not in _LIBRARIES and not is_ours(target):
            continue
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value not in (_ABSENT, None) and not fits(value):
            raise ConfigError(f"{key} must be {needed}, got {value!r}.")


def check_eps(key: str, value: Any, negative: bool = False) -> None:
    """``ConfigError`` unless ``value`` is None or a number in [0, 1); at most 0 if the loss's is ``negative``."""
    if negative:
        if value is not None and not _number(value, lambda eps: -math.inf < eps <= 0):
            raise ConfigError(f"{key} must be at most 0 for loss=negative, got {value}. Use loss=ce to smooth.")
    elif value is not None and not _number(value, lambda eps: 0 <= eps < 1):
        raise ConfigError(f"{key} must be in [0, 1), got {value}. It is the mass taken from the true class.")


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
