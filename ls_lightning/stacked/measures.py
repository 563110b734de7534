"""The metrics of all members, as each measures them alone."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L

from ls_lightning.callbacks.stage_metrics import Build, Measured, StageMetrics
from ls_lightning.callbacks.step_outputs import Outputs


def measure_members(build: Build, outputs: Sequence[Outputs], trainer: L.Trainer) -> list[Measured]:
    """What :class:`~ls_lightning.callbacks.stage_metrics.StageMetrics` measures of each member.

    Args:
        build: makes the collection of metrics.
        outputs: of each member, for the same samples and with the same options.
        trainer: of the stack.
    """
    metrics, found = StageMetrics(build, 1), []
    for own in outputs:
        metrics.reset()
        metrics.update(0, own)
        found += metrics.measure(trainer, own.logits.device)
    return found
