"""``python -m ls_lightning.zoo.cifar10 cifar-10-binary.tar.gz cifar10``: the official archive as a folder of images.

Nothing is downloaded. Images keep their official index in their name, which files of labels are read by.
"""

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ls_lightning.errors import ConfigError, as_config_error

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
_RECORD = 1 + 3 * 32 * 32


def write_folder(archive: Path, folder: Path) -> int:
    """Write ``folder/{train,test}/<class>/<index>.png``, without loss.

    Args:
        archive: the binary version of CIFAR-10, ``cifar-10-binary.tar.gz``.
        folder: which must not exist.

    Returns:
        How many images there are.

    Raises:
        ValueError: the archive is another, or the folder exists.
        OSError: the archive cannot be read.
        ModuleNotFoundError: Pillow is missing.
    """
    from PIL import Image

    if folder.exists():
        raise ValueError(f"{folder} must not exist yet, but does. Name another folder, or remove it.")
    count = 0
    for split, index, label, pixels in _records(archive):
        file = folder / split / CLASSES[label] / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        count += 1
    return count


def _records(archive: Path) -> Iterator[tuple[str, int, int, NDArray[np.uint8]]]:
    """Split, official index, class and pixels ``(32, 32, 3)`` of every image."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}
        missing = [name for names in BATCHES.values() for name in names if name not in members]
        if missing:
            raise ValueError(f"{archive} must hold {missing[0]}, but does not. It is {SOURCE} that is needed.")
        for split, names in BATCHES.items():
            parts = [tar.extractfile(members[name]) for name in names]
            rows = np.frombuffer(b"".join(part.read() for part in parts if part), np.uint8).reshape(-1, _RECORD)
            for index, row in enumerate(rows):
                yield split, index, int(row[0]), row[1:].reshape(3, 32, 32).transpose(1, 2, 0)


def main(words: list[str]) -> None:
    """The command line: an archive, and the folder to write."""
    if len(words) != 2:
        sys.exit(f"error: an archive and a folder are needed, got {len(words)} words: cifar-10-binary.tar.gz cifar10.")
    archive, folder = (Path(word).expanduser() for word in words)
    try:
        with as_config_error("cifar10", tarfile.TarError):
            print(f"{write_folder(archive, folder)} images in {folder}")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
