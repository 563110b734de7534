"""Where a number may be read off a tensor at once: nothing here makes the host wait for a GPU."""

import torch
from torch import Tensor

READY = frozenset({"cpu"})
"""Types of device on which what was computed is there."""


def is_ready(values: Tensor) -> bool:
    """Tell whether looking at the values costs no more than that, and is not part of what is being compiled."""
    return values.device.type in READY and not torch.compiler.is_compiling()


def are_all(mask: Tensor) -> bool:
    """Tell whether all are true; False where that is not known yet."""
    return is_ready(mask) and int(mask.count_nonzero()) == len(mask)
