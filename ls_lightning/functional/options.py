"""The options all losses share: their names, their types, and the refusal of any other."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Input = Literal["logits", "log_probs"]
Reduction = Literal["mean", "sum", "none", "batchmean"]
Spread = Literal["all", "others"]
WeightMode = Literal["sample", "torch"]

CHOICES = {
    "input": ("logits", "log_probs"),
    "reduction": ("mean", "sum", "none", "batchmean"),
    "spread": ("all", "others"),
    "weight_mode": ("sample", "torch"),
}


def check_options(**options: str) -> None:
    """Raise a ValueError for an option that is not one of its choices."""
    for name, given in options.items():
        if given not in CHOICES[name]:
            raise ValueError(f"{name} must be one of {quoted(CHOICES[name])}, got {given!r}.")


def quoted(names: Iterable[str]) -> str:
    """List names for an error: 'a', 'b', 'c'."""
    return ", ".join(map(repr, names))


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Return float64 for float64 and float32 for every narrower dtype; refuse what is not floating point."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype} of shape {tuple(logits.shape)}.")
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
