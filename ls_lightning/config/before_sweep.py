"""What no job of a sweep can do without is looked for once, before the first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ls_lightning.config.files import check_data_files, check_given
from ls_lightning.errors import ConfigError


class CheckBeforeSweep(Callback):
    """Hydra callback: a multirun whose data are not there ends with one line and exit code 2, before its first job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Look for the data that all jobs have in common; what a job has alone, it says by itself."""
        swept = set(_typed(config))
        missing = [str(key) for key in OmegaConf.missing_keys(config.data)]  # with "data." before them
        try:
            check_given(config, [key for key in missing if key not in swept])
            check_data_files(config)
        except ConfigError as error:
            print(f"error: no job was started: {error}", file=sys.stderr)
            sys.exit(2)
        except OmegaConfBaseException:  # a value that only a job can resolve
            pass


def _typed(config: DictConfig) -> Iterator[str]:
    """The keys that the command line or an experiment's grid sets; of those with several values there is none yet."""
    for override in config.hydra.overrides.task:
        yield override.lstrip("+").partition("=")[0]
    yield from map(str, OmegaConf.select(config, "hydra.sweeper.params") or ())
