"""Fewer samples of a split: what a CPU can train on."""

from torch import Tensor

from .data_base import Part
from .data_splits import generator, stratified_cut


def limited(part: Part, count: int | None, seed: int) -> Part:
    """Keep ``count`` training samples, of each class its share; a larger count keeps those of a smaller one.

    Args:
        part: the training split.
        count: None keeps all.
        seed: which samples.

    Raises:
        ValueError: there are not so many.

    Example:
        >>> import torch
        >>> limited(Part(torch.arange(6), torch.tensor([0, 0, 0, 0, 1, 1])), 3, seed=0).labels
        tensor([0, 0, 1])
    """
    if count is None:
        return part
    available = len(part.labels)
    if count > available:
        raise ValueError(f"limit_train must be at most the {available} training samples that there are, got {count}.")
    strata = part.labels if part.labels.ndim == 1 else part.labels.new_zeros(available)
    _, kept = stratified_cut(strata, count / available, generator(seed, "limit"))
    return part if count == available else rows_of(part, kept)


def rows_of(part: Part, rows: Tensor) -> Part:
    """Some of the samples, whether inputs are a tensor or a list."""
    at = rows.tolist()
    x = part.x[rows] if isinstance(part.x, Tensor) else [part.x[row] for row in at]
    return Part(x, part.labels[rows], None if part.ids is None else [part.ids[row] for row in at])
