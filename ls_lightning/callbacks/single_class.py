"""Which targets of a loss name one class, and which are mixtures of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ls_lightning.tap import LossCall

_MISSING = -100


def single_class(call: LossCall, target: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Leave out targets that are mixtures, without waiting for the device.

    A distribution names one class if all other classes share the rest evenly; of two classes only if it is certain. A
    binary label is 0 or 1.

    Args:
        call: of a loss, with floating-point targets.
        target: as the metrics would take them, see :func:`~ls_lightning.callbacks.step_outputs.read_call`.
        options: of the metrics.

    Returns:
        The target, missing where it was a mixture; and where that was.
    """
    if options["task"] != "multiclass":
        mixed = (target != 0) & (target != 1) & (target != _MISSING)
        return target.masked_fill(mixed, _MISSING), mixed
    shares = call.batch()[1]
    highest = shares.topk(2, dim=1).values
    lowest = shares.amin(1)
    mixed = highest[:, 1] != lowest if shares.shape[1] > 2 else lowest != 0
    mixed = mixed | (highest[:, 0] == highest[:, 1])
    return target.masked_fill(mixed, options["ignore_index"]), mixed
