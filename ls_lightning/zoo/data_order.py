"""The order of the training samples: a function of seed and epoch alone, so that a resumed run goes on exactly."""

import os
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ls_lightning.seeds import mixed_seed


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The permutation of ``size`` samples that one epoch of a run with this seed has."""
    rng = torch.Generator().manual_seed(mixed_seed("order", seed, epoch))
    return torch.randperm(size, generator=rng)


class EpochOrder(DistributedSampler[Any]):
    """Each rank's share of a permutation that depends on the seed of ``seed_everything`` and the epoch.

    One process has the order of DDP. A ``RandomSampler`` draws from the global generator, which no checkpoint holds.

    Args:
        dataset: what is ordered.
        num_replicas: ranks, at least 1.
        rank: which one.

    Example:
        >>> order = EpochOrder(range(4))
        >>> order.set_epoch(3)
        >>> sorted(order) == [0, 1, 2, 3] and list(order) == list(order)
        True
    """

    def __init__(self, dataset: Dataset[Any], num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, seed=int(os.environ.get("PL_GLOBAL_SEED", "0")))
        self.skip = 0
        """Samples of the next iteration that were trained on before."""

    def __iter__(self) -> Iterator[int]:
        skip, self.skip = self.skip, 0
        order = epoch_order(len(self.dataset), self.seed, self.epoch)  # type: ignore[arg-type]
        dealt = islice(cycle(order.tolist()), self.rank, self.total_size, self.num_replicas)
        return islice(dealt, skip, None)


class ResumableLoader(DataLoader[Any]):
    """A loader in ``EpochOrder`` whose place in an epoch travels in Lightning's checkpoint.

    Args:
        dataset: what is loaded.
        trainer: whose progress the place is.
        kwargs: of ``DataLoader``.
    """

    def __init__(self, dataset: Dataset[Any], trainer: L.Trainer, **kwargs: Any) -> None:
        kwargs.setdefault("sampler", EpochOrder(dataset, trainer.world_size, trainer.global_rank))
        super().__init__(dataset, generator=torch.Generator(), **kwargs)
        self.trainer = trainer

    def __iter__(self) -> Any:
        if isinstance(self.sampler, EpochOrder) and self.generator is not None:  # of the seeds of worker processes
            self.generator.manual_seed(mixed_seed("workers", self.sampler.seed, self.sampler.rank, self.sampler.epoch))
        return super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch the optimizer has made steps of."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        seen = cast(_ProcessedTracker, progress.current).processed
        over = progress.is_last_batch and seen == progress.current.ready
        return {"batches": 0 if over else seen - seen % self.trainer.accumulate_grad_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration after them."""
        if isinstance(self.sampler, EpochOrder) and self.batch_size is not None:
            self.sampler.skip = state["batches"] * self.batch_size
