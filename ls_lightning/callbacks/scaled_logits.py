"""ScaledLogits: what a fitted temperature does to a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override


class ScaledLogits(nn.Module):
    r"""Divide logits by a temperature: ``nn.Sequential(net, ScaledLogits(1.7))``.

    .. math:: z \mapsto z / T, \qquad p \mapsto \sigma(\mathrm{logit}(p) / T)

    Args:
        temperature: T > 0; above 1 the probabilities become less sure, below 1 surer. Float32, whatever the network is
            cast to: in half precision it would have three digits.
        input: ``"logits"``; or ``"probs"`` for a network that ends in a sigmoid, whose probabilities stay some.

    Raises:
        ValueError: ``temperature`` is not above 0, or ``input`` is neither.

    Example:
        >>> ScaledLogits(2.0)(torch.tensor([[4.0, 0.0]]))
        tensor([[2., 0.]])
        >>> ScaledLogits(2.0, input="probs")(torch.tensor([0.5, 0.9]))
        tensor([0.5000, 0.7500])
    """

    temperature: Tensor

    def __init__(self, temperature: float, input: Literal["logits", "probs"] = "logits") -> None:
        super().__init__()
        if input not in ("logits", "probs"):
            raise ValueError(f"input must be 'logits' or 'probs', got {input!r}.")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, got {temperature}. 1 leaves the logits as they are.")
        self.input = input
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    @override
    def forward(self, logits: Tensor) -> Tensor:
        if self.input == "probs":
            return torch.sigmoid(torch.logit(logits) / self.temperature)
        return logits / self.temperature

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature.item():.6g}, input={self.input!r}"

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved: Any = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        module: nn.Module = super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return module
