"""The configuration's types: scalars at the top level, groups open for classes of the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

NEGATIVE = "ls_lightning.losses.NegativeSmoothing"


@dataclass
class JobSchema:
    """The scalars at the top level are typed; the groups stay open for classes of the user's own."""

    eps: float = MISSING
    seed: int = 0
    name: str | None = None
    ckpt_path: str | None = None
    evaluate: str = "last"
    loss: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_schema() -> None:
    """Let ``defaults: [job_schema]`` find the schema."""
    ConfigStore.instance().store(name="job_schema", node=JobSchema)


def is_ours(target: str) -> bool:
    """Whether a ``_target_`` is a class of this package."""
    return target.startswith("ls_lightning.")
