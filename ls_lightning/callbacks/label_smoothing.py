"""LabelSmoothing: smooth the training loss of a LightningModule that stays as its author wrote it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from ls_lightning.callbacks import loss_state
from ls_lightning.callbacks.agreement import check_ranks
from ls_lightning.callbacks.smoothed_calls import Loss, SmoothedCalls, already_smooths
from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.losses import NegativeSmoothing, usual_eps
from ls_lightning.schedules import Constant, Schedule, build_schedule
from ls_lightning.tap import Select, Tap, smoothing_modules


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
            such as ``Linear(0.1, 0.0)``, which says it all. None keeps eps constant.
        target: which calls: ``"auto"`` for all; the dotted path of a loss module of any class, e.g.
            ``"criterion"``; or a predicate on the :class:`~ls_lightning.tap.LossCall`, e.g.
            ``lambda call: call.position == 0`` for the first of several heads.
        override: let eps take the place of a ``label_smoothing`` that the module sets itself, which is refused
            otherwise.
        total_steps: optimizer steps over which the schedule runs. None asks the Trainer.

    Attributes:
        eps: the eps of the current or last training step.
        num_smoothed: how many calls were smoothed in it.

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
        schedule: str | Schedule | None = None,
        target: str | Select = "auto",
        override: bool = False,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        if total_steps is not None and (isinstance(total_steps, bool) or not total_steps >= 1):
            raise ValueError(f"total_steps must be an integer larger than 0, got {total_steps!r}.")
        self.loss = loss
        self.schedule = _resolve_schedule(loss, eps, schedule)
        self.target = target
        self.total_steps = total_steps
        self.eps = self.schedule(0.0) if self.schedule is not None else _eps_of(loss)
        self.override = override
        self._steps = 0
        self._logged = -1
        self._horizon: int | None = None
        self._calls = SmoothedCalls(loss, self.eps, override)
        self._loss_state: dict[str, Any] | None = None
        self._failed = False
        self._first = True
        self._tap: Tap | None = None
        self._undo: Callable[[], None] = nothing
        if self.schedule is not None and not hasattr(self._calls.loss, "set_eps"):
            raise ValueError(
                f"eps is set by LabelSmoothing, got the loss {type(loss).__name__}, which has no set_eps(eps). "
                "Pass a function of (logits, target, eps), or give eps to the loss alone."
            )

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":  # a second fit starts afresh; a checkpoint is loaded after this
            self._steps = 0
            self._horizon = None
            self._loss_state = None
            self._failed = False

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.override and self.target == "auto" and self._calls.kind != "binary":
            for path, smoothing in smoothing_modules(pl_module).items():
                raise ValueError(already_smooths(f"{type(pl_module).__name__}.{path}", smoothing))
        check_ranks(trainer, self._settings())
        self._calls = SmoothedCalls(self.loss, self.eps, self.override)
        self._calls.loss.to(pl_module.device)
        loss_state.restore(self._calls.loss, self._loss_state, trainer.global_rank)
        self._close()
        self._tap = Tap(pl_module, self._calls, self.target)
        self._undo = enter_with_step(trainer, "train", self._tap.step)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss_state.read_data(self._calls.loss, trainer)
        self._steps = self._steps or trainer.global_step
        self._logged = -1
        self._first = True
        if self.schedule is None or isinstance(self.schedule, Constant):
            return
        horizon = self.total_steps or _estimated_steps(trainer)
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
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._before = trainer.global_step
        self._calls.count = 0
        self._write_eps()
        self._log(trainer)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Not global_step itself: manual optimisation moves it once for every optimizer.
        self._steps += trainer.global_step != self._before
        skipped = pl_module.automatic_optimization and not outputs  # training_step returned None
        if self._first and not skipped:
            self._first = False
            self._check_first_step(pl_module)
        self._calls.target = None

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._failed = True
        self._close()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"eps": self.eps, "steps": self._steps, "total_steps": self._horizon}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.eps = state_dict["eps"]
        self._steps = state_dict["steps"]
        self._horizon = state_dict["total_steps"]

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

    def _settings(self) -> dict[str, Any]:
        """What must be equal on all ranks; values, since the repr of a function is another in each process."""
        curve = [] if self.schedule is None else [self.schedule(t / 4) for t in range(5)]
        name = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", type(self.loss).__name__)
        return {"loss": name, "eps": self.eps, "schedule": curve}

    def _close(self) -> None:
        self._undo()
        self._undo = nothing
        self._tap = None

    def _check_first_step(self, pl_module: L.LightningModule) -> None:
        calls, step = self._calls, f"{type(pl_module).__name__}.training_step"
        if not calls.answered and calls.skipped is not None:
            raise LookupError(
                f"{step} calls {calls.skipped}, got a loss for another task, so nothing was smoothed. "
                f"Use loss={'ce' if calls.kind == 'binary' else 'bce'!r}, or name its own loss: target='criterion'."
            )
        if not calls.answered and self._tap is not None and self._tap.calls:
            why = "target selects none" if callable(self.target) else "no gradient comes from any"
            raise LookupError(f"{why} of the {self._tap.calls} losses that {step} calls, so nothing was smoothed.")
        if not calls.answered:
            raise LookupError(
                f"no cross-entropy was seen in {step}, so nothing was smoothed. Name the loss: "
                "LabelSmoothing(target='criterion'), or subclass with LabelSmoothingMixin."
            )
        target = calls.target
        if self.eps and target is not None and target.is_floating_point() and bool(((target > 0) & (target < 1)).all()):
            rank_zero_warn(
                f"The targets are smooth already (every class has mass) and eps={self.eps} smooths them again. "
                "Mixup of some libraries smooths by default: turn one of the two off."
            )

    def _write_eps(self) -> None:
        if self.schedule is None:
            return
        progress = min(1.0, self._steps / self._horizon) if self._horizon else 0.0
        self.eps = float(self.schedule(progress))
        self._calls.loss.set_eps(self.eps)  # type: ignore[operator]

    def _log(self, trainer: L.Trainer) -> None:
        """As Lightning's LearningRateMonitor does, past ``self.log``, which costs about 1 ms a step."""
        trainer.callback_metrics["ls/eps"] = torch.tensor(self.eps)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if step != self._logged and trainer._logger_connector.should_update_logs:
            self._logged = step
            for logger in trainer.loggers:
                logger.log_metrics({"ls/eps": self.eps, "epoch": trainer.current_epoch}, step=step)


def _resolve_schedule(loss: object, eps: float | None, schedule: str | Schedule | None) -> Schedule | None:
    if loss == "negative" or isinstance(loss, NegativeSmoothing):
        return loss_state.warm_up(loss, eps, schedule)
    if isinstance(schedule, str):
        return build_schedule(schedule, _eps_of(loss) if eps is None else eps)
    if schedule is not None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a name or a schedule such as Linear(0.1, 0.0), got {schedule!r}.")
        if eps is not None and not math.isclose(schedule(0.0), eps):
            raise ValueError(
                f"give eps or a schedule, got eps={eps} and {schedule!r}, which starts at {schedule(0.0)}."
            )
        return schedule
    if eps is None and isinstance(loss, nn.Module):
        return None
    return Constant(_eps_of(loss) if eps is None else eps)


def _eps_of(loss: object) -> float:
    if isinstance(loss, nn.Module):
        eps = getattr(loss, "eps", None)
        return float(eps.mean()) if isinstance(eps, Tensor) else 0.0
    return usual_eps(loss) if isinstance(loss, str) else 0.1


def _estimated_steps(trainer: L.Trainer) -> int:
    steps: float = math.inf if _accumulation_changes(trainer) else trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        raise ValueError(
            "the schedule needs the number of training steps, which this Trainer cannot know (endless data, max_time "
            "or a changing accumulation). Say it: LabelSmoothing(total_steps=10_000)."
        )
    return int(steps)


def _accumulation_changes(trainer: L.Trainer) -> bool:
    """Lightning's estimate would go on with the accumulation of the first epoch."""
    # By name: lightning and pytorch_lightning each have their own.
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if type(callback).__name__ == "GradientAccumulationScheduler"]
    return any(len(set(callback.scheduling.values())) > 1 for callback in found)
