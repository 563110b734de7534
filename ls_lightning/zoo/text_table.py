"""Texts with labels as they were found, and one clear line for whatever is wrong with them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MISSING = object()


class Rows(NamedTuple):
    """Texts and the names of their classes, of equal length."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class TextTable:
    """Two columns of a file or a data set, not yet looked at.

    Args:
        where: for messages.
        texts: what stands in the column of texts; ``MISSING`` where a row has no such column.
        labels: the same of the labels.
        names: of the two columns.
        columns: that there are.
    """

    where: str
    texts: Sequence[Any]
    labels: Sequence[Any]
    names: tuple[str, str] = ("text", "label")
    columns: Sequence[str] = ()

    def read(self, labelled: bool = True) -> Rows:
        """Check every row.

        Args:
            labelled: False does not look at the labels, and returns none.

        Raises:
            ValueError: there is no row; a row lacks a column; a text is no text or empty; a label is neither text nor
                integer, or empty.

        Example:
            >>> TextTable("mine.csv", ["Hello!", " "], [1, 0]).read()
            Traceback (most recent call last):
            ValueError: mine.csv, row 2: text must hold words, got ' '. Fill it in, or remove the row.
        """
        if len(self.texts) == 0:
            raise ValueError(f"{self.where} must hold texts, but has no row.")
        text, label = self.names
        texts = [self._text(row, value, text) for row, value in enumerate(self.texts, 1)]
        return Rows(texts, [self._label(row, value, label) for row, value in enumerate(self.labels, 1)] * labelled)

    def _text(self, row: int, value: Any, column: str) -> str:
        self._found(row, value, column)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{self.where}, row {row}: {column} must hold words, got {value!r}. Fill it in, or remove the row."
            )
        return value

    def _label(self, row: int, value: Any, column: str) -> str:
        self._found(row, value, column)
        name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not name:
            raise ValueError(
                f"{self.where}, row {row}: {column} must be the name or the number of a class, got {value!r}."
            )
        return name

    def _found(self, row: int, value: Any, column: str) -> None:
        if value is MISSING:
            if column in self.columns:
                raise ValueError(f"{self.where}, row {row} has no {column!r}. Fill it in, or remove the row.")
            lacking = [key for key, name in zip(("text", "label"), self.names, strict=True) if name not in self.columns]
            options = " ".join(f"data.{key}=<column>" for key in lacking)
            names = ", ".join(self.columns) or "none"
            names = names if len(names) < 80 else f"{names[:77]}..."
            first = " The first line of a .csv names them." if ".csv" in self.where else ""
            raise ValueError(f"{self.where} must have a column {column!r}, it has {names}. Use {options}.{first}")


def class_names(labels: Sequence[str]) -> list[str]:
    """Each label once: numbers by value, names by the alphabet.

    Example:
        >>> class_names(["10", "9", "10"]), class_names(["no", "maybe"])
        (['9', '10'], ['maybe', 'no'])
    """
    found = sorted(set(labels))
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else found


def digest(splits: Mapping[str, Rows]) -> str:
    """The sha256 of texts and labels of each split in turn, however their file was laid out.

    Example:
        >>> digest({"train": Rows(["red fish"], ["fish"])})[:8]
        '527616a1'
    """
    found = hashlib.sha256()
    for rows in splits.values():
        for text, label in zip(*rows, strict=True):
            found.update(f"{text}\0{label}\0".encode())
    return found.hexdigest()
