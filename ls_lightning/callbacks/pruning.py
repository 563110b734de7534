"""Pruning: stop the job of a trial that is worse than others were."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from ls_lightning.sweep.trial import Search, Trial


class Reporter(Protocol):
    """Where validation metrics are reported to; see :class:`ls_lightning.sweep.trial.Trial`."""

    @property
    def given_up(self) -> bool:
        """Whether the trial was stopped before."""

    def report(self, value: float, step: int) -> bool:
        """Take the value of the ``step``-th validation. Returns whether the trial shall stop."""


class Pruning(L.Callback):
    """Report a metric after each validation of ``fit``, and stop training when the trial is given up.

    ``hydra/sweeper=ls_optuna hydra.sweeper.pruner=median`` adds it to the Trainer of each job, a user's own too.
    Training ends as with early stopping: the job measures its model, and exits with 0. Under DDP rank 0 alone
    reports, and all ranks stop after the same validation. A continued job counts on from its checkpoint.

    Args:
        monitor: the logged metric, e.g. ``"val/nll"``.
        trial: whom to report to.

    Raises:
        LookupError: the metric was not logged in a validation.

    Example:
        >>> class Never:
        ...     given_up = False
        ...     def report(self, value, step):
        ...         return False
        >>> trainer = L.Trainer(callbacks=[Pruning("val/nll", Never())], logger=False)
    """

    def __init__(self, monitor: str, trial: Reporter) -> None:
        super().__init__()
        self.monitor = monitor
        self._trial = trial
        self._reports = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_if(trainer, trainer.is_global_zero and self._trial.given_up)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            names = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise LookupError(f"{self.monitor} decides which trials go on, but was not logged; there are: {names}.")
        self._reports += 1
        self._stop_if(trainer, trainer.is_global_zero and self._trial.report(float(value), self._reports))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"reports": self._reports}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reports = state_dict["reports"]

    def _stop_if(self, trainer: L.Trainer, over: bool) -> None:
        """What rank 0 says holds for all."""
        if trainer.strategy.broadcast(over):
            trainer.should_stop = True


def pruning_from_environment(environ: Mapping[str, str] = os.environ) -> list[Pruning]:
    """The callback in a job of a sweep that prunes, else nothing."""
    search = Search.from_environment(environ)
    if search is None:
        return []
    from hydra.core.hydra_config import HydraConfig

    return [Pruning(search.monitor, Trial(search, int(HydraConfig.get().job.num)))]
