"""Compose the jobs of a sweep that differ in plain values from one of them: Hydra reads all files anew for each."""

from collections.abc import Callable, Container, Sequence
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException


class ComposedAlike:
    """In the place of a loader's ``load_sweep_config``, with the same results.

    The first job of each kind, which has the same options of groups and the same keys, is composed by the loader; the
    others are copies of it with values of their own.

    Args:
        load: the loader's own.
    """

    def __init__(self, load: Callable[..., DictConfig]) -> None:
        self._load = load
        self._parse = OverridesParser.create().parse_overrides
        self._first: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, master_config: Any, sweep_overrides: list[str]) -> DictConfig:
        """As the loader."""
        overrides = self._parse(sweep_overrides)
        values = [each for each in overrides if _is_value(each, master_config.hydra.runtime.choices)]
        kind = tuple(each.key_or_group if each in values else str(each.input_line) for each in overrides)
        first = self._first.get(kind)
        if first is None:
            found = self._load(master_config, sweep_overrides)
            self._first[kind] = found.copy()  # the launcher writes into what it is given
            return found
        if any(each.key_or_group in first.hydra.runtime.choices for each in values):  # a group that this job has alone
            return self._load(master_config, sweep_overrides)
        found = first.copy()
        try:
            for each in values:
                OmegaConf.update(found, each.key_or_group, each.value(), merge=True)
        except OmegaConfBaseException:  # Hydra says it better
            return self._load(master_config, sweep_overrides)
        _name(found, overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=found)
        return found


def _is_value(override: Override, groups: Container[str]) -> bool:
    """Whether it sets a number, a text or null, outside of Hydra's own part."""
    if override.type != OverrideType.CHANGE or override.is_hydra_override() or override.is_sweep_override():
        return False
    if override.package is not None or override.key_or_group in groups:
        return False
    value = override.value()
    return value is None or (isinstance(value, bool | int | float | str) and "${" not in str(value))


def _name(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Write down what was typed, as the loader does."""
    of_task = [each for each in overrides if not each.is_hydra_override()]
    options = cfg.hydra.job.config.override_dirname
    with open_dict(cfg.hydra):
        cfg.hydra.overrides.task = [each.input_line for each in of_task]
        cfg.hydra.job.override_dirname = get_overrides_dirname(
            overrides=of_task,
            kv_sep=options.kv_sep,
            item_sep=options.item_sep,
            exclude_keys=options.exclude_keys,
        )
