"""Reading the splits of a ``.npz`` file, with one clear line for whatever is wrong with its arrays."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CONTENT = "It must hold x_train, y_train, x_test, y_test and may hold x_val, y_val."

Array = NDArray[Any]


def read_splits(path: Path, multilabel: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Read ``train``, ``test`` and, if present, ``val``.

    Args:
        path: of the ``.npz`` file.
        multilabel: whether labels are 0 or 1 ``(N, K)`` or integers ``(N,)``.

    Returns:
        Inputs ``(N, D)`` or ``(N, C, H, W)``, uint8 or float32, and labels int64, of each split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ``.npz`` file, lacks an array, or its arrays do not fit together.

    Example:
        >>> import tempfile
        >>> x, y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.npz"
        ...     np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        ...     sorted(read_splits(path, multilabel=False))
        ['test', 'train']
    """
    arrays = _arrays(path)
    names = ["train", "test"] + ["val"] * ("x_val" in arrays or "y_val" in arrays)
    missing = [key for name in names for key in (f"x_{name}", f"y_{name}") if key not in arrays]
    if missing:
        with np.load(path) as archive:
            there = ", ".join(archive.files) or "none"
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {there}. {CONTENT}")
    labels = _multilabels if multilabel else _class_labels
    splits = {}
    for name in names:
        x, y = arrays[f"x_{name}"], arrays[f"y_{name}"]
        if x.ndim == 0 or len(x) == 0 or y.shape[:1] != x.shape[:1]:
            raise ValueError(f"x_{name} and y_{name} must hold one entry a sample, got shapes {x.shape} and {y.shape}.")
        _check_alike(f"x_{name}", x, arrays["x_train"])
        splits[name] = (_inputs(f"x_{name}", x), labels(f"y_{name}", y))
    return splits


def read_index(path: Path, count: int) -> list[int] | None:
    """``index_train``: which of the samples of a larger data set the training samples are; None if it is not there.

    Args:
        path: of a file that `read_splits` has read.
        count: training samples.

    Raises:
        ValueError: it is not one integer of at least 0 for each sample.
    """
    index = _arrays(path, prefixes=("index_train",)).get("index_train")
    if index is None:
        return None
    if index.shape != (count,) or index.dtype.kind not in "ui" or index.min() < 0:
        raise ValueError(
            f"index_train must hold {count} integers of at least 0, one a sample, got {index.dtype} {index.shape}."
        )
    return [int(one) for one in index]


def _arrays(path: Path, prefixes: tuple[str, ...] = ("x_", "y_")) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.absolute()}. {CONTENT}")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return {key: archive[key] for key in archive.files if key.startswith(prefixes)}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"cannot read {path} as .npz: {error}. {CONTENT}") from None


def _check_alike(name: str, x: Array, train: Array) -> None:
    # uint8 pixels beside pixels in [0, 1] would be standardised with the wrong moments
    if x.shape[1:] != train.shape[1:] or x.dtype.kind != train.dtype.kind:
        raise ValueError(
            f"{name} has samples {x.shape[1:]} of {x.dtype}, x_train has {train.shape[1:]} of {train.dtype}; "
            "they must agree."
        )


def _inputs(name: str, x: Array) -> Tensor:
    if x.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold numbers, got {x.dtype}.")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(f"{name} must be (N, D), (N, H, W) or (N, H, W, C), got {x.shape}.")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise ValueError(f"{name} must be (N, H, W, C), but {x.shape} has channels first: use x.transpose(0, 2, 3, 1).")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    # uint8 stays, at a quarter of the memory: scaling it to [0, 1] would not change the standardised values
    with np.errstate(over="ignore"):
        inputs = torch.from_numpy(np.ascontiguousarray(x, np.uint8 if x.dtype == np.uint8 else np.float32))
    if not bool(inputs.isfinite().all()):
        raise ValueError(f"{name} must be finite in float32, but has nan or inf.")
    return inputs


def _class_labels(name: str, y: Array) -> Tensor:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "bui":
        raise ValueError(f"{name} must hold integer class labels (N,), got {y.dtype} {y.shape}.{_as_labels(y)}")
    return torch.from_numpy(y.astype(np.int64))


def _as_labels(y: Array) -> str:
    """How they become class labels."""
    if y.ndim == 2 and y.dtype.kind in "buif" and bool((y.sum(1) == 1).all()) and np.isin(y, (0, 1)).all():
        return " They are one-hot: save y.argmax(1)."
    if y.ndim == 1 and y.dtype.kind == "f" and bool((y == np.round(y)).all()):
        return " Save y.astype('int64')."
    return " Save np.unique(y, return_inverse=True)[1]." if y.ndim == 1 and y.dtype.kind in "US" else ""


def _multilabels(name: str, y: Array) -> Tensor:
    if y.ndim != 2 or y.dtype.kind not in "buif" or not np.isin(y, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1, (N, K), because task=multilabel, got {y.dtype} {y.shape}.")
    return torch.from_numpy(y.astype(np.int64))
