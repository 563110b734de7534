"""What a known data set must look like, and what is said where a file is another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

HINT = "For data of your own: data.expects=null."


@dataclass(frozen=True)
class Expected:
    """What an experiment takes its data to be. Other classes or shapes are refused; other samples get a warning.

    Args:
        name: of the data set.
        classes: K.
        shape: of one sample as published, ``(C, H, W)``.
        samples: how many there are in ``train`` and ``test``.
        sha256: of the samples, see `digest`.
        get: for the keys ``path`` and ``noisy_labels`` what to download and from where; shown when the file is missing.

    Raises:
        ValueError: there is another key.

    Example:
        >>> Expected.of({"name": "MNIST", "classes": 10}).check(classes=3)
        Traceback (most recent call last):
        ValueError: MNIST has 10 classes, but the data has 3. For data of your own: data.expects=null.
    """

    name: str
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    samples: Mapping[str, int] | None = None
    sha256: str | None = None
    get: Mapping[str, str] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Expected | None:
        """From a node of the configuration; None where nothing is expected."""
        if options is None:
            return None
        known = [field.name for field in fields(cls)]
        unknown = [str(key) for key in options if key not in known]
        if unknown or "name" not in options:
            raise ValueError(f"expects must have name and may have {', '.join(known[1:])}, got {', '.join(options)}.")
        return cls(**options)

    def where(self, key: str) -> str:
        """What to download for a key, as the end of an error; nothing if that is not known."""
        source = (self.get or {}).get(key)
        return "" if source is None else f" {self.name}: {source}"

    def check(
        self,
        *,
        classes: int | None = None,
        shape: Iterable[int] | None = None,
        samples: Mapping[str, int] | None = None,
        sha256: str | None = None,
    ) -> None:
        """Compare what was found, as far as it is given.

        Raises:
            ValueError: the classes or the shape are others.
        """
        if None not in (classes, self.classes) and classes != self.classes:
            raise ValueError(f"{self.name} has {self.classes} classes, but the data has {classes}. {HINT}")
        if shape is not None and self.shape is not None and tuple(shape) != tuple(self.shape):
            raise ValueError(f"{self.name} has samples {tuple(self.shape)}, but the data has {tuple(shape)}. {HINT}")
        if samples is not None and self.samples is not None and dict(samples) != dict(self.samples):
            found, published = (", ".join(f"{n} {name}" for name, n in one.items()) for one in (samples, self.samples))
            rank_zero_warn(f"{self.name} has {published} samples, but the data has {found}. {HINT}")
        elif None not in (sha256, self.sha256) and sha256 != self.sha256:
            rank_zero_warn(
                f"the data is not {self.name} as published: its sha256 is {sha256}, not {self.sha256}. {HINT}"
            )


def digest(splits: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """The sha256 of inputs ``(N, C, H, W)`` and int64 labels of each split in turn, however their file was packed.

    Example:
        >>> import torch
        >>> digest({"train": (torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([0, 1]))})[:8]
        '701a321e'
    """
    found = hashlib.sha256()
    for pair in splits.values():
        for tensor in pair:
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()
