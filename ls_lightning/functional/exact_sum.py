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
    bits = 52 - size.bit_length()
    total = to_integers(values, bits).sum(dim) - offset(bits, size)
    return total.double() * math.ldexp(1, -bits)


def to_integers(values: Tensor, bits: int) -> Tensor:
    """Round numbers of size below 2**(51 - bits) to units of 2**-bits: int64, each too large by `offset(bits)`."""
    return (values + _zero(bits)).view(torch.int64)


def offset(bits: int, count: int = 1) -> int:
    """By how much the sum of `count` numbers of `to_integers` is too large, as an int64 that may have overflowed."""
    (zero,) = struct.unpack("<q", struct.pack("<d", _zero(bits)))
    return (count * int(zero) + 2**63) % 2**64 - 2**63


def _zero(bits: int) -> float:
    return math.ldexp(1.5, 52 - bits)
