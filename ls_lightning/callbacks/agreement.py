"""Ranks must train the same thing: compare what they were told before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch.distributed as dist
from typing_extensions import override


class RanksAgree(L.Callback):
    """Stop before training if the ranks of a run were given different settings.

    Under DDP each rank is a process that reads its own configuration. A shuffled or adaptive sweep, or a launcher
    that starts one rank too few, makes them differ, and training would go on with exit code 0.

    Args:
        settings: what must be equal, e.g. ``{"eps": 0.1, "seed": 0}``.

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
    dist.all_gather_object(gathered, {key: str(value) for key, value in settings.items()})
    for key, value in gathered[0].items():
        for rank, other in enumerate(gathered):
            if other.get(key) != value:
                raise RuntimeError(f"ranks disagree: {key}={value} on rank 0, {key}={other.get(key)} on rank {rank}.")
