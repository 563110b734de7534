"""Where a number may be read off a tensor at once: nothing here makes the host wait for a GPU."""

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack

READY = frozenset({"cpu"})
"""Types of device on which what was computed is there."""


def is_ready(values: Tensor) -> bool:
    """Tell whether looking at the values costs no more than that, and is not part of what is being compiled."""
    return values.device.type in READY and not torch.compiler.is_compiling()


def is_recorded() -> bool:
    """Tell whether what is read off a tensor may be written down as a constant, or is not a number at all."""
    return _len_torch_dispatch_stack() > 0 or _get_tracing_state() is not None or _are_functorch_transforms_active()


def are_all(mask: Tensor) -> bool:
    """Tell whether all are true; False where that is not known yet."""
    return is_ready(mask) and int(mask.count_nonzero()) == len(mask)
