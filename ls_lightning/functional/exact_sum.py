"""A sum whose bits do not depend on the order of its terms.

A number of size at most 1 that is added to 1.5 * 2**t is rounded to multiples of 2**(t-52), and of such numbers the
bits, as integers, are as far apart as the numbers. Sums of integers do not round, and may overflow on the way.
"""

import math
import struct

import torch
from torch import Tensor


def exact_sum(values: Tensor, dim: int = -1) -> Tensor:
    """Sum float64 values of size at most 1, to 2**-52 K each, identically in any order; a NaN gives any number.

    Example:
        >>> exact_sum(torch.tensor([0.1, 1.0, 0.2], dtype=torch.float64))
        tensor(1.3000, dtype=torch.float64)
    """
    size = values.shape[dim]
    return read_bits((values + zero_of(size)).view(torch.int64).sum(dim), size)


def zero_of(size: int) -> float:
    """Return what rounds numbers, when it is added to them, so that the bits of `size` of them add up."""
    return math.ldexp(1.5, size.bit_length())


def read_bits(total: Tensor, size: int) -> Tensor:
    """Turn the sum of the bits of `size` numbers, each added to `zero_of(size)`, into the sum of the numbers."""
    (zero,) = struct.unpack("<q", struct.pack("<d", zero_of(size)))
    offset = (size * int(zero) + 2**63) % 2**64 - 2**63
    return (total - offset).double() * math.ldexp(1, size.bit_length() - 52)
