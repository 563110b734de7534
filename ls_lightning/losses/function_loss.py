"""Any function of logits, target and eps as a loss module."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values


class FunctionLoss(EpsBuffer):
    """A function of `(logits, target, eps)` as a loss module with an eps that can be scheduled.

    Args:
        function: called with logits, target, eps (a 0-d tensor; `(1, K)` where `eps` has one per class) and the options
            by name.
        eps: in [0, 1).
        **options: what the function takes besides, e.g. `weight`, which may be a list; tensors move with the module.

    Raises:
        TypeError: the function cannot take one of the options.
        ValueError: eps is out of range.

    Example:
        >>> import torch
        >>> from ls_lightning.functional import smoothed_cross_entropy
        >>> loss = FunctionLoss(smoothed_cross_entropy, eps=0.1, reduction="sum")
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([2]))
        tensor(1.3475)
    """

    def __init__(self, function: Callable[..., Tensor], eps: float | Values = 0.1, **options: Any) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        try:
            inspect.signature(function).bind(None, None, None, **options)
        except TypeError as error:
            wanted = ", ".join(("logits", "target", "eps", *options))
            raise TypeError(f"the loss function {name} must take ({wanted}): {error}.") from None
        for key in ("weight", "pos_weight"):
            if isinstance(options.get(key), Sequence):
                options[key] = torch.tensor(list(options[key]), dtype=torch.float32)
        super().__init__(eps, **options)
        self.function = function

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return what the function does."""
        return self._call(self.function, logits, target, options)

    def _number_for(self, logits: Tensor) -> None:
        """A function of the user's own may want a tensor, as it is promised one."""
