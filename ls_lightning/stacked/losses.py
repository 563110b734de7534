"""The losses of all members at once: each row has the eps of its member."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ls_lightning.eps_buffer import EpsBuffer
from ls_lightning.losses import SmoothedBCEWithLogits


class StackedLoss(nn.Module):
    """Losses ``(M,)`` of logits ``(M, B, K)``; those of equal options are computed together.

    Args:
        losses: one a member, with a number as eps, which they begin with.
        kinds: equal for members whose losses differ in nothing but eps.
    """

    def __init__(self, losses: Sequence[EpsBuffer], kinds: Sequence[str]) -> None:
        super().__init__()
        self._members = [[k for k, kind in enumerate(kinds) if kind == name] for name in dict.fromkeys(kinds)]
        self._order = torch.tensor([k for members in self._members for k in members]).argsort()
        self._kinds = [copy.deepcopy(losses[members[0]]) for members in self._members]
        self.kinds = nn.ModuleList(self._kinds)
        self._eps = [loss.eps.double().item() + loss._eps_rest.double().item() for loss in losses]
        self._rows = 0  # of each member, for which eps is laid out

    def set_eps(self, values: Sequence[float]) -> None:
        """Give each member another eps."""
        if values != self._eps:
            self._eps, self._rows = list(values), 0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Each member's loss, reduced as it is alone; targets ``(M, B)``, or ``(M, B, L)`` for several labels."""
        if self._rows != logits.shape[1]:
            self._lay_out(logits.shape[1])
        if len(self._kinds) == 1:
            return self._of_kind(self._kinds[0], logits, target)
        parts = [
            self._of_kind(loss, logits[members], target[members])
            for loss, members in zip(self._kinds, self._members, strict=True)
        ]
        return torch.cat(parts)[self._order.to(logits.device)]

    def _lay_out(self, rows: int) -> None:
        self._rows = rows
        for loss, members in zip(self._kinds, self._members, strict=True):
            exact = torch.tensor([self._eps[k] for k in members], dtype=torch.float64).repeat_interleave(rows)
            high = exact.float()
            loss.eps = high.unsqueeze(1).to(loss.eps.device)
            loss._eps_rest = (exact - high).float().unsqueeze(1).to(loss.eps.device)

    def _of_kind(self, loss: EpsBuffer, logits: Tensor, target: Tensor) -> Tensor:
        count, batch = logits.shape[:2]
        each: Tensor = loss(logits.flatten(0, 1), target.flatten(0, 1), reduction="none").view(count, -1)
        if loss.reduction != "mean":
            return each.sum(1) / (batch if loss.reduction == "batchmean" else 1)
        weight: Any = loss.weight
        if weight is None or isinstance(loss, SmoothedBCEWithLogits):
            return each.mean(1)
        weights: Tensor = weight.to(each.dtype)[target].sum(1)
        return each.sum(1) / weights.masked_fill(weights == 0, 1)  # 0 where nothing counts
