"""The losses of all members at once: each row has the eps of its member."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ls_lightning.eps_buffer import EpsBuffer


class StackedLoss(nn.Module):
    """Losses ``(M,)`` of logits ``(M, B, K)``; those of equal options are computed together.

    Args:
        losses: one a member. Their eps is read in every call, and may be set in between.
        kinds: equal for members whose losses differ in nothing but eps.
    """

    def __init__(self, losses: Sequence[EpsBuffer], kinds: Sequence[str]) -> None:
        super().__init__()
        self._losses = list(losses)  # not a part of this module
        self._members = [[k for k, kind in enumerate(kinds) if kind == name] for name in dict.fromkeys(kinds)]
        self.kinds = nn.ModuleList(copy.deepcopy(losses[members[0]]) for members in self._members)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Each member's loss, reduced as it is alone; targets ``(M, B)``, or ``(M, B, L)`` for several labels."""
        parts = []
        for loss, members in zip(self.kinds, self._members, strict=True):
            every = len(members) == len(self._losses)
            rows = (part if every else part[members] for part in (logits, target))
            parts.append(self._of_kind(loss, members, *rows))  # type: ignore[arg-type]
        if len(parts) == 1:
            return parts[0]
        order = torch.tensor([k for members in self._members for k in members], device=logits.device)
        return torch.cat(parts)[order.argsort()]

    def _of_kind(self, loss: EpsBuffer, members: list[int], logits: Tensor, target: Tensor) -> Tensor:
        count, batch = logits.shape[:2]
        for name in ("eps", "_eps_rest"):
            values = torch.stack([getattr(self._losses[k], name) for k in members])
            setattr(loss, name, values.to(logits.device).repeat_interleave(batch).unsqueeze(1))
        each: Tensor = loss(logits.flatten(0, 1), target.flatten(0, 1), reduction="none").view(count, -1)
        if loss.reduction == "mean":
            return each.mean(1)
        return each.sum(1) / (batch if loss.reduction == "batchmean" else 1)
