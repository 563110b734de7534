"""The options of the sweeper, checked before anything is written."""

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError
from hydra_plugins.ls_optuna_sweeper._objectives import Objectives, parse_objectives
from ls_lightning.seeds import mixed_seed

_SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "constant_liar": True},  # trials side by side stay apart
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "gp": {"_target_": "optuna.samplers.GPSampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
    "nsga2": {"_target_": "optuna.samplers.NSGAIISampler"},
}
_NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "scipy"}  # which optuna imports at the first trial
_PRUNERS: dict[str, dict[str, Any]] = {
    "median": {"_target_": "optuna.pruners.MedianPruner"},
    "hyperband": {"_target_": "optuna.pruners.HyperbandPruner"},
    "successive_halving": {"_target_": "optuna.pruners.SuccessiveHalvingPruner"},
}


@dataclass(frozen=True)
class Options:
    """See ``OptunaSweeperConf``; ``sampler`` and ``pruner`` are configurations with a ``_target_``."""

    n_trials: int
    objectives: Objectives
    n_jobs: int
    seed: int
    sampler: dict[str, Any]
    pruner: dict[str, Any] | None
    storage: str | None
    study_name: str | None
    params: list[str]

    def build_sampler(self, number: int) -> Any:
        """The sampler of one trial: seeded by its number too, or a resumed search would repeat the first point."""
        return _build("sampler", {**self.sampler, "seed": mixed_seed("trial", self.seed, number) % 2**32})

    def build_pruner(self) -> Any:
        """None where nothing is pruned."""
        return None if self.pruner is None else _build("pruner", self.pruner)


def read_options(given: dict[str, Any], config: DictConfig) -> Options:
    """The keys of ``hydra.sweeper`` as typed.

    Raises:
        SweeperError: one of them is out of range, or does not fit another.
    """
    plain: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(given), resolve=True)  # type: ignore[assignment]
    n_jobs = plain["n_jobs"]
    if n_jobs is None:
        n_jobs = max(1, int(OmegaConf.select(config, "hydra.launcher.n_jobs", default=1)))
    for name, value, least in (("n_trials", plain["n_trials"], 1), ("n_jobs", n_jobs, 1), ("seed", plain["seed"], 0)):
        if value < least:
            raise SweeperError(f"hydra.sweeper.{name} must be at least {least}, got {value}.")
    options = Options(
        n_trials=plain["n_trials"],
        objectives=parse_objectives(plain["objectives"], plain["direction"]),
        n_jobs=n_jobs,
        seed=plain["seed"],
        sampler=_named("sampler", plain["sampler"], _SAMPLERS),
        pruner=None if plain["pruner"] is None else _named("pruner", plain["pruner"], _PRUNERS),
        storage=plain["storage"],
        study_name=plain["study_name"],
        params=[f"{key}={value}" for key, value in plain["params"].items()],
    )
    _check_sampler(options)
    _check_pruner(options)
    return options


def _named(key: str, given: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(given, dict) and "_target_" in given:
        return given
    if given not in list(known):
        raise SweeperError(
            f"hydra.sweeper.{key} must be one of {', '.join(known)}, or {{_target_: optuna.{key}s.<class>}}, "
            f"got {given}."
        )
    return known[given]


def _check_sampler(options: Options) -> None:
    if "seed" in options.sampler:
        raise SweeperError("the seed of the sampler is hydra.sweeper.seed, from which each trial has its own.")
    if str(options.sampler["_target_"]).endswith("QMCSampler"):  # it counts in attributes of the study
        raise SweeperError("QMCSampler cannot be resumed and would repeat its first point. Use sampler=random.")
    needed = _NEEDS.get(str(options.sampler["_target_"]).rpartition(".")[2])
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise SweeperError(f"this sampler needs {needed}: pip install {needed}.")
    options.build_sampler(0)


def _check_pruner(options: Options) -> None:
    if options.pruner is None:
        return
    names = options.objectives.names
    if len(names) > 1:
        raise SweeperError(f"pruning is possible with one objective, got {', '.join(names)}. Leave pruner away.")
    if not options.objectives.named:
        raise SweeperError("pruning needs the name of a logged metric: hydra.sweeper.objectives=[val/nll].")
    if importlib.util.find_spec("lightning") is None and importlib.util.find_spec("pytorch_lightning") is None:
        raise SweeperError("pruning needs Lightning: pip install lightning.")
    options.build_pruner()


def _build(key: str, spec: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # constant_liar, in optuna before 5
            return instantiate(spec)
    except Exception as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise SweeperError(f"hydra.sweeper.{key}: {cause}") from error
