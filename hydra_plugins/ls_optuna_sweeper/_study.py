"""The study on disk: made whole or not at all, gone on with only by the same sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError
from hydra_plugins.ls_optuna_sweeper._options import Options
from hydra_plugins.ls_optuna_sweeper._space import Space

DATABASE = "optuna.db"
_ABOUT = "ls_optuna"
_NAME = "sweep"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StoredStudy:
    """A study whose trials survive this process.

    Args:
        options: of the sweeper.
        space: what is searched.
        folder: of the sweep, absolute; the database is in it unless ``options.storage`` names another.

    Raises:
        SweeperError: the database holds another sweep, or cannot be used.
    """

    def __init__(self, options: Options, space: Space, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._options, self._space = options, space
        self.url = options.storage or f"sqlite:///{folder / DATABASE}"
        self.name = options.study_name or (_NAME if options.storage is None else str(folder))
        about = {
            "searched": [dimension.text for dimension in space.dimensions],
            "fixed": space.fixed,
            "optimised": dict(zip(options.objectives.names, options.objectives.directions, strict=True)),
        }
        try:
            if options.storage is None and not (folder / DATABASE).exists():
                self._make(folder / f"{DATABASE}.part", about).replace(folder / DATABASE)
            self.study = self._open(self.url, about)
            if self._is_another(about) and options.storage is None and not self.trials(*_FINISHED):
                # Nothing would be lost: a mistyped objective, say, which the first job has shown.
                self._make(folder / f"{DATABASE}.part", about).replace(folder / DATABASE)
                self.study = self._open(self.url, about)
        except Exception as error:
            if isinstance(error, SweeperError):
                raise
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise SweeperError(f"hydra.sweeper.storage={self.url} cannot be used: {reason}.") from error
        self._refuse_another(about, folder)

    def ask(self, count: int) -> list[FrozenTrial]:
        """New trials, running.

        Each is sampled in memory and stored in one transaction: whenever this process is killed, a stored trial has
        all its parameters. What is sampled depends on the seed, the number of the trial and what was told before.
        """
        before = self.trials()
        for number in range(len(before), len(before) + count):
            study = optuna.create_study(
                study_name=self.name, directions=self._options.objectives.directions,
                sampler=self._options.build_sampler(number), pruner=self.study.pruner,
            )  # fmt: skip
            study.add_trials(self.trials())
            study.ask(self._space.distributions)
            self.study.add_trial(study.trials[-1])
        return self.trials()[len(before) :]

    def tell(self, trial: FrozenTrial, values: Sequence[float] | None, state: TrialState) -> None:
        """How it ended; values for a complete one."""
        self.study.tell(trial.number, values, state)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All, or those in one of the states, by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _make(self, partial: Path, about: dict[str, Any]) -> Path:
        """The database with an empty study, under another name until it is whole."""
        for left in partial.parent.glob(f"{partial.name}*"):
            left.unlink()
        storage = _storage(f"sqlite:///{partial}")
        self._create(storage, about)
        storage.remove_session()
        storage.engine.dispose()
        return partial

    def _open(self, url: str, about: dict[str, Any]) -> optuna.Study:
        storage = _storage(url)
        if self._options.storage is not None:
            self._create(storage, about)
        pruner = self._options.build_pruner() or optuna.pruners.NopPruner()
        sampler = self._options.build_sampler(0)
        return optuna.load_study(study_name=self.name, storage=storage, sampler=sampler, pruner=pruner)

    def _create(self, storage: optuna.storages.RDBStorage, about: dict[str, Any]) -> None:
        study = optuna.create_study(
            study_name=self.name, storage=storage, directions=self._options.objectives.directions, load_if_exists=True
        )
        if _ABOUT not in study.user_attrs and not study.trials:
            study.set_user_attr(_ABOUT, about)

    def _is_another(self, about: dict[str, Any]) -> bool:
        return bool(self.study.user_attrs.get(_ABOUT) != about)

    def _refuse_another(self, about: dict[str, Any], folder: Path) -> None:
        if not self._is_another(about):
            return
        stored = self.study.user_attrs.get(_ABOUT, {})
        what = next((key for key in about if stored.get(key) != about[key]), "searched")
        raise SweeperError(
            f"{folder} holds a search that differs in what is {what} ({_short(stored.get(what))}, got "
            f"{_short(about[what])}). Give the same overrides and objectives, or choose another hydra.sweep.dir."
        )


def _short(what: Any) -> str:
    return (
        " ".join(f"{key}: {value}" for key, value in what.items()) if isinstance(what, dict) else " ".join(what or [])
    )


def _storage(url: str) -> optuna.storages.RDBStorage:
    # Jobs report to the same file, and each writer locks it for a moment.
    waiting = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=waiting)
