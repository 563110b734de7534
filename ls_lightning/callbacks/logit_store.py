"""LogitStore: the logits of a validation run, or of a sample of its rows where they are too many to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.temperature import Rows

_LEVELS = 62
_BLOCK_VALUES = 2**20


class _Block(NamedTuple):
    scores: Tensor
    target: Tensor
    levels: Tensor


class LogitStore:
    """Rows of logits, in the dtype in which they come; at most ``max_values`` numbers over all ranks.

    Each row has a level, drawn from ``seed`` and its position in the data set: half of the rows have one above 0, a
    quarter one above 1, and so on. When the store is full its least level is given up. So the same rows are kept for
    any batch size and number of ranks, and nothing has to be known of the data beforehand.

    Args:
        spec: how logits and targets are read.
        max_values: rows times classes to keep, at least 1.
        seed: which rows are kept where not all can be.
        rank: of this process.
        world_size: processes; sample i of this rank is sample ``rank + world_size * i`` of the data.
        offload: keep them on the CPU.

    Example:
        >>> store = LogitStore(Spec(), max_values=6)
        >>> for _ in range(4):
        ...     store.add(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), samples=2)
        >>> sum(len(scores) for scores, _ in store.rows(lambda counts: counts)) <= 2
        True
        >>> store.share < 1
        True
    """

    def __init__(
        self,
        spec: Spec,
        max_values: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        offload: bool = False,
    ) -> None:
        self.spec = spec
        self._max_values = max_values
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._offload = offload
        self._blocks: list[_Block] = []
        self._seen = 0
        self._values = 0
        self._level = 0

    @property
    def share(self) -> float:
        """Of the rows that came, how many are kept on average."""
        return 2.0**-self._level

    def add(self, logits: Tensor, target: Tensor, samples: int) -> None:
        """Keep a batch.

        Args:
            logits: as ``spec`` says.
            target: the same.
            samples: how many samples of the data set the rows are of.
        """
        scores, labels = as_rows(logits, target, self.spec)
        block = _above(_Block(scores, labels, self._levels(len(labels), samples)), self._level)
        self._put(_Block(*(part.cpu() for part in block)) if self._offload else block)
        while self._values > self._max_values:
            self._give_up(self._level + 1)

    def rows(self, over_ranks: Callable[[Tensor], Tensor]) -> list[Rows]:
        """What is kept; every rank has to ask.

        Args:
            over_ranks: adds an int64 tensor up over all ranks.
        """
        values, given_up = torch.zeros(2, _LEVELS + 2, dtype=torch.int64)
        given_up[self._level] = 1
        for block in self._blocks:
            width = block.scores[:1].numel()
            values += width * torch.bincount(block.levels.long(), minlength=_LEVELS + 2)
        values, given_up = over_ranks(torch.stack([values, given_up]))
        level = int(given_up.nonzero().max())
        while values[level:].sum() > self._max_values:
            level += 1
        self._give_up(level)
        return [(block.scores, block.target) for block in self._blocks]

    def _levels(self, rows: int, samples: int) -> Tensor:
        """Of each row the number of zeros that a hash of its position ends in, uint8, on the CPU."""
        per_sample = rows // samples if samples and rows % samples == 0 else 1
        row = torch.arange(rows)
        sample = self._rank + self._world_size * (self._seen + row // per_sample)
        self._seen += samples if per_sample * samples == rows else rows
        mixed = _mix(_mix(sample * per_sample + row % per_sample) + self._seed) & (2**_LEVELS - 1)
        lowest = mixed & -mixed
        return torch.where(lowest > 0, lowest.double().log2(), _LEVELS).to(torch.uint8)

    def _put(self, block: _Block) -> None:
        self._values += block.scores.numel()
        # Small blocks are merged, to twice the size each time: a fit goes through all of them about ten times.
        while self._blocks and len(self._blocks[-1].levels) <= len(block.levels) and self._small(self._blocks[-1]):
            last = self._blocks.pop()
            block = _Block(*(torch.cat(pair) for pair in zip(last, block, strict=True)))
        self._blocks.append(block)

    def _small(self, block: _Block) -> bool:
        return block.scores.numel() < _BLOCK_VALUES

    def _give_up(self, level: int) -> None:
        self._level = level
        self._blocks = [_above(block, level) for block in self._blocks]
        self._values = sum(block.scores.numel() for block in self._blocks)


def _above(block: _Block, level: int) -> _Block:
    """The rows of at least this level, in memory of their own."""
    kept = (block.levels >= level).nonzero().squeeze(1)
    if len(kept) == len(block.levels):
        return block._replace(scores=block.scores.clone(), target=block.target.clone())
    there = kept.to(block.scores.device)
    return _Block(block.scores[there], block.target[there], block.levels[kept])


def _mix(number: Tensor) -> Tensor:
    """Scatter int64 numbers over all bits.

    Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195 (SplitMix64).
    """
    number = number + -0x61C8864680B583EB
    number = (number ^ _shift(number, 30)) * -0x40A7B892E31B1A47
    number = (number ^ _shift(number, 27)) * -0x6B2FB644ECCEEE15
    return number ^ _shift(number, 31)


def _shift(number: Tensor, bits: int) -> Tensor:
    """To the right, filled with zeros."""
    shifted: Tensor = (number >> bits) & (2 ** (64 - bits) - 1)
    return shifted
