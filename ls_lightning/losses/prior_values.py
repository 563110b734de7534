"""A prior over classes: a vector, a similarity matrix, or a file that holds one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Prior = str | Path | Sequence[float] | Sequence[Sequence[float]] | Tensor
SUFFIXES = (".npy", ".npz", ".csv", ".pt")


def read_prior(prior: Prior) -> Tensor:
    """Return the prior as a checked tensor `(K,)` or `(K, K)` in float32 or better.

    Raises:
        TypeError: it is not made of numbers.
        ValueError: a value or the shape is not that of a prior, or the file holds none.
        FileNotFoundError: there is no such file.
    """
    if isinstance(prior, str | Path):
        return check_prior(_read_file(Path(prior).expanduser()))
    if isinstance(prior, Tensor):
        return check_prior(prior.detach())
    try:
        return check_prior(torch.tensor([*prior], dtype=torch.float32))
    except TypeError:
        raise TypeError(f"prior must be numbers, a tensor or a file, got {prior!r}.") from None


def check_prior(prior: Tensor) -> Tensor:
    """Refuse what is no prior: a vector may hold counts, the rows of a matrix must have the sum 1."""
    shape = tuple(prior.shape)
    if not prior.is_floating_point():
        prior = prior.float()
    if prior.ndim not in (1, 2) or shape[0] < 2 or shape[0] != shape[-1]:
        raise ValueError(f"prior must be (K,) or (K, K) with K >= 2, got shape {shape}.")
    if not bool(((prior >= 0) & prior.isfinite()).all()) or not bool((prior.sum(-1) > 0).all()):
        raise ValueError("prior must not be negative, infinite or nan, nor 0 throughout; got one that is.")
    sums = prior.sum(-1)
    if prior.ndim == 2 and not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-3):
        raise ValueError(
            f"each row of a (K, K) prior must have the sum 1, got sums from {sums.min():g} to {sums.max():g}: "
            "divide each row by its sum."
        )
    return prior


def _read_file(path: Path) -> Tensor:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"a prior must be 'frequencies', 'hierarchy' or a file {', '.join(SUFFIXES)}, got '{path}'.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.absolute()}, which was to hold the prior.")
    try:
        values = torch.load(path, weights_only=True) if path.suffix == ".pt" else _read_array(path)
    except Exception as error:  # whatever the readers of four formats raise
        raise ValueError(f"{path} holds no prior: {error}".splitlines()[0]) from error
    if not isinstance(values, Tensor):
        raise ValueError(f"{path} must hold one tensor, got {type(values).__name__}.")
    return values


def _read_array(path: Path) -> Any:
    import numpy as np

    if path.suffix == ".csv":
        return torch.from_numpy(np.loadtxt(path, delimiter=","))
    found = np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        if len(found.files) != 1:
            raise ValueError(f"it must hold one array, got {', '.join(found.files) or 'none'}")
        found = found[found.files[0]]
    return torch.from_numpy(found)
