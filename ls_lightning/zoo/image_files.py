"""Images in class folders: finding them, decoding one, and a data set that decodes as it goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

SUFFIXES = (".png", ".jpg", ".jpeg")


def find_images(folder: Path) -> dict[str, list[Path]]:
    """Images of each class folder inside ``folder``, both in the order of their names.

    A folder without images of its own that holds folders is a group of classes: they are named ``animal/cat``.

    Raises:
        ValueError: there is no class folder, or one holds no image.
    """
    found = dict(sorted(_class_folders(folder, "")))
    if not found:
        raise ValueError(f"{folder} must hold one folder for each class, but has none.")
    return found


def _class_folders(folder: Path, group: str) -> Iterator[tuple[str, list[Path]]]:
    for entry in sorted(_visible(folder)):
        if not entry.is_dir():
            continue
        inside = _visible(entry)
        images = sorted(file for file in inside if file.suffix.lower() in SUFFIXES)
        if images:
            yield f"{group}{entry.name}", images
        elif any(path.is_dir() for path in inside):
            yield from _class_folders(entry, f"{group}{entry.name}/")
        else:
            raise ValueError(f"{entry} holds no image ({', '.join(SUFFIXES)}).")


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def read_image(path: str, size: int, grayscale: bool) -> Tensor:
    """Decode an image, scale its shorter side to ``size`` and cut out the middle.

    Returns:
        uint8 ``(1, size, size)`` if ``grayscale``, else ``(3, size, size)``.

    Raises:
        ValueError: the file cannot be read, or has more than 8 bits a channel.
        ModuleNotFoundError: Pillow is missing.
    """
    pillow, ops = _pillow()
    try:
        with pillow.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel; convert it to 8")
            upright = ops.exif_transpose(image).convert("L" if grayscale else "RGB")
    except Exception as error:  # a broken file can raise nearly anything in Pillow's decoders
        reason = str(error).replace(f" {path!r}", "")
        raise ValueError(f"cannot read the image {path}: {reason}. Replace or remove it.") from None
    pixels = np.array(ops.fit(upright, (size, size), pillow.Resampling.BILINEAR))
    return torch.from_numpy(pixels).view(size, size, -1).permute(2, 0, 1).contiguous()


def shape_of(path: str) -> tuple[int, int, int]:
    """``(C, H, W)`` of an image as it is in its file, which is not decoded.

    Raises:
        ValueError: the file cannot be read.
        ModuleNotFoundError: Pillow is missing.
    """
    pillow, _ = _pillow()
    try:
        with pillow.open(path) as image:
            width, height = image.size
            return len(image.getbands()), height, width
    except OSError as error:
        raise ValueError(f"cannot read the image {path}: {error}. Replace or remove it.") from None


class ImageFiles(Dataset[tuple[Tensor, Tensor]]):
    r"""Pairs ``((x - mean) / std, target)`` with x decoded on access, scaled to [0, 1].

    Args:
        paths: of N images.
        target: ``(N,)``.
        size: height and width of x.
        grayscale: one channel instead of three.
        mean: ``(C, 1, 1)``.
        std: ``(C, 1, 1)``.
        augment: shift by up to ``size // 8`` pixels and mirror left-right at random, by torch's global
            generator, which a loader seeds in each worker.
    """

    def __init__(
        self,
        paths: list[str],
        target: Tensor,
        *,
        size: int,
        grayscale: bool,
        mean: Tensor,
        std: Tensor,
        augment: bool = False,
    ) -> None:
        self.paths, self.target = paths, target
        self.size, self.grayscale, self.augment = size, grayscale, augment
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = read_image(self.paths[index], self.size, self.grayscale)
        x = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        return crop_and_flip(x, self.size // 8) if self.augment else x, self.target[index]


def crop_and_flip(x: Tensor, margin: int) -> Tensor:
    """Shift ``(C, H, W)`` by up to ``margin`` pixels each way, mirrored at the border, and flip one in two.

    Example:
        >>> crop_and_flip(torch.ones(3, 8, 8), margin=1).shape
        torch.Size([3, 8, 8])
    """
    top, left, flip = (int(torch.randint(high, ())) for high in (2 * margin + 1, 2 * margin + 1, 2))
    height, width = x.shape[-2:]
    shifted = pad(x, (margin,) * 4, mode="reflect")[..., top : top + height, left : left + width]
    return shifted.flip(-1) if flip else shifted.contiguous()


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise ModuleNotFoundError(
            "data=image_folder needs Pillow: pip install 'ls-lightning[image]'", name="PIL"
        ) from None
    return Image, ImageOps
