"""Images in folders named after their classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .checks import check_bool, check_int, check_share
from .data_base import ClassificationData, LoaderOptions, Part, Parts
from .data_limit import limited, rows_of
from .data_memory import mean_and_std
from .data_splits import generator, split_indices
from .expected import Expected
from .image_files import ImageFiles, find_images, read_image, shape_of

_DEFAULT_FRACTION = 0.2
_STATISTICS_IMAGES = 1000


class ImageFolderData(ClassificationData):
    """Images ``path/train/<class>/*.png`` (or jpg), with ``path/val`` and ``path/test`` alike if they exist.

    Folders may be nested: ``path/train/animal/cat`` is the class ``animal/cat``, which ``loss.prior=hierarchy``
    reads. Classes are numbered in the order of their names in ``path/train``; a split whose folder does not
    exist is cut from the training images. Images are decoded as they are needed, and standardised per channel
    by the moments of up to 1000 training images. ``noisy_labels`` finds an image by its name below ``path/train`` or by
    the number that its name ends in, as in ``cat/00029.jpg``.

    Args:
        path: of the folder, relative to the working directory.
        task: ``"multiclass"``, or ``"binary"`` for two classes.
        num_classes: K, if it is to be checked against the folders.
        image_size: height and width in pixels: the shorter side is scaled to it, the middle cut out.
        grayscale: one channel instead of three.
        augment: shift by up to ``image_size // 8`` pixels and mirror left-right at random, in training.
        val_fraction: share of ``path/train`` to validate on when there is no ``path/val``, in (0, 1);
            None is 0.2.
        test_fraction: the same for testing.
        limit_train: train on so many images, of each class its share; None: on all.
        expects: what a known data set looks like, see `Expected`; None: anything.
        **options: see `ClassificationData`.

    Raises:
        ValueError: an option is out of range; in ``setup``, the folders do not fit; an image is unreadable.
        FileNotFoundError: in ``setup``, there is no ``path/train``.
        ModuleNotFoundError: in ``setup``, Pillow is missing.
    """

    def __init__(
        self,
        path: str,
        *,
        task: str = "multiclass",
        num_classes: int | None = None,
        image_size: int = 32,
        grayscale: bool = False,
        augment: bool = False,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        limit_train: int | None = None,
        expects: Mapping[str, Any] | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(task, **options)
        if task == "multilabel":
            raise ValueError("task=multilabel does not fit folders, where an image has one class. Use data=npz.")
        self.path = Path(path).expanduser()
        self.expected_classes = None if num_classes is None else check_int("num_classes", num_classes, least=2)
        self.image_size = check_int("image_size", image_size)
        self.grayscale = check_bool("grayscale", grayscale)
        self.augment = check_bool("augment", augment)
        self.fractions = {
            name: None if value is None else check_share(f"{name}_fraction", value)
            for name, value in (("val", val_fraction), ("test", test_fraction))
        }
        self.limit_train = None if limit_train is None else check_int("limit_train", limit_train)
        self.expects = Expected.of(expects)

    def load(self) -> Parts:
        """Find the images; cut the splits off that have no folder."""
        if not (self.path / "train").is_dir():
            source = "" if self.expects is None else self.expects.where("path")
            raise FileNotFoundError(
                f"there is no folder {(self.path / 'train').absolute()}. "
                f"It must hold one folder for each class, with .png or .jpg images.{source}"
            )
        train = find_images(self.path / "train")
        self.classes = list(train)
        self.num_classes = self._count_classes()
        found = {name: self._find(name) for name in ("val", "test")}
        part = self._part(train)
        if self.expects is not None:
            sizes = {name: len(one.x) for name, one in (("train", part), *found.items()) if one is not None}
            self.expects.check(classes=self.num_classes, shape=shape_of(part.x[0]), samples=sizes)
        names = [Path(file).relative_to(self.path / "train").as_posix() for file in part.x]
        parts = self._cut(part._replace(ids=names), found)
        return parts._replace(train=limited(parts.train, self.limit_train, self.split_seed))

    def datasets(self, parts: Parts) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
        """Sets that decode as they go; the training set is augmented if asked."""
        mean, std = self._moments(parts.train.x)
        train, val, test = (
            ImageFiles(
                part.x,
                part.labels,
                size=self.image_size,
                grayscale=self.grayscale,
                mean=mean,
                std=std,
                augment=self.augment and part is parts.train,
            )
            for part in parts
        )
        return train, val, test

    def _count_classes(self) -> int:
        count = len(self.classes)
        if self.expected_classes not in (None, count):
            raise ValueError(
                f"data.num_classes={self.expected_classes} but {self.path / 'train'} "
                f"has {count} class folders, so {count} classes"
            )
        least, most, who = (2, 2, "task=binary") if self.task == "binary" else (2, count, "a classifier")
        if not least <= count <= most:
            need = "2 classes" if most == 2 else "at least 2 classes"
            raise ValueError(f"{who} needs {need}, but {self.path / 'train'} has {count} class folders.")
        return count

    def _find(self, name: str) -> Part | None:
        folder = self.path / name
        if not folder.is_dir():
            return None
        if self.fractions[name] is not None:
            raise ValueError(f"{name}_fraction={self.fractions[name]}, but {folder} exists. Leave {name}_fraction out.")
        images = find_images(folder)
        strange = [label for label in images if label not in self.classes]
        if strange:
            raise ValueError(f"{folder} has the class {strange[0]!r}, which {self.path / 'train'} has not.")
        return self._part(images)

    def _part(self, images: dict[str, list[Path]]) -> Part:
        number = {label: index for index, label in enumerate(self.classes)}
        pairs = [(str(file), number[label]) for label, files in images.items() for file in files]
        return Part([file for file, _ in pairs], torch.tensor([index for _, index in pairs]))

    def _cut(self, train: Part, found: dict[str, Part | None]) -> Parts:
        shares = {
            name: (self.fractions[name] or _DEFAULT_FRACTION) if part is None else 0.0 for name, part in found.items()
        }
        at = split_indices(train.labels, shares["val"], shares["test"], self.split_seed)
        val, test = found["val"] or rows_of(train, at.val), found["test"] or rows_of(train, at.test)
        return Parts(rows_of(train, at.train), val, test)

    def _moments(self, paths: list[str]) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(paths), generator=generator(self.split_seed, "statistics"))
        images = [
            read_image(paths[row], self.image_size, self.grayscale) for row in chosen[:_STATISTICS_IMAGES].tolist()
        ]
        mean, std = mean_and_std(torch.stack(images))
        return mean / 255, std / 255
