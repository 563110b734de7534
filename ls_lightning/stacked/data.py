"""The training batches of all members, each in the order that it has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ls_lightning.zoo.data_base import ClassificationData
from ls_lightning.zoo.data_memory import Batch, StandardisedTensors
from ls_lightning.zoo.data_order import ResumableLoader, epoch_order


class StackedOrder(Sampler[Tensor]):
    """For each step the indices ``(M, B)`` of the samples that each member is trained on.

    Args:
        size: samples of the training set.
        batch_size: of each member.
        seeds: of the members.

    Example:
        >>> [rows.shape for rows in StackedOrder(3, batch_size=2, seeds=[0, 1])]
        [torch.Size([2, 2]), torch.Size([2, 1])]
    """

    def __init__(self, size: int, batch_size: int, seeds: Sequence[int]) -> None:
        self._size, self._batch_size, self._seeds, self._epoch = size, batch_size, list(seeds), 0

    def __len__(self) -> int:
        return -(-self._size // self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        orders = torch.stack([epoch_order(self._size, seed, self._epoch) for seed in self._seeds])
        return iter(torch.split(orders, self._batch_size, 1))


class StackedSet(Dataset[Batch]):
    """The training set, asked for the samples of a whole step.

    Args:
        samples: of all members.

    Example:
        >>> samples = StandardisedTensors(torch.arange(4), torch.arange(4), torch.tensor(1.0), torch.tensor(2.0))
        >>> StackedSet(samples)[torch.tensor([[0], [3]])]
        (tensor([[-0.5000],
                [ 1.0000]]), tensor([[0],
                [3]]))
    """

    def __init__(self, samples: StandardisedTensors) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, rows: Tensor) -> Batch:
        x, target = self._samples.__getitems__(rows.flatten())  # type: ignore[arg-type]
        return x.view(*rows.shape, *x.shape[1:]), target.view(*rows.shape, *target.shape[1:])


class StackedData(L.LightningDataModule):
    """Training batches ``(M, B, ...)``; validation batches ``(B, ...)``, which all members share.

    Args:
        data: what every member has alone, set up.
        seeds: of the members.

    Raises:
        TypeError: the training set is not held in memory.
    """

    def __init__(self, data: ClassificationData, seeds: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(data.train_set, StandardisedTensors):
            raise TypeError(f"a stack needs data that are held in memory, got {type(data.train_set).__name__}.")
        self._data, self._seeds, self._set = data, seeds, StackedSet(data.train_set)
        self.train_labels, self.num_classes = data.train_labels, data.num_classes  # a prior asks for them

    def train_dataloader(self) -> DataLoader[Any]:
        """Each step has a batch of every member."""
        assert self.trainer is not None
        order = StackedOrder(len(self._set), self._data.batch_size, self._seeds)
        return ResumableLoader(self._set, self.trainer, sampler=order, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        """As alone."""
        return self._data.val_dataloader()
