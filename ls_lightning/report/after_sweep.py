"""``hydra/callbacks=report``: a sweep ends with its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class ReportAfterSweep(Callback):
    """Hydra callback: ``python -m ls_lightning.report`` on the folder of a multirun whose jobs are all done.

    A sweep with a failed job ends with the list of failures instead.

    Args:
        options: keys of the report and their values, e.g. ``select="ece"``; ``--help`` of the report lists them. None
            is the usual value.

    Raises:
        ConfigError: an option is not known or its value is out of range; at the start of the sweep, not at its end.

    Example:
        >>> ReportAfterSweep(select="ece", figures="none").words
        ['select=ece', 'figures=none']
    """

    def __init__(self, **options: object) -> None:
        from ls_lightning.errors import ConfigError
        from ls_lightning.report.options import parse_options

        if odd := options.keys() & {"compare", "watch"}:
            raise ConfigError(f"hydra.callbacks.report.{min(odd)} would not be a report of this sweep. Leave it away.")
        self.words = [f"{key}={_text(value)}" for key, value in options.items() if value is not None]
        parse_options(self.words)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print and write the report."""
        from ls_lightning.report.__main__ import main

        print()
        main([str(config.hydra.sweep.dir), *self.words])


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
