"""What a loss may want to know of the training data: its labels, and the names of its classes."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset


def class_frequencies(trainer: L.Trainer) -> Tensor:
    """Samples of each class in the training set, ``(K,)``, averaged over the ranks: the same on every one.

    The ranks have the same set, or each a part of its own, which come to the same frequencies. From ``train_labels``
    of the data module, or else ``targets`` or ``labels`` of the data set, or the last tensor of a ``TensorDataset``;
    labels below 0, and the ``ignore_index`` of the data module, are not counted.

    Raises:
        LookupError: none of these is there.
    """
    data = getattr(trainer, "datamodule", None)
    labels = getattr(data, "train_labels", None)
    if labels is None:
        labels = _labels(getattr(trainer.train_dataloader, "dataset", None))
    if labels is None:
        raise LookupError(
            f"prior='frequencies' needs the training labels, which {type(data or trainer.train_dataloader).__name__} "
            "does not show. Give it train_labels, or the counts of the classes: prior=[120, 30, 50]."
        )
    if labels.is_floating_point():
        return _over_ranks(trainer, labels.movedim(1, -1).flatten(0, -2).sum(0))
    labels = labels.flatten().long()
    num_classes = getattr(data, "num_classes", 0) or 0
    counted = (labels >= 0) & (labels != getattr(data, "ignore_index", None))
    return _over_ranks(trainer, torch.bincount(labels[counted], minlength=num_classes).float())


def class_names(trainer: L.Trainer) -> list[str]:
    """Names of the classes, in order: ``classes`` of the data module or of the training set.

    Raises:
        LookupError: neither has it.
    """
    data = getattr(trainer, "datamodule", None)
    names = getattr(data, "classes", None) or getattr(
        getattr(trainer.train_dataloader, "dataset", None), "classes", None
    )
    if names is None:
        raise LookupError(
            f"prior='hierarchy' needs classes, the names, which {type(data or trainer.train_dataloader).__name__} does "
            "not have. Use data=image_folder with nested folders, or give a matrix: prior=similarity.csv."
        )
    return list(names)


def _over_ranks(trainer: L.Trainer, counts: Tensor) -> Tensor:
    """A rank's part may lack the last classes, so the longest says how many there are."""
    device, reduce = trainer.strategy.root_device, trainer.strategy.reduce
    num_classes = int(reduce(torch.tensor(len(counts), device=device), reduce_op="max"))
    padded = torch.nn.functional.pad(counts, (0, num_classes - len(counts))).to(device)
    mean: Tensor = reduce(padded, reduce_op="mean")
    return mean


def _labels(dataset: Any) -> Tensor | None:
    if isinstance(dataset, ConcatDataset):
        parts = [_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
    if isinstance(dataset, Subset):
        labels = _labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    for name in ("targets", "labels"):
        if getattr(dataset, name, None) is not None:
            return torch.as_tensor(getattr(dataset, name))
    return None
