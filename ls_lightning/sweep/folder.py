"""The folder of one job: whose it is, what it was trained with, whether it may be written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TextIO

import yaml  # type: ignore[import-untyped]
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


def check_folder(folder: Path, config: dict[str, Any], ckpt_path: Path | None) -> None:
    """Refuse to overwrite a job, or to resume it as another.

    Raises:
        ConfigError: the folder holds a job and ``ckpt_path`` is None; or the job of the checkpoint was trained with
            another value of one of ``TRAINED``.
    """
    if ckpt_path is None:
        if (folder / CONFIG).exists():
            _check_new(folder)
        return
    for stored in {folder / CONFIG, ckpt_path.absolute().parent.parent / CONFIG}:
        before = OmegaConf.to_container(OmegaConf.load(stored)) if stored.exists() else config
        if not isinstance(before, dict):
            continue
        for key in TRAINED:
            if key in config and before.get(key) != config[key]:
                raise ConfigError(
                    f"{stored.parent} was trained with another {key} ({before.get(key)}, got {config.get(key)}). "
                    "Resume with the same overrides, or start anew without ckpt_path."
                )


def _check_new(folder: Path) -> None:
    if read_result(folder) or (folder / "checkpoints").exists():
        raise ConfigError(
            f"{folder} holds a job already. Resume it with ckpt_path=last, or choose another hydra.run.dir."
        )


class Claim:
    """A job's hold on its folder: from here on the folder is unfinished until ``result.json`` is in it.

    Args:
        folder: made if it is not there.
        config: written to ``config.yaml``, which stays locked while the job runs.
        new: refuse a folder that holds a job, such as one that was finished after :func:`check_folder` looked.

    Raises:
        ConfigError: another job is running in this folder; or it is not ``new``.
    """

    def __init__(self, folder: Path, config: dict[str, Any], new: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = (folder / CONFIG).open("a")
        try:
            if not _lock(self._file):
                raise ConfigError(f"{folder} belongs to a job that is running. Choose another hydra.run.dir.")
            was_there = self._file.tell() > 0
            if new and was_there:
                _check_new(folder)
        except BaseException:
            self._file.close()
            raise
        self._before = set(folder.iterdir()) - (set() if was_there else {folder / CONFIG})
        kept = [path for path in (folder / CONFIG, folder / RESULT) if path in self._before]
        self._kept = {path: path.read_text() for path in kept}
        self._file.truncate(0)
        self._file.write(as_yaml(config))
        self._file.flush()
        (folder / RESULT).unlink(missing_ok=True)

    def close(self) -> None:
        """The job is over, finished or not."""
        self._file.close()

    def take_back(self) -> None:
        """Nothing was trained: leave the folder as it was found."""
        self.close()
        for path in set(self._folder.iterdir()) - self._before:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path, text in self._kept.items():
            write_text(path, text)


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """In C where it is there: `OmegaConf.to_yaml` takes ten times as long, for each job of a stack."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted(dumper: _Dumper, text: str) -> Any:
    """Quote what OmegaConf reads as a number where YAML does not, such as 1e3."""
    try:
        float(text)
    except ValueError:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _quoted)


def as_yaml(config: dict[str, Any]) -> str:
    """A configuration as text, which ``OmegaConf.load`` reads as it was.

    Example:
        >>> print(as_yaml({"eps": 0.1, "name": "1e3", "model": {"hidden": [128]}}).strip())
        eps: 0.1
        name: '1e3'
        model:
          hidden:
          - 128
    """
    text: str = yaml.dump(config, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


def _lock(file: TextIO) -> bool:
    """Whether nobody else holds the file; always true where there is no ``flock``."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def job_digest(config: dict[str, Any]) -> str:
    """12 hexadecimal digits of everything in a job's configuration that decides its numbers."""
    return config_digest(decisive(config))


def decisive(config: dict[str, Any]) -> dict[str, Any]:
    """What of a job's configuration decides its numbers; it must be the same on all ranks."""
    trainer = {key: value for key, value in config["trainer"].items() if key != "default_root_dir"}
    return {**{key: config.get(key) for key in TRAINED}, "trainer": trainer}
