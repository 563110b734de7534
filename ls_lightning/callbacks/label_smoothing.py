"""LabelSmoothing: smooth the training loss of a LightningModule that stays as its author wrote it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from typing_extensions import override

from ls_lightning.losses import LOSSES, FunctionLoss, SmoothedBCEWithLogits, build_loss, usual_eps
from ls_lightning.schedules import Constant, Schedule, build_schedule
from ls_lightning.tap import Kind, LossSite, find_losses


class LabelSmoothing(L.Callback):
    """Smooth the training loss of any LightningModule that holds its loss as an ``nn.Module`` attribute.

    During each training step the module's ``nn.CrossEntropyLoss``, ``nn.NLLLoss`` or ``nn.BCEWithLogitsLoss``
    is replaced by ``loss``, with the author's class weights, ``ignore_index`` and reduction; before and after
    the step, in validation, in test and in checkpoints the module is exactly what its author wrote. eps follows
    ``schedule`` over the optimizer steps of the run, is logged as ``ls/eps``, and continues exactly when a run
    is resumed from a checkpoint.

    Args:
        loss: a name (``"ce"``, ``"kl"``, ``"bce"``, ``"soft_ce"``, ``"none"``), an ``nn.Module`` called with
            ``(logits, target)``, or a function called with ``(logits, target, eps)``.
        eps: in [0, 1), the mass taken from the true class. None: what ``schedule`` says, else what the given
            loss module holds, else the usual value of the loss (0.1 for ``ce``, ``kl`` and ``bce``).
        schedule: a name (``"linear"``, ``"cosine"``, ...), which starts at ``eps``, or a schedule
            such as ``Linear(0.1, 0.0)``, which says it all. None keeps eps constant.
        target: ``"auto"`` for every loss of the kind that ``loss`` is for, or the dotted name of the attribute
            that holds the loss, e.g. ``"criterion"``.
        total_steps: optimizer steps over which the schedule runs. None asks the Trainer.

    Attributes:
        eps: the eps of the current or last training step.

    Raises:
        ValueError: an argument is out of range or contradicts another; the module smooths already; the loss
            does not fit the module's.
        LookupError: the module holds no loss, or the first training step did not call it.

    Example:
        >>> from ls_lightning.schedules import Linear
        >>> callback = LabelSmoothing(loss="kl", schedule=Linear(0.1, 0.0))
        >>> callback.eps
        0.1
    """

    def __init__(
        self,
        loss: str | nn.Module | Callable[[Tensor, Tensor, Tensor], Tensor] = "ce",
        eps: float | None = None,
        schedule: str | Schedule | None = None,
        target: str = "auto",
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
        if isinstance(loss, str):
            build_loss(loss, eps=self.eps)
        self._steps = 0
        self._logged = -1
        self._horizon: int | None = None
        self._sites: list[LossSite] = []
        self._losses: list[nn.Module] = []
        self._watch = _Watch()
        self._first = True

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":  # a second fit starts afresh; a checkpoint is loaded after this
            self._steps = 0
            self._horizon = None

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = find_losses(pl_module, self.target)
        kind = _kind_of(self.loss)
        self._sites = [site for site in found if site.kind is None or kind is None or site.kind == kind]
        if not self._sites:
            raise LookupError(
                f"{type(pl_module).__name__}.{found[0].path} is {type(found[0].module).__name__}, got a loss for "
                f"another task. Use loss={'bce' if kind == 'multiclass' else 'ce'!r}."
            )
        self._losses = [self._loss_for(site, pl_module) for site in self._sites]

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps = self._steps or trainer.global_step
        self._logged = -1
        self._first = True
        if self.schedule is None or isinstance(self.schedule, Constant):
            return
        horizon = self.total_steps or _estimated_steps(trainer)
        if self._horizon is not None and self._horizon != horizon:
            warnings.warn(
                f"The schedule runs over {self._horizon} steps, as the checkpoint says, not over the {horizon} of this "
                "Trainer: another horizon would make eps jump.",
                stacklevel=2,
            )
        self._horizon = self._horizon or horizon

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._before = trainer.global_step
        self._write_eps()
        self._log(trainer)
        for site, loss in zip(self._sites, self._losses, strict=True):
            loss.train()
            site.put(loss)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._restore()
        # Not global_step itself: manual optimisation moves it once for every optimizer.
        self._steps += trainer.global_step != self._before
        if self._first:
            self._first = False
            self._watch.check_first_step(pl_module, self.eps)
        self._watch.target = None

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore()
        self._sites, self._losses = [], []

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"eps": self.eps, "steps": self._steps, "total_steps": self._horizon}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.eps = state_dict["eps"]
        self._steps = state_dict["steps"]
        self._horizon = state_dict["total_steps"]

    def _loss_for(self, site: LossSite, pl_module: L.LightningModule) -> nn.Module:
        where = f"{type(pl_module).__name__}.{site.path}"
        if site.label_smoothing:
            raise ValueError(
                f"{where} already smooths (label_smoothing={site.label_smoothing}); smoothing twice is not what eps "
                "says. Set it to 0 there, or leave LabelSmoothing away."
            )
        loss = _adapt(self.loss, site, self.eps)
        if self.schedule is not None and not hasattr(loss, "set_eps"):
            raise ValueError(
                f"eps is set by LabelSmoothing, got the loss {type(loss).__name__}, which has no set_eps(eps). "
                "Pass a function of (logits, target, eps), or give eps to the loss alone."
            )
        loss.register_forward_pre_hook(self._watch)
        return loss.to(pl_module.device)

    def _write_eps(self) -> None:
        if self.schedule is None:
            return
        progress = min(1.0, self._steps / self._horizon) if self._horizon else 0.0
        self.eps = float(self.schedule(progress))
        for loss in self._losses:
            loss.set_eps(self.eps)  # type: ignore[operator]

    def _log(self, trainer: L.Trainer) -> None:
        """As Lightning's LearningRateMonitor does, past ``self.log``, which costs about 1 ms a step."""
        trainer.callback_metrics["ls/eps"] = torch.tensor(self.eps)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if step != self._logged and trainer._logger_connector.should_update_logs:
            self._logged = step
            for logger in trainer.loggers:
                logger.log_metrics({"ls/eps": self.eps, "epoch": trainer.current_epoch}, step=step)

    def _restore(self) -> None:
        for site in self._sites:
            site.restore()


class _Watch:
    """Sees the calls of the loss: did the first training step make one, were its targets smooth already?

    The hook stays on the loss and always does the same, since taking it away would recompile a compiled step.
    """

    def __init__(self) -> None:
        self.target: Tensor | None = None

    def __call__(self, loss: nn.Module, args: tuple[Any, ...]) -> None:
        self.target = args[1]

    def check_first_step(self, pl_module: L.LightningModule, eps: float) -> None:
        if self.target is None:
            raise LookupError(
                f"no loss was called in {type(pl_module).__name__}.training_step, so nothing was smoothed. "
                "Name the loss: LabelSmoothing(target='criterion'), or subclass with LabelSmoothingMixin."
            )
        if eps and self.target.is_floating_point() and bool(((self.target > 0) & (self.target < 1)).all()):
            warnings.warn(
                f"The targets are smooth already (every class has mass) and eps={eps} smooths them again. "
                "Mixup of some libraries smooths by default: turn one of the two off.",
                stacklevel=2,
            )


def _resolve_schedule(loss: object, eps: float | None, schedule: str | Schedule | None) -> Schedule | None:
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


def _kind_of(loss: object) -> Kind | None:
    """The task that a loss is for; None for a function or module of the user's own."""
    if loss == "bce" or isinstance(loss, SmoothedBCEWithLogits):
        return "binary"
    return "multiclass" if isinstance(loss, str) or type(loss) in LOSSES.values() else None


def _adapt(loss: str | nn.Module | Callable[..., Tensor], site: LossSite, eps: float) -> nn.Module:
    """The loss that stands in at ``site``, with the options that its author gave."""
    options = site.options()
    if isinstance(loss, str):
        return build_loss(loss, eps=eps, **options)
    if not isinstance(loss, nn.Module):
        return FunctionLoss(loss, eps=eps, **options)
    loss = copy.deepcopy(loss)
    unset: Mapping[str, Any] = {"weight": None, "pos_weight": None, "ignore_index": -100, "reduction": "mean"}
    for name, value in options.items():
        if not hasattr(loss, name):
            raise ValueError(
                f"{site.path} has {name}={value!r}, which the loss {type(loss).__name__} cannot take. Give that loss "
                f"an attribute {name}, or leave it away in the module."
            )
        current = getattr(loss, name)
        if name == "input" or _equal(current, unset[name]):
            setattr(loss, name, value)
        elif not _equal(current, value):
            raise ValueError(
                f"{name} is given twice: {value!r} by {site.path} and {current!r} by the loss {type(loss).__name__}. "
                "Leave it away in one of them."
            )
    return loss


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a.cpu(), b.cpu())
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


def _estimated_steps(trainer: L.Trainer) -> int:
    try:
        steps = trainer.estimated_stepping_batches
    except MisconfigurationException:
        steps = math.inf
    if not 0 < steps < math.inf:
        raise ValueError(
            "the schedule needs the number of training steps, which this Trainer cannot know (endless data, max_time "
            "or a changing accumulation). Say it: LabelSmoothing(total_steps=10_000)."
        )
    return int(steps)
