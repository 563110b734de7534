"""Files and packages that a configuration needs: are they there?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ls_lightning.config.schema import is_ours
from ls_lightning.errors import ConfigError


def check_given(cfg: DictConfig, missing: Sequence[str]) -> None:
    """``ConfigError`` if a key is among ``missing``, with where its file is to be had."""
    if missing:
        raise ConfigError(f"{missing[0]} is needed, got nothing: {missing[0]}=<value>.{_where_to_get(cfg, missing[0])}")


def check_data_files(cfg: DictConfig) -> None:
    """``ConfigError`` unless the files of the data are there."""
    for key in ("path", "noisy_labels"):
        path = cfg.data.get(key)
        if is_ours(str(cfg.data.get("_target_"))) and path is not None and not Path(str(path)).expanduser().exists():
            rule = f"data.{key} must be an existing file or folder, got {path!r} (from {Path.cwd()})."
            raise ConfigError(rule + _where_to_get(cfg, f"data.{key}"))


def check_checkpoints(cfg: DictConfig) -> None:
    """``ConfigError`` unless the checkpoint that is named is there, and the one that is measured will be."""
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


def check_extras(cfg: DictConfig) -> None:
    """``ConfigError`` with the pip command where a package is missing that an option needs."""
    groups = [cfg.data, cfg.model, *(logger for logger in cfg.logger.values() if isinstance(logger, DictConfig))]
    for group in groups:
        module, message = _EXTRAS.get(str(group.get("_target_")).rpartition(".")[2], (None, ""))
        if module is not None and find_spec(module) is None:
            raise ConfigError(message)
