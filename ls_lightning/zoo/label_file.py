"""Labels from a file, such as those that people gave to the training images of CIFAR-10."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

Ids = Sequence[int | str]
SUFFIXES = (".npz", ".npy", ".csv")


class LabelFile(NamedTuple):
    """What a file says: labels, and whose they are by ``index`` or ``name``, or by ``place``, from 0."""

    path: Path
    labels: list[Any]
    known_by: str
    ids: Sequence[Any]


def read_label_file(path: Path, key: str | None = None) -> LabelFile:
    r"""Read labels of samples.

    A ``.npy`` array, or one of the arrays of a ``.npz`` file, holds the label of sample i at place i. A ``.csv`` file
    begins with the names of its columns: ``label`` (or ``key``), and ``index`` or ``name``, or neither.

    Args:
        path: of the file.
        key: which array or column; None: the only array, the column ``label``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or ``key`` names nothing in it, or is needed, or there is nothing to name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.csv"
        ...     lines = path.write_text("name,label\ncat/3.png,dog\n")
        ...     read_label_file(path)[1:]
        (['dog'], 'name', ['cat/3.png'])
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"noisy_labels must be a file {', '.join(SUFFIXES)}, got {str(path)!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.absolute()}, which was to hold the noisy labels.")
    if path.suffix == ".csv":
        return _read_csv(path, key or "label")
    labels = _read_array(path, key)
    if labels.ndim != 1 or labels.dtype.kind not in "bui":
        raise ValueError(f"{path} must hold integer class labels (N,), got {labels.dtype} {labels.shape}.")
    return LabelFile(path, labels.tolist(), "place", range(len(labels)))


def labels_from(
    file: LabelFile, ids: Ids, *, num_classes: int, classes: Sequence[str] = (), count: int | None = None
) -> Tensor:
    """The file's labels of certain samples.

    Args:
        file: as read.
        ids: what each sample is known by: its official index, or a name that ends in it, such as ``cat/00029.jpg``.
        num_classes: K.
        classes: their names, which the file may have in the place of numbers.
        count: labels that there must be, if they are found by place and every sample has one.

    Returns:
        Class indices ``(N,)``, int64.

    Raises:
        ValueError: a sample has no label, or no index; a label is no class; there are too many or too few.

    Example:
        >>> labels_from(LabelFile(Path("a.npy"), [2, 0, 1], "place", range(3)), [2, 0], num_classes=3)
        tensor([1, 2])
    """
    if file.known_by == "place" and count not in (None, len(file.labels)):
        raise ValueError(f"{file.path} must hold {count} labels, one for each training sample, got {len(file.labels)}.")
    known = dict(zip(file.ids, file.labels, strict=True))
    if len(known) < len(file.ids):
        raise ValueError(f"{file.path} has two labels for one {file.known_by}. Leave one.")
    wanted = _names(file, ids) if file.known_by == "name" else _indices(ids)
    lacking = [one for one in wanted if one not in known]
    if lacking:
        more = f", and for {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(f"{file.path} has no label for the {file.known_by} {lacking[0]!r}{more}.")
    number = {name: label for label, name in enumerate(classes)}
    found = [_class_index(known[one], number, num_classes, file.path) for one in wanted]
    return torch.tensor(found, dtype=torch.int64)


def _read_array(path: Path, key: str | None) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            if key is not None:
                raise LookupError(f"noisy_labels_key={key!r} is for .npz and .csv; {path} is one array. Leave it away.")
            return found
        with found:
            names = ", ".join(found.files) or "none"
            if key is None and len(found.files) != 1:
                raise LookupError(f"noisy_labels_key must name one of the arrays of {path}: {names}.")
            if key is not None and key not in found.files:
                raise LookupError(f"noisy_labels_key must name one of the arrays of {path}: {names}; got {key!r}.")
            return found[key or found.files[0]]
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"cannot read {path}: {error}.") from None


def _read_csv(path: Path, key: str) -> LabelFile:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}.") from None
    if key not in header:
        raise ValueError(f"noisy_labels_key must name one of the columns of {path}: {', '.join(header)}; got {key!r}.")
    ragged = [row for row in rows if len(row) != len(header)]
    if ragged:
        raise ValueError(f"{path} must have {len(header)} cells in each row, got {','.join(ragged[0])!r}.")
    columns: dict[str, list[str]] = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    if "name" in columns:
        return LabelFile(path, columns[key], "name", columns["name"])
    if "index" not in columns:
        return LabelFile(path, columns[key], "place", range(len(rows)))
    strange = [cell for cell in columns["index"] if not cell.isdecimal()]
    if strange:
        raise ValueError(f"the column index of {path} must hold integers of at least 0, got {strange[0]!r}.")
    return LabelFile(path, columns[key], "index", [int(cell) for cell in columns["index"]])


def _names(file: LabelFile, ids: Ids) -> Ids:
    if ids and not isinstance(ids[0], str):
        raise ValueError(f"{file.path} has a column name, but the samples of this data have none. Use a column index.")
    return ids


def _indices(ids: Ids) -> list[int]:
    """Official indices; those of images must be their own, which they are not where each folder counts from 0."""
    owner: dict[int, str] = {}
    for name in (one for one in ids if isinstance(one, str)):
        number = re.search(r"(\d+)\.\w+$", name)
        if number is None:
            raise ValueError(f"{name} has no index in its name, such as 00029.jpg. Use a .csv with a column name.")
        if (index := int(number[1])) in owner:
            raise ValueError(f"{owner[index]} and {name} have the same index {index}. Use a .csv with a column name.")
        owner[index] = name
    return [*owner] or [int(one) for one in ids]


def _class_index(label: Any, number: dict[str, int], num_classes: int, path: Path) -> int:
    if label in number:
        return number[label]
    index = int(label) if not isinstance(label, str) or label.isdecimal() else -1
    if not 0 <= index < num_classes:
        names = f", or one of {', '.join([*number][:3])}, ..." if number else ""
        raise ValueError(f"{path} must hold classes 0 to {num_classes - 1}{names}, got {label!r}.")
    return index
