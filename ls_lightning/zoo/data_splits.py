"""Splitting samples and corrupting labels: functions of labels and a seed, never of the global generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

_STREAMS = ("test", "val", "noise", "statistics")
_LATER = ("limit",)  # seeded from -1 downwards: another stream above would change every split


@dataclass(frozen=True)
class SplitIndices:
    """Indices ``(n,)`` of the samples of each split, ascending."""

    train: Tensor
    val: Tensor
    test: Tensor


def generator(seed: int, stream: str) -> torch.Generator:
    """A generator of its own for each purpose, so that changing one part leaves the others as they are."""
    if stream in _LATER:
        return torch.Generator().manual_seed(-1 - len(_LATER) * seed - _LATER.index(stream))
    return torch.Generator().manual_seed(len(_STREAMS) * seed + _STREAMS.index(stream))


def stratified_cut(labels: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Cut a share of the samples off, with the same class proportions.

    Of the :math:`n_c` samples of class c, :math:`\lfloor n_c\,\mathrm{share} \rfloor` or one more go (largest
    remainders first, so that their total is the rounded share of all), but never the last one of a class.

    Args:
        labels: class indices ``(N,)``, int64, at least 0.
        share: in [0, 1).
        rng: which samples.

    Returns:
        Ascending indices of what is left and of what was cut off.

    Example:
        >>> rest, part = stratified_cut(torch.tensor([0, 0, 0, 0, 1, 1]), 0.5, torch.Generator())
        >>> len(rest), len(part)
        (3, 3)
    """
    counts = labels.bincount()
    ideal = counts.double() * share
    quota = ideal.floor().long()
    missing = round(len(labels) * share) - int(quota.sum())
    quota[(quota - ideal).argsort(stable=True)[:missing]] += 1
    quota = quota.minimum((counts - 1).clamp(min=0))

    shuffled = torch.randperm(len(labels), generator=rng)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    first = counts.cumsum(0) - counts
    place = torch.arange(len(labels)) - first[labels[by_class]]
    taken = place < quota[labels[by_class]]
    return by_class[~taken].sort().values, by_class[taken].sort().values


def split_indices(labels: Tensor, val_fraction: float, test_fraction: float, seed: int) -> SplitIndices:
    """Split stratified into train, val and test; the test split does not depend on ``val_fraction``.

    Args:
        labels: class indices ``(N,)``, int64; any integers at least 0 that say which samples are alike.
        val_fraction: share of all samples, in [0, 1).
        test_fraction: share of all samples, in [0, 1).
        seed: which samples.

    Returns:
        Three disjoint sets of indices that hold every sample once.

    Raises:
        ValueError: the fractions leave nothing to train on, or a fraction above 0 is less than one sample.

    Example:
        >>> parts = split_indices(torch.arange(100) % 2, val_fraction=0.1, test_fraction=0.3, seed=0)
        >>> len(parts.train), len(parts.val), len(parts.test)
        (60, 10, 30)
    """
    if not val_fraction + test_fraction < 1:
        raise ValueError(
            f"val_fraction + test_fraction must be below 1, got {val_fraction} + {test_fraction}: "
            "nothing is left to train on."
        )
    rest, test = stratified_cut(labels, test_fraction, generator(seed, "test"))
    kept, cut = stratified_cut(labels[rest], val_fraction / (1 - test_fraction), generator(seed, "val"))
    parts = SplitIndices(rest[kept], rest[cut], test)
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        if fraction > 0 and len(getattr(parts, name)) == 0:
            raise ValueError(f"{name}_fraction={fraction} of {len(labels)} samples is none; use a larger one.")
    return parts


def flip_labels(labels: Tensor, share: float, num_classes: int, seed: int, ignore_index: int | None = None) -> Tensor:
    """Give exactly ``round(share * N)`` of N labels another class, uniformly among the others.

    With the same seed, the labels flipped by a smaller share are among those flipped by a larger one, and get
    the same classes.

    Args:
        labels: class indices of any shape, int64.
        share: in [0, 1).
        num_classes: K, at least 2.
        seed: which labels, and to which classes.
        ignore_index: what stands in place of a label where there is none; stays.

    Returns:
        A new tensor of that shape.

    Example:
        >>> int((flip_labels(torch.zeros(10, dtype=torch.int64), 0.4, 3, seed=0) != 0).sum())
        4
    """
    rng = generator(seed, "noise")
    there = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    clean = labels[there]
    order = torch.randperm(len(clean), generator=rng)
    offset = torch.randint(1, num_classes, (len(clean),), generator=rng)
    flipped = order[: round(share * len(clean))]
    clean[flipped] = (clean[flipped] + offset[flipped]) % num_classes
    noisy = labels.clone()
    noisy[there] = clean
    return noisy
