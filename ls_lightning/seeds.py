"""One seed out of several numbers, so that each purpose has a random stream of its own."""

import hashlib


def mixed_seed(*parts: int | str) -> int:
    """64 bits that depend on all parts; a sum would give seed 0 in epoch 1 the numbers of seed 1 in epoch 0.

    Example:
        >>> mixed_seed("order", 0, 1) == mixed_seed("order", 1, 0)
        False
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
