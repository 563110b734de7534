"""What the data modules share whose samples are drawn from a seed: nothing is downloaded or read."""

from typing import TypedDict

import torch
from torch import Tensor

from ls_lightning.seeds import mixed_seed

from .checks import check_int
from .data_base import ClassificationData, Part, Parts


class GeneratedOptions(TypedDict, total=False):
    """The options that every generated data set takes; explained in `GeneratedData`."""

    num_train: int
    num_val: int
    num_test: int
    batch_size: int
    eval_batch_size: int
    split_seed: int
    label_noise: float
    val_label_noise: float
    num_workers: int


class GeneratedData(ClassificationData):
    """Base of the generated data: a subclass has `draw`.

    Each split is drawn from a stream of its own, so that the size of one leaves the others as they are.

    Args:
        task: as in `ClassificationData`.
        num_train: samples to train on, at least 1.
        num_val: samples for validation, at least 1.
        num_test: samples for testing, at least 1.
        batch_size: as in `ClassificationData`, like the options below it.
        split_seed: decides the samples and which labels are flipped; at least 0.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        task: str,
        *,
        num_train: int = 200,
        num_val: int = 200,
        num_test: int = 400,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        split_seed: int = 0,
        label_noise: float = 0.0,
        val_label_noise: float = 0.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            task,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            split_seed=split_seed,
            label_noise=label_noise,
            val_label_noise=val_label_noise,
            num_workers=num_workers,
        )
        self.sizes = {
            "train": check_int("num_train", num_train),
            "val": check_int("num_val", num_val),
            "test": check_int("num_test", num_test),
        }

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels of ``count`` samples; all chance comes from ``rng``."""
        raise NotImplementedError

    def load(self) -> Parts:
        """Draw the three splits."""
        drawn = []
        for split, count in self.sizes.items():
            seed = mixed_seed(type(self).__name__, split, self.split_seed)
            drawn.append(Part(*self.draw(count, torch.Generator().manual_seed(seed))))
        return Parts(*drawn)
