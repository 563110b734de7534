"""Samples held in memory, fetched and standardised a whole batch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor]


class StandardisedTensors(Dataset[Batch]):
    r"""Pairs ``((x - mean) / std, target)`` with one indexing operation a batch.

    ``DataLoader(dataset, collate_fn=as_fetched)`` asks ``__getitems__`` for a batch at once; collating single
    samples takes four times as long, a good part of a small network's training step.

    Args:
        x: ``(N, ...)`` of any real dtype; batches are float32.
        target: ``(N, ...)``.
        mean: broadcasts with one sample.
        std: broadcasts with one sample, above 0.

    Example:
        >>> data = StandardisedTensors(torch.arange(4), torch.arange(4), torch.tensor(1.0), torch.tensor(2.0))
        >>> data.__getitems__([0, 3])
        (tensor([-0.5000,  1.0000]), tensor([0, 3]))
    """

    def __init__(self, x: Tensor, target: Tensor, mean: Tensor, std: Tensor) -> None:
        self.x, self.target, self.mean, self.std = x, target, mean, std

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        return self._standardised(self.x[index]), self.target[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these samples."""
        rows = torch.as_tensor(indices)
        return self._standardised(self.x.index_select(0, rows)), self.target.index_select(0, rows)

    def _standardised(self, x: Tensor) -> Tensor:
        return (x.to(torch.float32) - self.mean) / self.std


class TensorPairs(Dataset[Batch]):
    """Pairs ``(x, target)`` as they are, with one indexing operation a batch: tokens, which have no scale.

    Args:
        x: ``(N, ...)``.
        target: ``(N, ...)``.

    Example:
        >>> TensorPairs(torch.tensor([[3, 1], [2, 0]]), torch.tensor([1, 0])).__getitems__([1])
        (tensor([[2, 0]]), tensor([0]))
    """

    def __init__(self, x: Tensor, target: Tensor) -> None:
        self.x, self.target = x, target

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        return self.x[index], self.target[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these samples."""
        rows = torch.as_tensor(indices)
        return self.x[rows], self.target[rows]


def as_fetched(batch: Batch) -> Batch:
    """Collate function of a dataset that fetches whole batches."""
    return batch


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature of ``(N, D)``, or of each channel of ``(N, C, H, W)``.

    Returns:
        float32 tensors ``(D,)`` or ``(C, 1, 1)``; a constant feature has std 1.

    Example:
        >>> mean_and_std(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    columns = x.T if x.ndim == 2 else x.transpose(0, 1).flatten(1)
    pairs = [_moments(column) for column in columns]
    shape = (-1,) if x.ndim == 2 else (-1, 1, 1)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(shape) for values in zip(*pairs, strict=True))
    return mean, std


def _moments(values: Tensor) -> tuple[float, float]:
    values = values.double()
    mean, std = float(values.mean()), float(values.std(correction=0))
    return mean, std if std > 1e-8 * abs(mean) else 1.0
