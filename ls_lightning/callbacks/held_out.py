"""HeldOut: a slice of the training data that is not trained on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from ls_lightning.callbacks.step_context import nothing
from ls_lightning.seeds import mixed_seed
from ls_lightning.zoo.data_order import ResumableLoader

_OPTIONS = (
    "batch_size",
    "num_workers",
    "collate_fn",
    "pin_memory",
    "drop_last",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
)


class HeldOut:
    """Withhold a share of the training data from a fit, and load it by itself.

    Which samples depends on the seed of ``seed_everything`` and their number alone: the same on all ranks, and in a
    run that is resumed.

    Args:
        share: in (0, 1); at least one sample is withheld, and at least one is left.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.loader: DataLoader[Any] | None = None
        self._undo: Callable[[], None] = nothing

    def withhold(self, trainer: L.Trainer) -> None:
        """Let the Trainer's loader of training data, whoever makes it, leave the slice away; before it is made."""
        self.give_back()
        source = trainer.fit_loop._data_source
        made = source.dataloader
        source.dataloader = lambda: self._cut(made(), trainer)  # type: ignore[method-assign]
        self._undo = lambda: vars(source).pop("dataloader", None) and None

    def give_back(self) -> None:
        """Leave the Trainer as it was."""
        self._undo()
        self._undo = nothing

    def _cut(self, loader: Any, trainer: L.Trainer) -> DataLoader[Any]:
        _check(loader)
        held, kept = _cut_indices(len(loader.dataset), self.share)
        options = {name: getattr(loader, name) for name in _OPTIONS}
        rank, ranks = trainer.global_rank, trainer.world_size
        self.loader = DataLoader(Subset(loader.dataset, held[rank::ranks]), **{**options, "drop_last": False})
        left: Subset[Any] = Subset(loader.dataset, kept)
        if isinstance(loader, ResumableLoader):
            return ResumableLoader(left, trainer, **options)
        shuffled = isinstance(loader.sampler, RandomSampler)
        return DataLoader(left, shuffle=shuffled, generator=loader.generator, **options)


def _check(loader: Any) -> None:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"held_out needs one DataLoader of a dataset with indices for training, got {type(loader).__name__}. "
            "Give the slice as validation data instead, and leave held_out away."
        )
    ours = type(loader) is ResumableLoader
    plain = type(loader) is DataLoader and type(loader.sampler) in (RandomSampler, SequentialSampler)
    if not (ours or plain) or loader.batch_size is None:
        raise ValueError(
            f"held_out cannot take samples out of a {type(loader).__name__} with a {type(loader.sampler).__name__}: it "
            "has to be a plain DataLoader. Give the slice as validation data instead."
        )


def _cut_indices(total: int, share: float) -> tuple[list[int], list[int]]:
    held = min(total - 1, max(1, math.floor(total * share + 0.5)))
    if held < 1:
        raise ValueError(f"held_out needs at least 2 training samples, got {total}.")
    rng = torch.Generator().manual_seed(mixed_seed("held_out", int(os.environ.get("PL_GLOBAL_SEED", "0"))))
    order = torch.randperm(total, generator=rng).tolist()
    return sorted(order[:held]), sorted(order[held:])
