"""LabelSmoothing: smooth the training loss of a LightningModule that stays as its author wrote it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from ls_lightning.callbacks import loss_state
from ls_lightning.callbacks.agreement import check_ranks
from ls_lightning.callbacks.feedback import FeedbackLoop
from ls_lightning.callbacks.first_step import check_first_step
from ls_lightning.callbacks.horizon import estimated_steps
from ls_lightning.callbacks.idle_hooks import skip_idle_hooks
from ls_lightning.callbacks.schedule_choice import check_settable, eps_of, first_eps, resolve_schedule
from ls_lightning.callbacks.smoothed_calls import CallListener, Loss, SmoothedCalls, already_smooths
from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.losses import NegativeSmoothing
from ls_lightning.schedules import Constant, Feedback, Schedule, eps_at
from ls_lightning.tap import LossCall, Select, Tap, smoothing_modules


class LabelSmoothing(L.Callback):
    """Smooth the training loss of any LightningModule, however it calls it.

    During each training step, every ``cross_entropy``, ``nll_loss``, ``binary_cross_entropy_with_logits`` and
    ``binary_cross_entropy`` of torch, called as a function or by one of torch's loss modules, is computed by ``loss``
    instead, with the class weights, ``ignore_index`` and reduction of the call. Nothing is written to the module; in
    validation, in test and in checkpoints it is what its author wrote. eps follows ``schedule`` over the optimizer
    steps of the run, is logged as ``ls/eps``, and continues exactly when a run is resumed from a checkpoint.

    Args:
        loss: a name (``"ce"``, ``"kl"``, ``"bce"``, ..., see :mod:`ls_lightning.losses`), an ``nn.Module`` called with
            ``(logits, target)``, or a function called with ``(logits, target, eps)``. Calls for another task (``"ce"``
            is for classes, ``"bce"`` for binary decisions) keep their own loss.
        eps: in [0, 1), the mass taken from the true class. None: what ``schedule`` says, else what the given
            loss module holds, else the usual value of the loss (0.1 for ``ce``, ``kl`` and ``bce``).
        schedule: a name (``"linear"``, ``"cosine"``, ...), which starts at ``eps``, or a schedule
            such as ``Linear(0.1, 0.0)``, which says it all; any function of progress in [0, 1] is one. ``"feedback"``
            or a :class:`~ls_lightning.schedules.Feedback` follows the gap in validation. None keeps eps constant.
        target: which calls: ``"auto"`` for all; the dotted path of a loss module of any class, e.g.
            ``"criterion"``; or a predicate on the :class:`~ls_lightning.tap.LossCall`, e.g.
            ``lambda call: call.position == 0`` for the first of several heads.
        override: let eps take the place of a ``label_smoothing`` that the module sets itself, which is refused
            otherwise.
        total_steps: optimizer steps over which the schedule runs. None asks the Trainer.
        interval: ``"step"``; or ``"epoch"``, eps then changes at the start of an epoch alone.

    Attributes:
        eps: the eps of the current or last training step; if each class has its own, their mean.
        feedback: with :class:`~ls_lightning.schedules.Feedback` what it has come to (``eps`` of each class, ``gap``,
            ``updates``), else None.
        num_smoothed: how many calls were smoothed in it.
        watch: a function that is called with each :class:`~ls_lightning.tap.LossCall` that is smoothed, set before a
            fit starts; not called in compiled code. None for nobody.

    Raises:
        ValueError: an argument is out of range or contradicts another; the module smooths already.
        LookupError: ``target`` is no submodule, or the first training step called no such loss.

    Example:
        >>> from ls_lightning.schedules import Linear
        >>> callback = LabelSmoothing(loss="kl", schedule=Linear(0.1, 0.0))
        >>> callback.eps
        0.1
    """

    def __init__(
        self,
        loss: Loss = "ce",
        eps: float | None = None,
        schedule: str | Schedule | Feedback | None = None,
        target: str | Select = "auto",
        override: bool = False,
        total_steps: int | None = None,
        interval: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        if interval not in ("step", "epoch"):
            raise ValueError(f"interval must be 'step' or 'epoch', got {interval!r}.")
        whole = isinstance(total_steps, int) and not isinstance(total_steps, bool)
        if total_steps is not None and not (whole and total_steps >= 1):
            raise ValueError(f"total_steps must be an integer larger than 0, got {total_steps!r}.")
        self.loss = loss
        self.schedule = resolve_schedule(loss, eps, schedule)
        self.target = target
        self.total_steps = total_steps
        self.interval = interval
        self.feedback = _feedback(self.schedule, target, total_steps, interval)
        self.eps = eps_of(loss) if self.schedule is None else first_eps(self.schedule)
        self.override = override
        self._steps = 0
        self._seen = 0
        self._moves = True
        self._logs = True
        self._trainer: L.Trainer | None = None
        self._written: float | None = None
        self._logged = -1
        self._values: dict[str, float] = {}
        self._shown: dict[str, Tensor] = {}
        self._horizon: int | None = None
        self.watch: Callable[[LossCall], None] | None = None
        self._calls = SmoothedCalls(loss, self.eps, override)
        self._loss_state: dict[str, Any] | None = None
        self._failed = False
        self._first = True
        self._tap: Tap | None = None
        self._undo: Callable[[], None] = nothing
        check_settable(loss, self._calls.loss, self.schedule)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self in trainer.callbacks:  # type: ignore[attr-defined]  # else another one calls its hooks
            idle = [LabelSmoothing.on_validation_batch_end] if self.feedback is None else []
            skip_idle_hooks([self], *idle)
        if stage == "fit":  # a second fit starts afresh; a checkpoint is loaded after this
            self._steps = 0
            self._horizon = None
            self._loss_state = None
            self._failed = False
            if self.feedback is not None:
                self.feedback.open(trainer)

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.override and self.target == "auto" and self._calls.kind != "binary":
            for path, smoothing in smoothing_modules(pl_module).items():
                raise ValueError(already_smooths(f"{type(pl_module).__name__}.{path}", smoothing))
        check_ranks(trainer, self._settings())
        self._calls = SmoothedCalls(self.loss, self.eps, self.override)
        self._calls.watch = self.watch
        self._calls.loss.to(pl_module.device)
        loss_state.restore(self._calls.loss, self._loss_state, trainer.global_rank)
        self._close()
        self._tap = Tap(pl_module, self._calls, self.target)
        self._undo = enter_with_step(trainer, "train", partial(self._begin_step, trainer, self._tap.step()))

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss_state.read_data(self._calls.loss, trainer)
        self._seen = trainer.global_step
        self._steps = self._steps or self._seen
        self._trainer = trainer
        self._logs = bool(trainer.loggers)
        self._moves = not (isinstance(self.schedule, Constant) and pl_module.automatic_optimization)
        self._written = None
        self._logged = -1
        self._first = True
        if vars(self).get("on_train_batch_end", self) is None:  # of a fit before
            del self.on_train_batch_end
        if self.feedback is not None:
            self.feedback.begin(trainer, pl_module)
        if self.schedule is None or isinstance(self.schedule, Constant | Feedback):
            return
        horizon = self.total_steps or estimated_steps(trainer)
        if self._horizon is not None and self._horizon != horizon:
            rank_zero_warn(
                f"The schedule runs over {self._horizon} steps, as the checkpoint says, not over the {horizon} of this "
                "Trainer: another horizon would make eps jump."
            )
        self._horizon = self._horizon or horizon

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss_state.start_epoch(self._calls.loss, trainer)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        skipped = pl_module.automatic_optimization and not outputs  # training_step returned None
        if self._first and not skipped:
            self._first = False
            check_first_step(pl_module, self._calls, self._tap, callable(self.target), self.eps)
            self._calls.target = None
            if self.feedback is None and self in trainer.callbacks:  # type: ignore[attr-defined]
                skip_idle_hooks([self], LabelSmoothing.on_train_batch_end)
        if self.feedback is not None:
            self.feedback.batch_trained(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.feedback is not None:
            self.feedback.validation_started(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.feedback is not None:
            self.feedback.batch_validated(pl_module, batch, outputs, batch_idx, dataloader_idx)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.feedback is not None:
            self.feedback.validation_ended(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.feedback is not None:
            self.feedback.validation_closed()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._failed = True
        self._close()
        if self.feedback is not None:
            self.feedback.close()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()
        self._count_steps()
        self._trainer = None
        if self.feedback is not None:
            self.feedback.close()

    @override
    def state_dict(self) -> dict[str, Any]:
        self._count_steps()
        feedback = None if self.feedback is None else self.feedback.state_dict()
        return {"eps": self.eps, "steps": self._steps, "total_steps": self._horizon, "feedback": feedback}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.eps = state_dict["eps"]
        self._steps = state_dict["steps"]
        self._horizon = state_dict["total_steps"]
        if self.feedback is not None and state_dict.get("feedback") is not None:
            self.feedback.load_state_dict(state_dict["feedback"])

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # After an exception on one rank the others may be anywhere, so nothing is gathered from them.
        loss_state.save(self._calls.loss, checkpoint, over_ranks=not self._failed)

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loss_state = loss_state.saved(checkpoint)

    @property
    def num_smoothed(self) -> int:
        """Calls of the module's loss that were smoothed in the last training step; 0 if they are in compiled code."""
        return self._calls.count

    def stand_at(self, eps: float, steps: int) -> None:
        """Be as ``steps`` optimizer steps leave it, the last of them with ``eps``: for what trains in its place."""
        self._count_steps()
        self.eps, self._steps = eps, steps

    def tell(self, listener: CallListener) -> None:
        """Until this fit ends, tell of every call of a loss that ``target`` selects, whether it is smoothed or not."""
        self._calls.listener = listener

    def _settings(self) -> dict[str, Any]:
        """What must be equal on all ranks; values, since the repr of a function is another in each process."""
        curve: object = self.schedule
        if self.schedule is not None and not isinstance(self.schedule, Feedback):
            curve = [self.schedule(t / 4) for t in range(5)]
        name = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", type(self.loss).__name__)
        return {"loss": name, "eps": self.eps, "schedule": curve}

    def _close(self) -> None:
        self._undo()
        self._undo = nothing
        self._tap = None

    def _begin_step(self, trainer: L.Trainer, step: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """Write eps; returns ``step`` to be entered. No hook: to call one takes Lightning longer than this."""
        self._calls.count = 0
        if self._calls.listener is not None:
            self._calls.listener.begin()
        if self.feedback is not None:
            self.eps = self.feedback.write(self._calls.loss)
        elif self._moves or self._written is None:
            self._follow_schedule(trainer)
        if self._moves or self._logs or not self._shown:
            self._log(trainer)
        else:  # Lightning forgets it at the end of each run of a loop
            trainer._logger_connector._callback_metrics.update(self._shown)
        return step

    def _follow_schedule(self, trainer: L.Trainer) -> None:
        self._count_steps()
        if self.schedule is None or isinstance(self.schedule, Feedback):
            return
        if self.interval == "step" or trainer.fit_loop.batch_idx == 0:
            progress = min(1.0, self._steps / self._horizon) if self._horizon else 0.0
            self.eps = eps_at(self.schedule, progress, isinstance(self._calls.loss, NegativeSmoothing))
        if self.eps != self._written:
            self._calls.set_eps(self.eps)
            self._written = self.eps

    def _count_steps(self) -> None:
        """Not global_step itself: manual optimisation moves it once for every optimizer."""
        if self._trainer is None:
            return
        done = self._trainer.global_step - self._seen
        self._steps += done if self._trainer.lightning_module.automatic_optimization else done > 0
        self._seen += done

    def _log(self, trainer: L.Trainer) -> None:
        """As Lightning's LearningRateMonitor does, past ``self.log``, which costs about 1 ms a step."""
        found = {"ls/eps": self.eps, **(self.feedback.logged() if self.feedback else {})}
        if found != self._values:
            self._values, self._shown = found, {name: torch.scalar_tensor(value) for name, value in found.items()}
        connector = trainer._logger_connector
        connector._callback_metrics.update(self._shown)  # trainer.callback_metrics computes what the module logs
        if not trainer.loggers:
            return
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if step != self._logged and connector.should_update_logs:
            self._logged = step
            for logger in trainer.loggers:
                logger.log_metrics({**found, "epoch": trainer.current_epoch}, step=step)


def _feedback(schedule: object, target: str | Select, total_steps: int | None, interval: str) -> FeedbackLoop | None:
    if not isinstance(schedule, Feedback):
        return None
    if interval == "epoch":
        raise ValueError(
            "interval='epoch' is for a curve; Feedback changes eps after a validation, and "
            "Trainer(check_val_every_n_epoch=...) says how often."
        )
    return FeedbackLoop(schedule, target, total_steps)
