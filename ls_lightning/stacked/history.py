"""``metrics.csv`` of all members: rows are held, and written whole, as each member's logger would leave them."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 5.0


class StackedHistory:
    """Rows of a run that begins at step 0, of each member.

    Args:
        folders: of the members.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> history = StackedHistory([folder])
        >>> history.add(0, 0, {"train/loss": 0.5})
        >>> history.add(0, 0, {"ls/eps": 0.1})
        >>> history.write(0)
        >>> print((folder / "metrics.csv").read_text().strip())
        step,train/loss,ls/eps
        0,0.5,0.1
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._tables = [_Table(folder / "metrics.csv") for folder in folders]
        self._written = 0.0

    def add(self, member: int, step: int, values: dict[str, Any]) -> None:
        """Add to the row of the step, which is the last or a new one."""
        self._tables[member].add(step, values)

    def write(self, member: int) -> None:
        """Write the rows of one member, whole or not at all."""
        self._tables[member].write()

    def show(self) -> None:
        """Write all rows if that was some seconds ago, for whoever looks on."""
        if time.monotonic() - self._written > _SECONDS:
            for table in self._tables:
                table.write()
            self._written = time.monotonic()


class _Table:
    """One file. The text of a row that can change no more is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._text, self._in_text = "", 0

    def add(self, step: int, values: dict[str, Any]) -> None:
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": step, **values})

    def write(self) -> None:
        found = list(dict.fromkeys([*self._columns, *(name for row in self._rows[self._in_text :] for name in row)]))
        added, self._columns = len(found) - len(self._columns), found
        self._text = self._text.replace("\r\n", "," * added + "\r\n") if added else self._text
        self._text += self._as_text(self._rows[self._in_text : -1])
        self._in_text = max(0, len(self._rows) - 1)
        partial = self._path.with_suffix(".csv.part")
        header = _lines([self._columns])
        partial.write_text(header + self._text + self._as_text(self._rows[self._in_text :]), newline="")
        partial.replace(self._path)

    def _as_text(self, rows: list[dict[str, Any]]) -> str:
        return _lines([row.get(name, "") for name in self._columns] for row in rows)


def _lines(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
