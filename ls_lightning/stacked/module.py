"""The LightningModule that trains all members of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from typing_extensions import override

from ls_lightning.seeds import mixed_seed
from ls_lightning.stacked.losses import StackedLoss
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.network import StackedNetwork
from ls_lightning.stacked.optimizer import StackedOptimizer, clip_members


class StackedModule(L.LightningModule):
    """Train M networks on the sum of their losses: the gradient of each is what it is alone.

    Args:
        members: those with equal optimizer settings in a row.

    Attributes:
        logged: loss, and accuracy if the members log it, of the last training step that is logged: ``(M, 1)`` or
            ``(M, 2)``.
        outputs: logits ``(M, B, K)`` and targets of the last validation step.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self._members = list(members)
        self._seeds = [int(member.config["seed"]) for member in members]
        self.network = StackedNetwork([member.classifier.model for member in members])
        self._task = members[0].classifier.task
        self._accuracy = bool(getattr(members[0].train_loss, "accuracy", False))
        self._step: StackedOptimizer | None = None
        self.logged = torch.empty(0)
        self.outputs: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    @override
    def forward(self, x: Tensor, shared: bool = False) -> Tensor:
        """Logits ``(M, B, K)``, for binary ``(M, B)``, of inputs ``(M, B, ...)`` or shared ones ``(B, ...)``."""
        logits: Tensor = self.network(x, shared)
        return logits.squeeze(-1) if self._task == "binary" else logits

    @override
    def on_train_start(self) -> None:
        """The losses are complete now: a prior has been read from the data."""
        losses = [member.loss for member in self._members]
        self.criterion = StackedLoss(losses, [member.kind for member in self._members]).to(self.device)

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The sum, not the mean: a step of each member is that of a run of its own."""
        x, target = batch
        self._seed_dropout()
        logits = self(x)
        losses: Tensor = self.criterion(logits, target)
        if self.trainer._logger_connector.should_update_logs:
            self._keep(losses.detach(), logits.detach(), target)
        return losses.sum()

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Leave the logits of all members for :class:`~ls_lightning.stacked.record.Record`."""
        x, target = batch
        self.outputs = self(x, shared=True), target

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings = [member.config["optimizer"] for member in self._members]
        self._step = StackedOptimizer(list(self.network.parameters()), settings)
        return self._step.optimizer

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        self.zero_grad()

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self._step is not None
        self._step.take_gradients()

    @override
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """In place, so that what the optimizer has been shown is clipped."""
        if gradient_clip_val:
            clip_members(list(self.network.parameters()), gradient_clip_val, gradient_clip_algorithm)

    def states_of(self, index: int, optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State dicts of the network of member ``index`` and of its optimizer, out of that of the stack's."""
        assert self._step is not None
        return self.network.state_of(index), self._step.state_of(optimizer, index)

    def _seed_dropout(self) -> None:
        """As SeededSteps does for a member alone."""
        if not self.network.draws:
            return
        done = cast(_ProcessedTracker, self.trainer.fit_loop.epoch_loop.batch_progress.total).processed
        self.network.seed([mixed_seed("step", seed, 0, done) for seed in self._seeds])

    def _keep(self, losses: Tensor, logits: Tensor, target: Tensor) -> None:
        values = [losses]
        if self._accuracy:
            hits = logits.argmax(-1) == target if self._task == "multiclass" else (logits > 0) == (target > 0.5)
            values.append(hits.flatten(1).sum(1) / hits[0].numel())
        self.logged = torch.stack(values, 1)
