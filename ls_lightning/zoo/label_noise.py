"""Wrong labels on purpose: flipped at random, or those of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .checks import check_bool, check_share
from .data_splits import flip_labels
from .label_file import Ids, labels_from, read_label_file


@dataclass(frozen=True)
class LabelNoise:
    """Which labels of training and validation become wrong; the options are explained in `ClassificationData`.

    Raises:
        ValueError: an option is out of range, contradicts another, or does not fit ``task``.
    """

    task: str
    label_noise: float
    val_label_noise: float
    noisy_labels: str | None
    noisy_labels_key: str | None
    noisy_labels_val: bool

    def __post_init__(self) -> None:
        flips = {name: check_share(name, getattr(self, name), zero=True) for name in ("label_noise", "val_label_noise")}
        check_bool("noisy_labels_val", self.noisy_labels_val)
        if any(flips.values()) and self.task == "multilabel":
            raise ValueError("label_noise flips classes, and task=multilabel has none to flip. Use label_noise=0.")
        if self.noisy_labels is None:
            for name in ("noisy_labels_key", "noisy_labels_val"):
                if getattr(self, name):
                    raise ValueError(f"{name} needs a file, got noisy_labels=None. Use noisy_labels=<file>.")
            return
        if self.task == "multilabel":
            raise ValueError("noisy_labels are classes, and task=multilabel has none. Leave noisy_labels out.")
        for name, clash in (("label_noise", True), ("val_label_noise", self.noisy_labels_val)):
            if flips[name] and clash:
                raise ValueError(f"{name}={flips[name]} would flip the labels of noisy_labels. Leave one of them out.")

    def flipped(
        self, train: Tensor, val: Tensor, num_classes: int, seed: int, ignore_index: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Labels with the shares flipped."""
        if self.label_noise:
            train = flip_labels(train, self.label_noise, num_classes, seed, ignore_index)
        if self.val_label_noise:
            val = flip_labels(val, self.val_label_noise, num_classes, seed, ignore_index)
        return train, val

    def from_file(
        self, train: Ids, val: Ids | None, *, num_classes: int, classes: Sequence[str], count: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """The file's labels of the training samples and, where they are to have them, of the validation samples.

        Args:
            train: what the file knows the training samples by.
            val: the same of a validation split cut from them; None if it is one of its own.
            num_classes: K.
            classes: their names.
            count: labels that the file must have, if they are found by place.
        """
        if self.noisy_labels_val and val is None:
            raise ValueError(
                "noisy_labels_val needs a validation split cut from the training data, got one of its own."
            )
        file = read_label_file(Path(str(self.noisy_labels)).expanduser(), self.noisy_labels_key)
        wanted = [*train, *(val or [])] if self.noisy_labels_val else train
        found = labels_from(file, wanted, num_classes=num_classes, classes=classes, count=count)
        return found[: len(train)], found[len(train) :] if self.noisy_labels_val else None
