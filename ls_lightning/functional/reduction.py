"""From one loss per sample to what the user asked for."""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.options import Reduction, WeightMode
from ls_lightning.functional.targets import Target


class RowWeights(NamedTuple):
    """What each loss `(N, d1, ...)` adds to the sum, and to the denominator of the mean; None: 1 each.

    Attributes:
        shape: of the losses.
        weight: their factors.
        valid: False where ignored; None where nothing is.
        counts: what each adds to the denominator.
    """

    shape: torch.Size
    weight: Tensor | None
    valid: Tensor | None
    counts: Tensor | None

    @classmethod
    def of(cls, target: Target, weight: Tensor | None, mode: WeightMode, dtype: torch.dtype) -> "RowWeights":
        """Take them from the weights `(K,)` of the classes."""
        shape = target.value.shape
        if target.is_distribution:
            shape = torch.Size((*shape[:1], *shape[2:]))
        valid = target.valid
        counts = None if valid is None else valid.to(dtype)
        if weight is None:
            return cls(shape, None, valid, counts)
        sample_weight = target.expectation(weight)
        if mode == "sample" or not target.is_distribution:
            counts = sample_weight if counts is None else counts * sample_weight
        return cls(shape, sample_weight if mode == "sample" else None, valid, counts)

    def weigh(self, loss: Tensor) -> Tensor:
        """Multiply the losses by their factors: 0 where that is 0 or ignored, even if they are nan."""
        if self.weight is not None:
            loss = (self.weight * loss).masked_fill(self.weight == 0, 0)
        return loss if self.valid is None else loss.masked_fill(~self.valid, 0)

    def reduce(self, loss: Tensor, reduction: Reduction) -> Tensor:
        """Weigh losses and reduce them."""
        return reduce(self.weigh(loss), self.counts, reduction)

    def slope(self, reduction: Reduction) -> float | Tensor:
        """The derivative of the reduced loss by each of the losses: a number, or `(N, d1, ...)`."""
        rows: float | Tensor = 1.0 if self.weight is None else self.weight
        if self.valid is not None and self.counts is not None:
            rows = self.valid.to(self.counts.dtype) * rows
        if reduction == "batchmean":
            return rows / max(self.shape[0], 1)
        if reduction != "mean":
            return rows
        if self.counts is None:
            return rows / max(self.shape.numel(), 1)
        denominator = self.counts.sum()
        return torch.where(denominator == 0, 0, rows / denominator)


def reduce(loss: Tensor, counts: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce losses `(N, ...)`, which are 0 where ignored.

    Args:
        loss: weighted losses.
        counts: what each adds to the denominator of the mean, of the losses' shape; None: 1 each.
        reduction: `"mean"` sum / sum of counts, `"batchmean"` sum / N, `"sum"`, or `"none"`.

    Returns:
        `(N, ...)` for `"none"`, else a 0-d tensor: 0, with zero gradient, where nothing counts.
    """
    if reduction == "none":
        return loss
    if reduction == "mean" and counts is None and loss.numel():
        return loss.mean()
    total = loss.sum()
    if reduction == "batchmean":
        return total / max(loss.shape[0], 1)
    if reduction == "sum" or counts is None:
        return total
    denominator = counts.sum()
    nothing = denominator == 0
    return (total / denominator.masked_fill(nothing, 1)).masked_fill(nothing, 0)
