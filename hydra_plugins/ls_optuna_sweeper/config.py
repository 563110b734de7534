"""The options of ``hydra/sweeper=ls_optuna``."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class OptunaSweeperConf:
    """Every field is a key: ``hydra.sweeper.n_trials=50``."""

    _target_: str = "hydra_plugins.ls_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    _recursive_: bool = False
    n_trials: int = 20
    """Trials in total, those of an earlier run in this folder included."""
    objectives: Any = None
    """Metrics of result.json or of a returned dict: val/nll, [val/acc, val/ece], {my/score: maximize}."""
    direction: Any = None
    """Without objectives: of the value, or of each of the values, that the function returns; minimize if unset."""
    n_jobs: int | None = None
    """Trials asked for at a time; null: as many as the launcher runs side by side."""
    seed: int = 0
    sampler: Any = "tpe"
    """tpe, random, gp, cmaes, nsga2, or {_target_: optuna.samplers.TPESampler, n_startup_trials: 5}."""
    pruner: Any = None
    """median, hyperband, successive_halving, or {_target_: optuna.pruners.MedianPruner, n_warmup_steps: 3}."""
    storage: str | None = None
    """URL of a database; null: optuna.db in the folder of the sweep."""
    study_name: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    """The search space in a config file: {eps: "interval(0,0.3)"}; the command line wins."""


ConfigStore.instance().store(group="hydra/sweeper", name="ls_optuna", node=OptunaSweeperConf, provider="ls_lightning")
