"""Arrays from a ``.npz`` file, checked before anything is trained on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from .checks import check_int, check_share
from .data_base import ClassificationData, LoaderOptions, Part, Parts
from .data_limit import limited
from .expected import Expected, digest
from .npz_arrays import read_index, read_splits

_DEFAULT_VAL_FRACTION = 0.1


class NpzData(ClassificationData):
    """Arrays ``x_train, y_train, x_test, y_test`` and, if present, ``x_val, y_val`` of one ``.npz`` file.

    Inputs are vectors ``(N, D)``, or images ``(N, H, W)`` or ``(N, H, W, C)``, which become ``(C, H, W)``.
    They are standardised per feature or channel, whatever their scale. Where ``noisy_labels`` is the file of a larger
    data set, ``index_train`` ``(N,)`` says which of its samples these are; without it they are all of them, in order.

    Args:
        path: of the file, relative to the working directory.
        task: ``"multiclass"`` or ``"binary"`` with class labels 0..K-1 ``(N,)``, ``"multilabel"`` with 0 or 1
            ``(N, K)``.
        num_classes: K, if it is to be checked against the file.
        val_fraction: share of the training samples to validate on when the file has no ``x_val``, in (0, 1);
            None is 0.1.
        limit_train: train on so many samples, of each class its share; None: on all.
        expects: what a known data set looks like, see `Expected`; None: anything.
        **options: see `ClassificationData`.

    Raises:
        ValueError: an option is out of range or, in ``setup``, the arrays do not fit together.
        FileNotFoundError: in ``setup``, there is no such file.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> x, y = np.zeros((40, 28, 28), np.uint8), np.arange(40) % 4
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        ...     data = NpzData(f"{folder}/mine.npz")
        ...     data.setup()
        >>> data.num_classes, data.input_shape, len(data.train_set), len(data.val_set), len(data.test_set)
        (4, (1, 28, 28), 36, 4, 40)
    """

    def __init__(
        self,
        path: str,
        *,
        task: str = "multiclass",
        num_classes: int | None = None,
        val_fraction: float | None = None,
        limit_train: int | None = None,
        expects: Mapping[str, Any] | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(task, **options)
        self.path = Path(path).expanduser()
        self.expected_classes = None if num_classes is None else check_int("num_classes", num_classes, least=2)
        self.val_fraction = None if val_fraction is None else check_share("val_fraction", val_fraction)
        self.limit_train = None if limit_train is None else check_int("limit_train", limit_train)
        self.expects = Expected.of(expects)

    def load(self) -> Parts:
        """Read and check the arrays; cut the validation split off if there is none."""
        multilabel = self.task == "multilabel"
        splits = read_splits(self.path, multilabel)
        found = {name: Part(x, y) for name, (x, y) in splits.items()}
        labels = {name: part.labels for name, part in found.items()}
        self.num_classes = self._count_columns(labels) if multilabel else self._count_classes(labels)
        self._compare(splits)
        parts = self._split(found)
        return parts._replace(train=limited(parts.train, self.limit_train, self.split_seed))

    def _compare(self, splits: dict[str, tuple[Tensor, Tensor]]) -> None:
        """With what is expected."""
        if self.expects is None:
            return
        self.expects.check(
            classes=self.num_classes,
            shape=splits["train"][0].shape[1:],
            samples={name: len(y) for name, (_, y) in splits.items()},
            sha256=digest(splits) if self.expects.sha256 else None,
        )

    def _split(self, found: dict[str, Part]) -> Parts:
        if "val" not in found:
            fraction = self.val_fraction or _DEFAULT_VAL_FRACTION
            parts = self.cut(found["train"].x, found["train"].labels, fraction, 0.0)._replace(test=found["test"])
            return self._indexed(parts)
        if self.val_fraction is not None:
            raise ValueError(f"val_fraction={self.val_fraction}, but {self.path} has x_val. Leave val_fraction out.")
        self.num_labels = len(found["train"].labels)
        places = range(self.num_labels)
        return self._indexed(Parts(found["train"]._replace(ids=places), found["val"], found["test"]))

    def _indexed(self, parts: Parts) -> Parts:
        """With ``index_train``, if the file has it, in the place of places."""
        index = read_index(self.path, self.num_labels or 0)
        if index is None:
            return parts
        self.num_labels = None
        train, val = (
            part if part.ids is None else part._replace(ids=[index[int(place)] for place in part.ids])
            for part in (parts.train, parts.val)
        )
        return parts._replace(train=train, val=val)

    def _count_classes(self, labels: dict[str, Tensor]) -> int:
        for name, y in labels.items():
            if int(y.min()) < 0:
                raise ValueError(f"y_{name} must hold class labels 0..K-1, got {int(y.min())}.")
        highest = {name: int(y.max()) for name, y in labels.items()}
        split, most = max(highest.items(), key=lambda item: item[1])
        self._check_count(most + 1, f"y_{split} goes up to {most}")
        if most < 1:
            raise ValueError("a classifier needs at least 2 classes, but every label is 0.")
        if self.task == "binary" and most > 1:
            raise ValueError(f"task=binary needs labels 0 and 1, but they go up to {most}. Use task=multiclass.")
        absent = (labels["train"].bincount(minlength=most + 1) == 0).nonzero().flatten().tolist()
        if absent and absent[0] > highest["train"]:
            raise ValueError(
                f"y_{split} goes up to {most}, but y_train only to {highest['train']}: nothing can be learnt of class "
                f"{absent[0]}. Leave its samples out, or train on some."
            )
        if absent:
            start = " If yours begin at 1: y - 1." if absent == [0] else ""
            raise ValueError(
                f"y_train has no sample of class {absent[0]}, but labels go up to {most}. "
                f"Number the classes of y_train 0..K-1.{start}"
            )
        return most + 1

    def _count_columns(self, labels: dict[str, Tensor]) -> int:
        columns = labels["train"].shape[1]
        for name, y in labels.items():
            if y.shape[1] != columns:
                raise ValueError(f"y_{name} has {y.shape[1]} columns, y_train has {columns}; they must agree.")
        self._check_count(columns, f"y_train has {columns} columns")
        return columns

    def _check_count(self, count: int, seen: str) -> None:
        if self.expected_classes not in (None, count):
            raise ValueError(f"data.num_classes={self.expected_classes} but {seen}, so {count} classes")
