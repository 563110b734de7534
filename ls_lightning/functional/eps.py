"""What `eps` may be: a number, a tensor with one for every class, or one for every sample."""

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Range(NamedTuple):
    """The values that a parameter may have, and what an error says of them.

    Attributes:
        name: of the parameter.
        low: the smallest value.
        high: the largest value.
        excluded: which of the two is not allowed itself.
        advice: what the parameter is, and a usual value.
    """

    name: str
    low: float
    high: float
    excluded: float
    advice: str

    def __str__(self) -> str:
        left, right = ("(" if self.excluded == self.low else "["), (")" if self.excluded == self.high else "]")
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def holds(self, values: Any) -> Any:
        """Whether a number is in the range, or for each element of a tensor; nan is not."""
        return (values >= self.low) & (values <= self.high) & (values != self.excluded)


EPS = Range("eps", 0, 1, 1, "It is the mass taken from the true class; 0.1 is usual.")
NEGATIVE_EPS = Range("eps", -math.inf, 0, -math.inf, "Negative smoothing takes -0.4 to -6; loss=ce smooths.")
GAMMA = Range("gamma", 0, math.inf, math.inf, "0 is cross-entropy; 3 is usual.")


def check_eps(eps: float | Tensor, allowed: Range = EPS) -> None:
    """Refuse an `eps` outside of the range, and what is neither a number nor a floating-point tensor.

    The values of a tensor are not looked at: on a GPU that would wait for the device.
    """
    name = allowed.name
    if isinstance(eps, Tensor):
        if not eps.is_floating_point():
            raise TypeError(f"{name} must be a number or a floating-point tensor, got a tensor of {eps.dtype}.")
    elif not isinstance(eps, (int, float, Real)):
        raise TypeError(f"{name} must be a number or a floating-point tensor, got {type(eps).__name__} {eps!r}.")
    elif not allowed.holds(eps):
        raise ValueError(f"{name} must be in {allowed}, got {eps}. {allowed.advice}")


def align_eps(
    eps: float | Tensor,
    shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    dtype: torch.dtype,
    allowed: Range = EPS,
) -> float | Tensor:
    """View `eps` so that it broadcasts over logits of `shape`.

    Args:
        eps: a number or 0-d tensor; per class `(K,)` or `(1, K)`; per sample `(N, 1, ...)` or `output_shape`.
        shape: of the logits, `(N, K, d1, ...)`.
        output_shape: of the losses before they are reduced.
        dtype: what a tensor is cast to.
        allowed: the range of a number.

    Returns:
        A float, a 0-d tensor, or a tensor with the class dimension 1 that broadcasts over `shape`.

    Raises:
        TypeError: not a number or floating-point tensor.
        ValueError: a number out of range; a shape that fits nothing, or both the classes and the samples.
    """
    check_eps(eps, allowed)
    if not isinstance(eps, Tensor):
        return float(eps)
    eps, given = eps.to(dtype), tuple(eps.shape)
    batch, num_classes, *positions = shape
    ones = (1,) * len(positions)
    if given == ():
        return eps
    if given == (num_classes,) == output_shape and batch > 1:
        raise ValueError(
            f"{allowed.name} of shape {given} fits both the {num_classes} classes and the {batch} samples of logits "
            f"{shape}: pass (1, {num_classes}) for one per class, ({batch}, 1) for one per sample."
        )
    if given in ((num_classes,), (1, num_classes)):
        return eps.view(1, num_classes, *ones)
    if given == output_shape:
        return eps if output_shape == shape else eps.unsqueeze(1)
    if given == (batch, 1, *positions):
        return eps
    if len(given) > 1 and given == (batch, *(1,) * (len(given) - 1)):
        return eps.view(batch, 1, *ones)
    raise ValueError(
        f"{allowed.name} of shape {given} does not fit logits {shape}: pass a number, ({num_classes},) for one per "
        f"class, or ({batch}, 1) or {output_shape} for one per sample."
    )
