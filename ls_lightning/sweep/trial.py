"""The trial of a search that a job is: where the job reports to, and whether it shall go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

VARIABLE = "LS_TRIAL"
GIVEN_UP = "pruned_after"
"""The user attribute of a trial that was stopped: the number of reports before."""


@dataclass(frozen=True)
class Search:
    """What the jobs of a search have in common; it reaches them in the environment variable ``LS_TRIAL``.

    Args:
        storage: URL of optuna's database.
        study: its name there.
        monitor: the logged metric that is reported, e.g. ``"val/nll"``.
        pruner: with a ``_target_``, e.g. ``{"_target_": "optuna.pruners.MedianPruner"}``.
    """

    storage: str
    study: str
    monitor: str
    pruner: dict[str, Any]

    def to_text(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_environment(environ: Mapping[str, str] = os.environ) -> Search | None:
        """None in a job that is no trial.

        Example:
            >>> search = Search("sqlite:///optuna.db", "sweep", "val/nll", {"_target_": "optuna.pruners.NopPruner"})
            >>> Search.from_environment({"LS_TRIAL": search.to_text()}) == search
            True
            >>> Search.from_environment({}) is None
            True
        """
        text = environ.get(VARIABLE)
        return Search(**json.loads(text)) if text else None


class Trial:
    """One trial, by its number. Connects when it is first asked something.

    Args:
        search: that it belongs to.
        number: in the study.
    """

    def __init__(self, search: Search, number: int) -> None:
        self._search = search
        self._number = number

    @property
    def given_up(self) -> bool:
        """Whether it was stopped before."""
        return GIVEN_UP in self._storage.get_trial(self._id).user_attrs

    def report(self, value: float, step: int) -> bool:
        """Store an intermediate value, once for each step. Returns whether the pruner gives the trial up."""
        known = self._storage.get_trial(self._id).intermediate_values
        if step not in known:  # a continued job comes by again
            self._storage.set_trial_intermediate_value(self._id, step, value)
        over = bool(self._study.pruner.prune(self._study, self._storage.get_trial(self._id)))
        if over:
            self._storage.set_trial_user_attr(self._id, GIVEN_UP, step)
        return over

    @cached_property
    def _storage(self) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        waiting = {"connect_args": {"timeout": 120}} if self._search.storage.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(self._search.storage, engine_kwargs=waiting)

    @cached_property
    def _study(self) -> Any:
        import optuna
        from hydra.utils import instantiate

        pruner = instantiate(self._search.pruner)
        return optuna.load_study(
            study_name=self._search.study, storage=self._storage, pruner=pruner, sampler=optuna.samplers.RandomSampler()
        )

    @cached_property
    def _id(self) -> int:
        study = self._storage.get_study_id_from_name(self._search.study)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, self._number))
