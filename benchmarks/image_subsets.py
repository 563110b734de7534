"""Subsets of MNIST and CIFAR-10, small enough for one core of a CPU, as files for `data=npz`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TRAIN, TEST = 4000, 2000


def mnist_subset(folder: Path, into: Path) -> Path:
    """`mnist.npz` of `folder`, at half the resolution: the same samples every time."""
    with np.load(folder / "mnist.npz") as whole:
        arrays = {name: whole[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    rows = {"train": _some(arrays["y_train"], TRAIN), "test": _some(arrays["y_test"], TEST)}
    file = into / f"mnist_{TRAIN}_{TEST}.npz"
    into.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        **{f"x_{name}": _halved(arrays[f"x_{name}"][at]) for name, at in rows.items()},
        **{f"y_{name}": arrays[f"y_{name}"][at] for name, at in rows.items()},
    )
    return file


def cifar10_subset(folder: Path, into: Path) -> Path:
    """`cifar10/{train,test}/<class>/<official index>.jpg` of `folder`, likewise, with the official indices."""
    classes = sorted(path.name for path in (folder / "cifar10" / "train").iterdir())
    arrays = {}
    for name, count in (("train", TRAIN), ("test", TEST)):
        images = [path for label in classes for path in sorted((folder / "cifar10" / name / label).glob("*.jpg"))]
        labels = np.array([classes.index(path.parent.name) for path in images])
        at = _some(labels, count)
        arrays[f"x_{name}"] = _halved(np.stack([np.asarray(Image.open(images[row])) for row in at]))
        arrays[f"y_{name}"] = labels[at]
        arrays[f"index_{name}"] = np.array([int(images[row].stem) for row in at])
    file = into / f"cifar10_{TRAIN}_{TEST}.npz"
    into.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays)
    return file


def _some(labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """As many samples of each class, drawn by a fixed seed."""
    rng = np.random.default_rng(0)
    kinds = np.unique(labels)
    chosen = [rng.choice(np.flatnonzero(labels == kind), count // len(kinds), replace=False) for kind in kinds]
    return np.sort(np.concatenate(chosen))


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, `(N, H, W)` or `(N, H, W, C)`: a quarter of the work."""
    n, height, width = pixels.shape[:3]
    blocks = pixels.reshape(n, height // 2, 2, width // 2, 2, *pixels.shape[3:])
    return blocks.mean((2, 4)).round().astype(np.uint8)
