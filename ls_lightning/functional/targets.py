"""Targets, as class indices or as distributions, read once for every loss."""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.eps import EPS, Range, align_eps


class Target(NamedTuple):
    """A checked target.

    Attributes:
        value: class indices `(N, d1, ...)`, 0 where ignored, or distributions `(N, K, d1, ...)`.
        valid: `(N, d1, ...)`, False where ignored; None where nothing can be.
        num_classes: K.
    """

    value: Tensor
    valid: Tensor | None
    num_classes: int

    @property
    def is_distribution(self) -> bool:
        """Whether `value` holds distributions."""
        return self.value.is_floating_point()

    def expectation(self, values: Tensor) -> Tensor:
        """Average `values` `(K,)` or `(N, K, d1, ...)` over the target's mass; gives `(N, d1, ...)`."""
        if self.is_distribution:
            if values.ndim == 1:
                values = per_class(values, self.value.ndim)
            # A class without mass adds nothing, and 0 * inf would be nan.
            values = values.masked_fill((self.value == 0) & values.isinf(), 0)
            return (self.value * values).sum(1)
        try:
            if values.ndim == 1:
                return values.gather(0, self.value.flatten()).view(self.value.shape)
            return values.gather(1, self.value.unsqueeze(1)).squeeze(1)
        except RuntimeError as error:
            raise explain_index_error(self.value, self.num_classes, error) from None

    def rows(self, matrix: Tensor) -> Tensor:
        """Average the rows of `(K, M)` over the target's mass; gives `(N, M, d1, ...)`."""
        if self.is_distribution:
            return torch.einsum("nk...,km->nm...", self.value, matrix)
        return matrix[self.value].movedim(-1, 1)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the distributions `(N, K, d1, ...)`: class indices become one-hot."""
        if self.is_distribution:
            return self.value
        batch, *positions = self.value.shape
        zeros = torch.zeros(batch, self.num_classes, *positions, dtype=dtype, device=self.value.device)
        try:
            return zeros.scatter(1, self.value.unsqueeze(1), 1.0)
        except RuntimeError as error:
            raise explain_index_error(self.value, self.num_classes, error) from None

    def eps(
        self, eps: float | Tensor, shape: tuple[int, ...], dtype: torch.dtype, allowed: Range = EPS
    ) -> float | Tensor:
        """Turn any form of `eps` into a number or what broadcasts over `(N, d1, ...)`."""
        aligned = align_eps(eps, shape, (shape[0], *shape[2:]), dtype, allowed)
        if not isinstance(aligned, Tensor) or aligned.ndim == 0:
            return aligned
        return aligned.squeeze(1) if aligned.shape[1] == 1 else self.expectation(aligned.flatten())


def per_class(values: Tensor, ndim: int) -> Tensor:
    """View `(K,)` as `(1, K, 1, ...)` with `ndim` dimensions."""
    return values.view(1, -1, *(1,) * (ndim - 2))


def read_target(target: Tensor, shape: tuple[int, ...], dtype: torch.dtype, ignore_index: int | None) -> Target:
    """Tell class indices from distributions for logits of `shape`, and mark what is ignored."""
    given, index_shape = tuple(target.shape), (shape[0], *shape[2:])
    if given not in (shape, index_shape):
        raise ValueError(
            f"target must hold class indices of shape {index_shape} or distributions of shape {shape}, "
            f"got logits {shape} and target {given}."
        )
    if given == shape:
        if not target.is_floating_point():
            raise TypeError(
                f"target distributions must be floating point, got {target.dtype} with logits {shape} and "
                f"target {given}: pass target.float(), or class indices of shape {index_shape}."
            )
        if ignore_index is not None and ignore_index >= 0:
            raise ValueError(
                f"ignore_index={ignore_index} names a class index, but the target holds distributions: "
                f"logits {shape} and target {given}. Leave it at -100."
            )
        return Target(target.to(dtype), None, shape[1])
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(
            f"class indices must be integers, got {target.dtype} with logits {shape} and target {given}: "
            "pass target.long()."
        )
    index = target.long()
    if ignore_index is None:
        return Target(index, None, shape[1])
    valid = index != ignore_index
    return Target(index.masked_fill(~valid, 0), valid, shape[1])


def explain_index_error(index: Tensor, num_classes: int, error: RuntimeError) -> Exception:
    """Name the class index that made a lookup fail; the error itself where none is to blame.

    Looking only after a failure keeps a check that waits for the device out of every step.
    """
    wrong = (index < 0) | (index >= num_classes)
    if index.device.type != "cpu" or not wrong.any():
        return error
    return ValueError(
        f"class index {int(index[wrong][0])} is out of range in a target of shape {tuple(index.shape)}: "
        f"{num_classes} classes are 0 to {num_classes - 1}; a loss takes ignore_index besides."
    )
