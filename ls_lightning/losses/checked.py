"""The options that the loss modules share, checked before training starts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ls_lightning.eps_buffer import Values
from ls_lightning.functional.options import CHOICES, check_options


def checked(**options: Any) -> dict[str, Any]:
    """Refuse bad options before training starts; weights, which a config gives as lists, become tensors."""
    check_options(**{name: value for name, value in options.items() if name in CHOICES})
    if isinstance(options["ignore_index"], bool) or not isinstance(options["ignore_index"], int):
        raise TypeError(f"ignore_index must be an integer, got {options['ignore_index']!r}.")
    for name in ("normalized", "consume_logits"):
        if not isinstance(options.get(name, False), bool):
            raise TypeError(f"{name} must be True or False, got {options[name]!r}.")
    for name in ("weight", "pos_weight"):
        if options.get(name) is not None:
            options[name] = _weight(name, options[name])
    weight = options["weight"]
    if "weight_mode" in options and weight is not None and weight.ndim != 1:
        raise ValueError(f"weight must hold one number per class, (K,), got shape {tuple(weight.shape)}.")
    return options


def only_zero(eps: float | Values, message: str) -> float:
    """Refuse an eps that is not 0, for a loss that has none; `{eps}` in the message is what came."""
    if isinstance(eps, (Tensor, Sequence)) or eps != 0:
        raise ValueError(message.format(eps=eps))
    return 0.0


def _weight(name: str, weight: Values) -> Tensor:
    if not isinstance(weight, Tensor):
        try:
            weight = torch.tensor(list(weight), dtype=torch.float32)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a tensor or a list of numbers, got {weight!r}.") from None
    if not weight.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {weight.dtype}.")
    if not weight.is_meta and not bool((weight >= 0).all()):
        raise ValueError(f"{name} must not be negative or nan, got {weight.tolist()}.")
    return weight
