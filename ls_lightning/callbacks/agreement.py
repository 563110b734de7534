"""Ranks must train the same thing: compare what they were told before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
import torch.distributed as dist
from typing_extensions import override


class RanksAgree(L.Callback):
    """Stop before training if the ranks of a run were given different settings.

    Under DDP each rank is a process that reads its own configuration. A shuffled or adaptive sweep, or a launcher
    that starts one rank too few, makes them differ, and training would go on with exit code 0.

    Args:
        settings: what must be equal, e.g. ``{"eps": 0.1, "data": {"batch_size": 32}}``; compared leaf by leaf.

    Raises:
        RuntimeError: on every rank, at the start of ``fit``, naming the key and the values; or if there are not as
            many processes as ``num_nodes * devices``.

    Example:
        >>> trainer = L.Trainer(callbacks=[RanksAgree({"eps": 0.1})], logger=False)
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = dict(settings)

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        check_ranks(trainer, self.settings)


def check_ranks(trainer: L.Trainer, settings: Mapping[str, Any]) -> None:
    """Compare ``settings`` over all ranks; see :class:`RanksAgree`."""
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes != trainer.num_nodes * trainer.num_devices:
        raise RuntimeError(
            f"num_nodes * devices must be the number of processes, got {trainer.num_nodes} * {trainer.num_devices} and "
            f"{processes}: data would be left out. Start one process per device, or set devices={processes}."
        )
    if processes == 1:
        return
    gathered: list[dict[str, str]] = [{} for _ in range(processes)]
    dist.all_gather_object(gathered, dict(_leaves(settings)))
    for key in dict.fromkeys(key for found in gathered for key in found):
        values = [found.get(key, "nothing") for found in gathered]
        for rank, value in enumerate(values):
            if value != values[0]:
                raise RuntimeError(f"ranks disagree: {key}={values[0]} on rank 0, {key}={value} on rank {rank}.")


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
