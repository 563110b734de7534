"""``hydra/sweeper=ls_optuna``: what Hydra calls."""

from importlib.util import find_spec
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Ask optuna for parameters, let the launcher run them, tell optuna what came of it.

    Args:
        options: the keys of ``OptunaSweeperConf``.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self._launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called once. The launcher may name the folder of an earlier sweep here."""
        # Hydra imports this file at the start of every app of the environment: the rest waits until it is used.
        from hydra.core.plugins import Plugins

        from hydra_plugins.ls_optuna_sweeper._errors import SweeperError

        if find_spec("optuna") is None:
            raise SweeperError("hydra/sweeper=ls_optuna needs optuna: pip install 'ls-lightning[optuna]'.")
        self.hydra_context, self.config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are ``n_trials`` of them.

        Args:
            arguments: overrides; those with ``interval``, ``range``, ``choice`` or commas are searched.
        """
        from hydra_plugins.ls_optuna_sweeper._options import read_options
        from hydra_plugins.ls_optuna_sweeper._search import Search
        from hydra_plugins.ls_optuna_sweeper._space import parse_space

        if self.hydra_context is None or self.config is None or self._launcher is None:
            raise RuntimeError("sweep needs setup before it.")
        options = read_options(self._options, self.config)
        space = parse_space([*options.params, *arguments], self.hydra_context.config_loader)
        self.validate_batch_is_legal(space.probes())
        Search(options, space, self._launcher, self.config).run()
