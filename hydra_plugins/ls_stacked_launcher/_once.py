"""Compose each job once: Hydra's sweeper does it to see that it can be done, and its launcher would do it again."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig


class ComposedOnce:
    """In the place of a loader's ``load_sweep_config``: keep what the sweeper asks for until the launcher does.

    Args:
        load: the loader's own.
        begin: called once, as soon as a job could be composed.

    Attributes:
        launching: the launcher asks; nothing is kept for later.
    """

    def __init__(self, load: Callable[..., DictConfig], begin: Callable[[], None]) -> None:
        self._load, self._begin = load, begin
        self._kept: dict[tuple[str, ...], DictConfig] = {}
        self._begun = False
        self.launching = False

    def __call__(self, master_config: Any, sweep_overrides: list[str]) -> DictConfig:
        """As the loader; each configuration is given away once, since the launcher writes into it."""
        overrides = tuple(sweep_overrides)
        found = self._kept.pop(overrides, None) if self.launching else None
        if found is None:
            found = self._load(master_config, sweep_overrides)
        if not self.launching:
            self._kept[overrides] = found
        if not self._begun:
            self._begun = True
            self._begin()
        return found
