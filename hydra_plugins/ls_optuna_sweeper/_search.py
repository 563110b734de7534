"""The search itself: ask, launch, tell, until there are enough trials."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import TextIO

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError, TrialsFailed
from hydra_plugins.ls_optuna_sweeper._objectives import NotFiniteError
from hydra_plugins.ls_optuna_sweeper._options import Options
from hydra_plugins.ls_optuna_sweeper._space import Space
from hydra_plugins.ls_optuna_sweeper._study import StoredStudy
from hydra_plugins.ls_optuna_sweeper._summary import best_so_far, summary, write_summary
from ls_lightning.sweep import trial as trial_of_job
from ls_lightning.sweep.results import read_result, write_result


class Search:
    """One run of the sweeper. The number of a trial is the number of its job.

    Args:
        options: of the sweeper.
        space: what is searched.
        launcher: runs the jobs.
        config: of the sweep.
    """

    def __init__(self, options: Options, space: Space, launcher: Launcher, config: DictConfig) -> None:
        self._options, self._space, self._launcher, self._config = options, space, launcher, config
        self._folder = Path(str(config.hydra.sweep.dir)).absolute()
        self._errors: dict[int, str] = {}

    def run(self) -> None:
        """Until there are ``n_trials``.

        Raises:
            TrialsFailed: some of those that were run now have no result.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "multirun.yaml").open("a") as file, _alone(file, self._folder):
            OmegaConf.save(self._config, self._folder / "multirun.yaml")
            study = StoredStudy(self._options, self._space, self._folder)
            with self._environment(study):
                for batch in _neighbours(study.trials(TrialState.RUNNING), self._options.n_jobs):
                    self._run(study, batch)  # an earlier run was interrupted in them
                while (left := self._options.n_trials - len(study.trials())) > 0:
                    self._run(study, study.ask(min(left, self._options.n_jobs)))
            write_summary(study.study, self._options.objectives, self._folder)
            print(summary(study.study, self._options.objectives, self._folder), flush=True)
        if self._errors:
            failed = ", ".join(map(str, self._errors))
            first = next(iter(self._errors.values())).strip().splitlines() or ["no reason given"]
            raise TrialsFailed(
                f"{len(self._errors)} of {len(study.trials())} trials failed: {failed}. The first: {first[0]}"
            )

    def _run(self, study: StoredStudy, trials: Sequence[FrozenTrial]) -> None:
        jobs = self._launcher.launch(
            [self._space.overrides(trial.params) for trial in trials], initial_job_idx=trials[0].number
        )
        given_up = {trial.number for trial in study.trials() if trial_of_job.GIVEN_UP in trial.user_attrs}
        for trial, job in zip(trials, jobs, strict=True):
            if trial.number in given_up and job.status == JobStatus.COMPLETED:
                _mark_pruned(Path(job.hydra_cfg.hydra.runtime.output_dir))  # type: ignore[union-attr]
                study.tell(trial, None, TrialState.PRUNED)
                continue
            values = self._values(trial, job)
            study.tell(trial, values, TrialState.FAIL if values is None else TrialState.COMPLETE)
        print(best_so_far(study.study, self._options.objectives), flush=True)

    def _values(self, trial: FrozenTrial, job: JobReturn) -> list[float] | None:
        try:
            return self._options.objectives.values(job)
        except NotFiniteError as error:
            self._errors[trial.number] = f"{error} in trial {trial.number}"
        except SweeperError:
            raise
        except Exception as error:  # that of the job
            self._errors[trial.number] = str(error) or type(error).__name__
        return None

    @contextmanager
    def _environment(self, study: StoredStudy) -> Iterator[None]:
        """Tell the jobs where they report to."""
        if self._options.pruner is None:
            yield
            return
        search = trial_of_job.Search(study.url, study.name, self._options.objectives.names[0], self._options.pruner)
        os.environ[trial_of_job.VARIABLE] = search.to_text()
        try:
            yield
        finally:
            del os.environ[trial_of_job.VARIABLE]


def _neighbours(trials: Sequence[FrozenTrial], most: int) -> Iterator[list[FrozenTrial]]:
    """Batches whose numbers follow each other, as a launcher counts."""
    for _, group in groupby(enumerate(trials), lambda item: item[1].number - item[0]):
        together = [trial for _, trial in group]
        yield from (together[start : start + most] for start in range(0, len(together), most))


def _mark_pruned(folder: Path) -> None:
    """Its result is of a training that was cut short."""
    result = read_result(folder)
    if result is not None:
        write_result(folder, {**result, "status": "pruned"})


@contextmanager
def _alone(file: TextIO, folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder, which would start the jobs of the first again."""
    with suppress(ModuleNotFoundError):  # where there is no flock, nobody is refused
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweeperError(
                f"{folder} belongs to a sweep that is running. Choose another hydra.sweep.dir."
            ) from None
    yield
