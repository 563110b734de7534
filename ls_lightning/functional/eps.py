"""What `eps` may be: a number, a tensor with one for every class, or one for every sample."""

from numbers import Real

import torch
from torch import Tensor


def check_eps(eps: float | Tensor) -> None:
    """Refuse an `eps` outside [0, 1), and what is neither a number nor a floating-point tensor.

    The values of a tensor are not looked at: on a GPU that would wait for the device.
    """
    if isinstance(eps, Tensor):
        if not eps.is_floating_point():
            raise TypeError(f"eps must be a number or a floating-point tensor, got a tensor of {eps.dtype}.")
    elif not isinstance(eps, (int, float, Real)):
        raise TypeError(f"eps must be a number or a floating-point tensor, got {type(eps).__name__} {eps!r}.")
    elif not 0 <= eps < 1:
        raise ValueError(f"eps must be in [0, 1), got {eps}. It is the mass taken from the true class; 0.1 is usual.")


def align_eps(
    eps: float | Tensor, shape: tuple[int, ...], output_shape: tuple[int, ...], dtype: torch.dtype
) -> float | Tensor:
    """View `eps` so that it broadcasts over logits of `shape`.

    Args:
        eps: a number or 0-d tensor; per class `(K,)` or `(1, K)`; per sample `(N, 1, ...)` or `output_shape`.
        shape: of the logits, `(N, K, d1, ...)`.
        output_shape: of the losses before they are reduced.
        dtype: what a tensor is cast to.

    Returns:
        A float, a 0-d tensor, or a tensor with the class dimension 1 that broadcasts over `shape`.

    Raises:
        TypeError: not a number or floating-point tensor.
        ValueError: a number outside [0, 1); a shape that fits nothing, or both the classes and the samples.
    """
    check_eps(eps)
    if not isinstance(eps, Tensor):
        return float(eps)
    eps, given = eps.to(dtype), tuple(eps.shape)
    batch, num_classes, *positions = shape
    ones = (1,) * len(positions)
    if given == ():
        return eps
    if given == (num_classes,) == output_shape and batch > 1:
        raise ValueError(
            f"eps of shape {given} fits both the {num_classes} classes and the {batch} samples of logits "
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
        f"eps of shape {given} does not fit logits {shape}: pass a number, ({num_classes},) for one per "
        f"class, or ({batch}, 1) or {output_shape} for one per sample."
    )
