"""The training batches of all members, each in the order that it has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ls_lightning.zoo.data_base import ClassificationData
from ls_lightning.zoo.data_order import EpochOrder, ResumableLoader


class StackedOrder(Sampler[int]):
    """A batch of the first member, one of the second, ...: what a loader with M times the batch size cuts into steps.

    Args:
        size: samples of the training set.
        batch_size: of each member.
        seeds: of the members.

    Example:
        >>> order = StackedOrder(3, batch_size=2, seeds=[0, 0])
        >>> [sorted(part) for part in (list(order)[:2], list(order)[2:4])].count(sorted(list(order)[:2]))
        2
    """

    def __init__(self, size: int, batch_size: int, seeds: Sequence[int]) -> None:
        self._size, self._batch_size = size, batch_size
        self._orders = []
        for seed in seeds:
            order = EpochOrder(range(size))  # type: ignore[arg-type]
            order.seed = seed
            self._orders.append(order)

    def __len__(self) -> int:
        return self._size * len(self._orders)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch."""
        for order in self._orders:
            order.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        drawn = [list(order) for order in self._orders]
        for start in range(0, self._size, self._batch_size):
            for order in drawn:
                yield from order[start : start + self._batch_size]


class StackedData(L.LightningDataModule):
    """Training batches ``(M, B, ...)``; validation batches ``(B, ...)``, which all members share.

    Args:
        data: what every member has alone, set up.
        seeds: of the members.
    """

    def __init__(self, data: ClassificationData, seeds: Sequence[int]) -> None:
        super().__init__()
        self._data, self._seeds = data, seeds
        self.train_labels, self.num_classes = data.train_labels, data.num_classes  # a prior asks for them

    def train_dataloader(self) -> DataLoader[Any]:
        """Each step has a batch of every member."""
        data, count = self._data, len(self._seeds)
        assert self.trainer is not None
        order = StackedOrder(len(data.train_set), data.batch_size, self._seeds)  # type: ignore[arg-type]

        def split(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            return tuple(part.view(count, -1, *part.shape[1:]) for part in batch)

        return ResumableLoader(
            data.train_set, self.trainer, sampler=order, batch_size=count * data.batch_size, collate_fn=split
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """As alone."""
        return self._data.val_dataloader()
