"""The folder of one job: whose it is, what it was trained with, whether it may be written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ls_lightning.errors import ConfigError
from ls_lightning.sweep.results import RESULT, config_digest, read_result, write_text

CONFIG = "config.yaml"
LAST = Path("checkpoints") / "last.ckpt"

TRAINED = ("eps", "seed", "loss", "schedule", "model", "optimizer", "data")
"""The keys of a configuration that a resumed run must not change."""


def checkpoint_of(folder: Path, ckpt_path: str | None) -> Path | None:
    """The checkpoint that ``ckpt_path`` means for the job in ``folder``.

    Raises:
        ConfigError: it is ``"last"``, and there is none.
    """
    if ckpt_path != "last":
        return None if ckpt_path is None else Path(ckpt_path)
    path = folder / LAST
    if not path.is_file():
        raise ConfigError(
            f"ckpt_path=last needs {path}, which is not there. Name the job's folder: hydra.run.dir=<folder>."
        )
    return path


def check_folder(folder: Path, config: dict[str, Any], resume: bool) -> None:
    """Refuse to overwrite a job, or to resume it as another.

    Raises:
        ConfigError: the folder holds a job and ``resume`` is false; or that job was trained with another
            value of one of ``TRAINED``.
    """
    stored = folder / CONFIG
    if not stored.exists():
        return
    if not resume and (read_result(folder) or (folder / "checkpoints").exists()):
        raise ConfigError(
            f"{folder} holds a job already. Resume it with ckpt_path=last, or choose another hydra.run.dir."
        )
    before = OmegaConf.to_container(OmegaConf.load(stored))
    if resume and isinstance(before, dict):
        for key in TRAINED:
            if before.get(key) != config.get(key):
                raise ConfigError(
                    f"{folder} was trained with another {key} ({before.get(key)}, got {config.get(key)}). Resume with "
                    "the same overrides, or choose another hydra.run.dir."
                )


def claim_folder(folder: Path, config: dict[str, Any]) -> set[Path]:
    """From here on the folder holds this job, unfinished until ``result.json`` is in it.

    Returns:
        What was in it before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    (folder / RESULT).unlink(missing_ok=True)
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))
    return before


def release_folder(folder: Path, before: set[Path]) -> None:
    """Take back a claim under which nothing was trained: remove all that was not there ``before``."""
    for path in set(folder.iterdir()) - before:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def job_digest(config: dict[str, Any]) -> str:
    """12 hexadecimal digits of everything in a job's configuration that decides its numbers."""
    trainer = {key: value for key, value in config["trainer"].items() if key != "default_root_dir"}
    return config_digest({**{key: config[key] for key in TRAINED}, "trainer": trainer})
