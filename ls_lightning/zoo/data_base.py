"""What all data modules share: options, splits, label noise, loaders."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from .checks import TASKS, check_choice, check_int
from .data_memory import StandardisedTensors, TensorPairs, as_fetched, mean_and_std
from .data_order import ResumableLoader
from .data_splits import split_indices
from .label_file import Ids
from .label_noise import LabelNoise


class LoaderOptions(TypedDict, total=False):
    """The options that every data module takes; explained in `ClassificationData`."""

    batch_size: int
    eval_batch_size: int
    split_seed: int
    label_noise: float
    val_label_noise: float
    noisy_labels: str | None
    noisy_labels_key: str | None
    noisy_labels_val: bool
    num_workers: int


class Part(NamedTuple):
    """One split as found: inputs, and class indices ``(N, ...)`` (multi-label: 0 or 1, ``(N, K)``), int64.

    ``ids`` are what a file of labels knows the samples by, if they come from the training data.
    """

    x: Any
    labels: Tensor
    ids: Ids | None = None


class Parts(NamedTuple):
    """The three splits as found."""

    train: Part
    val: Part
    test: Part


class ClassificationData(L.LightningDataModule):
    """Base of the data modules: a subclass has `load` and, unless its inputs are tensors, `datasets`.

    The splits and the noise depend on ``split_seed`` alone, neither on the training seed nor on the global
    generator. Inputs are standardised with the training split's moments. After ``setup`` there are

    * ``task``, ``num_classes``, ``num_outputs`` (1 for binary, else ``num_classes``), ``input_shape``
    * ``train_set``, ``val_set``, ``test_set``
    * ``train_labels`` with noise, ``train_labels_clean`` without: class indices ``(N,)``
    * ``measured_noise``, shares of the ``train`` and ``val`` labels that the noise changed

    Labels may be dense, ``(N, d1, ...)``; ``ignore_index`` is what stands where there is none, and counts nowhere.

    Args:
        task: ``"multiclass"`` (targets int64 ``(N,)``), ``"binary"`` (float32 ``(N,)``) or ``"multilabel"``
            (float32 ``(N, K)``).
        batch_size: samples per process and step in training.
        eval_batch_size: the same in validation and test.
        split_seed: decides the splits and which labels are flipped; at least 0.
        label_noise: share of the training labels, and of no others, to flip to another class, in [0, 1).
        val_label_noise: the same share of the validation labels, to see what measuring on noisy labels does.
        noisy_labels: file with other labels of the training data, such as CIFAR-10N's: ``.npz`` or ``.npy`` (the label
            of sample i at place i), or ``.csv`` with a column ``label`` and, if not in order, ``index`` or ``name``.
        noisy_labels_key: which array or column of it; None: the only array, the column ``label``.
        noisy_labels_val: let a validation split that is cut from the training data have them, too; otherwise
            its labels are clean. Test labels are clean always.
        num_workers: worker processes of each loader; 0 loads in the training process.

    Raises:
        ValueError: an option is out of range.
    """

    num_classes: int
    input_shape: tuple[int, ...]
    train_labels: Tensor
    train_labels_clean: Tensor
    train_set: Dataset[Any]
    val_set: Dataset[Any]
    test_set: Dataset[Any]
    measured_noise: dict[str, float]
    noisy_validation: bool = False  # TemperatureScaling asks
    ignore_index: int | None = None
    num_labels: int | None = None  # that a file must have where the id of a sample is its place in it
    classes: Sequence[str] = ()

    def __init__(
        self,
        task: str,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        split_seed: int = 0,
        label_noise: float = 0.0,
        val_label_noise: float = 0.0,
        noisy_labels: str | None = None,
        noisy_labels_key: str | None = None,
        noisy_labels_val: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.task = check_choice("task", task, TASKS)
        self.batch_size = check_int("batch_size", batch_size)
        self.eval_batch_size = check_int("eval_batch_size", eval_batch_size)
        self.split_seed = check_int("split_seed", split_seed, least=0)
        self.num_workers = check_int("num_workers", num_workers, least=0)
        self.noise = LabelNoise(task, label_noise, val_label_noise, noisy_labels, noisy_labels_key, noisy_labels_val)

    @property
    def num_outputs(self) -> int:
        """Logits a model has to give for one sample."""
        return 1 if self.task == "binary" else self.num_classes

    def load(self) -> Parts:
        """Find the samples and set ``num_classes``."""
        raise NotImplementedError

    def datasets(self, parts: Parts) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
        """Train, val and test sets; ``parts`` has the final targets in the place of labels."""
        mean, std = mean_and_std(parts.train.x)
        train, val, test = (StandardisedTensors(part.x, part.labels, mean, std) for part in parts)
        return train, val, test

    def setup(self, stage: str | None = None) -> None:
        """Load, split and corrupt once, for all stages."""
        if hasattr(self, "train_set"):
            return
        parts = self.load()
        self.train_labels_clean = parts.train.labels
        self.train_labels, val_labels = self._noisy(parts.train, parts.val)
        self.measured_noise = {
            "train": self._share_changed(self.train_labels, parts.train.labels),
            "val": self._share_changed(val_labels, parts.val.labels),
        }
        self.noisy_validation = self.measured_noise["val"] > 0
        train, val, test = (
            part._replace(labels=self._targets(labels))
            for part, labels in zip(parts, (self.train_labels, val_labels, parts.test.labels), strict=True)
        )
        self.train_set, self.val_set, self.test_set = self.datasets(Parts(train, val, test))
        self.input_shape = tuple(self.val_set[0][0].shape)

    def cut(self, x: Tensor, labels: Tensor, val_fraction: float, test_fraction: float) -> Parts:
        """Split tensors by ``split_seed``, stratified but for multi-label ones; the place of a sample is its id."""
        strata = labels if labels.ndim == 1 else labels.new_zeros(len(labels))
        at = split_indices(strata, val_fraction, test_fraction, self.split_seed)
        self.num_labels = len(labels)
        train, val, test = (Part(x[rows], labels[rows], rows.tolist()) for rows in (at.train, at.val, at.test))
        return Parts(train, val, test)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled: under a Trainer by its seed and the epoch, so that a resumed run goes on with the next batch."""
        if self.trainer is None:
            return self._loader(DataLoader, self.train_set, self.batch_size, shuffle=True)
        return self._loader(ResumableLoader, self.train_set, self.batch_size, trainer=self.trainer)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation sample once, in order."""
        return self._loader(DataLoader, self.val_set, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test sample once, in order."""
        return self._loader(DataLoader, self.test_set, self.eval_batch_size)

    def _noisy(self, train: Part, val: Part) -> tuple[Tensor, Tensor]:
        labels = self.noise.flipped(train.labels, val.labels, self.num_classes, self.split_seed, self.ignore_index)
        if self.noise.noisy_labels is None:
            return labels
        found = self.noise.from_file(
            train.ids or [], val.ids, num_classes=self.num_classes, classes=self.classes, count=self.num_labels
        )
        return found[0], labels[1] if found[1] is None else found[1]

    def _share_changed(self, labels: Tensor, clean: Tensor) -> float:
        changed = (labels != clean).double()
        return float((changed if self.ignore_index is None else changed[clean != self.ignore_index]).mean())

    def _targets(self, labels: Tensor) -> Tensor:
        return labels if self.task == "multiclass" else labels.to(torch.float32)

    def _loader(self, cls: type[DataLoader[Any]], dataset: Dataset[Any], size: int, **options: Any) -> DataLoader[Any]:
        whole = isinstance(dataset, StandardisedTensors | TensorPairs)
        collate: Callable[[Any], Any] = as_fetched if whole else default_collate
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return cls(
            dataset,
            batch_size=size,  # by keyword: under DDP Lightning rebuilds the loader by names
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=on_gpu,
            persistent_workers=self.num_workers > 0,
            **options,
        )
