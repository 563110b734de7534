"""The LightningModule that trains all members of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ls_lightning.stacked.losses import StackedLoss
from ls_lightning.stacked.members import Member
from ls_lightning.stacked.network import Block, optimizer_state_of


class StackedModule(L.LightningModule):
    """Train M networks on the sum of their losses: the gradient of each is what it is alone.

    Members with the same optimizer settings are a block; the optimizer has a group of parameters for each.

    Args:
        members: those with equal optimizer settings in a row.

    Attributes:
        logged: loss, and accuracy if the members log it, of the last training step: ``(M, 1)`` or ``(M, 2)``.
        outputs: logits ``(M, B, K)`` and targets of the last validation step.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self._members = list(members)
        blocks = [list(block) for _, block in groupby(members, key=lambda member: member.optimizer)]
        self._sizes = [len(block) for block in blocks]
        self._blocks = [Block([member.classifier.model for member in block]) for block in blocks]
        self.blocks = nn.ModuleList(self._blocks)
        self._task = members[0].classifier.task
        self._accuracy = bool(getattr(members[0].train_loss, "accuracy", False))
        self.logged = torch.empty(0)
        self.outputs: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def forward(self, x: Tensor, shared: bool = False) -> Tensor:
        """Logits ``(M, B, K)``, for binary ``(M, B)``, of inputs ``(M, B, ...)`` or shared ones ``(B, ...)``."""
        parts = [x] * len(self._sizes) if shared else torch.split(x, self._sizes)
        found = [block(part, shared) for block, part in zip(self._blocks, parts, strict=True)]
        logits = found[0] if len(found) == 1 else torch.cat(found)
        return logits.squeeze(-1) if self._task == "binary" else logits

    def on_train_start(self) -> None:
        """The losses are complete now: a prior has been read from the data."""
        losses = [member.loss for member in self._members]
        self.criterion = StackedLoss(losses, [member.kind for member in self._members]).to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The sum, not the mean: a step of each member is that of a run of its own."""
        x, target = batch
        logits = self(x)
        losses: Tensor = self.criterion(logits, target)
        values = [losses.detach()]
        if self._accuracy:
            hits = logits.argmax(-1) == target if self._task == "multiclass" else (logits > 0) == (target > 0.5)
            values.append(hits.flatten(1).sum(1) / hits[0].numel())
        self.logged = torch.stack(values, 1)
        return losses.sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Leave the logits of all members for :class:`~ls_lightning.stacked.record.Record`."""
        x, target = batch
        self.outputs = self(x, shared=True), target

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the members, with a group for each block."""
        groups = []
        for block, start in zip(self._blocks, self._starts, strict=True):
            settings = self._members[start].cfg.optimizer
            options = {str(key): value for key, value in settings.items() if not str(key).startswith("_")}
            groups.append({**options, "params": list(block.parameters())})
        optimizer: torch.optim.Optimizer = instantiate(self._members[0].cfg.optimizer, _partial_=True)(groups)
        return optimizer

    def states_of(self, index: int, optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State dicts of the network of member ``index`` and of its optimizer, out of that of the stack's."""
        block = max(k for k, start in enumerate(self._starts) if start <= index)
        member = index - self._starts[block]
        return self._blocks[block].state_of(member), optimizer_state_of(optimizer, block, member)

    @property
    def _starts(self) -> list[int]:
        return [sum(self._sizes[:k]) for k in range(len(self._sizes))]
