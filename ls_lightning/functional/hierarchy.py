"""How similar classes are, by where their names stand in a tree."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

Path = tuple[str, ...]


def class_similarity(names: Sequence[str], beta: float = 4.0) -> Tensor:
    r"""Row-stochastic similarity of classes whose names are paths such as `animal/cat`.

    .. math:: A_{yk} \propto e^{-\beta\,d(y,k)}, \qquad d(y,k) = \frac{h(\mathrm{lca}(y,k))}{h(\mathrm{root})}

    with h the height of a node, the longest way down from it to a class, and lca the lowest folder that holds
    both classes: d is 0 for the class itself, 1 where only the root holds both.

    Args:
        names: one for each class, folders separated by `/`.
        beta: 0 or more: 0 makes all classes alike, a large one leaves each to itself; 4 to 30 is usual.

    Returns:
        `(K, K)`, row y for the true class y, each row of sum 1.

    Raises:
        ValueError: two names are the same, no name has a folder that another shares, or beta is negative.

    Example:
        >>> class_similarity(["animal/cat", "animal/dog", "car"], beta=4.0)
        tensor([[0.8668, 0.1173, 0.0159],
                [0.1173, 0.8668, 0.0159],
                [0.0177, 0.0177, 0.9647]])

    Source: soft labels of Bertinetto et al. 2020, arXiv:1912.09393.
    """
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be a number of at least 0, got {beta}. 4 to 30 is usual.")
    paths = [tuple(name.split("/")) for name in names]
    if len(set(paths)) < len(paths):
        raise ValueError(f"class names must differ, got {list(names)}.")
    heights = _heights(paths)
    root = heights[reduce(_shared, paths)]
    distances = [[0 if a == b else heights[_shared(a, b)] / root for b in paths] for a in paths]
    if all(distance == 1 for a, row in enumerate(distances) for b, distance in enumerate(row) if a != b):
        raise ValueError(
            f"a class hierarchy needs names that share folders, such as animal/cat and animal/dog, got {list(names)}."
        )
    return torch.softmax(-beta * torch.tensor(distances), dim=1)


def _shared(a: Path, b: Path) -> Path:
    """The lowest folder that holds both."""
    same = [x == y for x, y in zip(a, b, strict=False)]
    return a[: [*same, False].index(False)]


def _heights(paths: Sequence[Path]) -> dict[Path, int]:
    """Of every folder, the longest way down to a class."""
    heights: dict[Path, int] = {}
    for path in paths:
        for depth in range(len(path) + 1):
            heights[path[:depth]] = max(heights.get(path[:depth], 0), len(path) - depth)
    return heights
