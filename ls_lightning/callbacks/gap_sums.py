"""GapSums: mean confidence minus accuracy, of all samples and of those predicted as each class, in integers."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch import Tensor

from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.samples import measure

_UNITS = 2.0**32


class GapSums:
    """Per predicted class the count and the excess of confidence over hits; integers, so equal bits on any ranks."""

    def __init__(self) -> None:
        self._sums = torch.zeros(1, 2, dtype=torch.int64)
        self._multiclass = True

    def add(self, outputs: Outputs) -> None:
        """Add a batch."""
        spec = Spec(**outputs.options)
        scores, labels = as_rows(outputs.logits, outputs.target, spec)
        samples = measure(scores, labels, spec)
        excess = ((samples.confidence - samples.hit.double()) * _UNITS).round().long()
        rows = torch.stack([torch.ones_like(excess), excess], 1) * samples.counted[:, None]
        self._multiclass = scores.ndim == 2
        predicted = scores.argmax(1) if self._multiclass else torch.zeros_like(labels, dtype=torch.int64)
        sums = rows.new_zeros(scores.shape[1] if self._multiclass else 1, 2).index_add_(0, predicted, rows)
        self._sums = _padded(self._sums, len(sums)).to(sums.device) + _padded(sums, len(self._sums))

    def gaps(self, trainer: L.Trainer, device: torch.device) -> tuple[float, list[float]]:
        """The gap over all ranks, and of each class; nan where nothing was predicted. Every rank has to call it."""
        sums = self._sums.to(device)
        if trainer.world_size > 1:  # one rank may have had no batch, and not know how many classes there are
            most = trainer.strategy.reduce(torch.tensor(len(sums), device=device), reduce_op="max")
            sums = trainer.strategy.reduce(_padded(sums, int(most)), reduce_op="sum")
        counts, excess = sums.T.tolist()
        return _gap(sum(counts), sum(excess)), [_gap(n, units) for n, units in zip(counts, excess, strict=True)]


def _padded(sums: Tensor, classes: int) -> Tensor:
    return torch.cat([sums, sums.new_zeros(max(0, classes - len(sums)), 2)])


def _gap(count: int, excess: int) -> float:
    return excess / (count * int(_UNITS)) if count else math.nan
