"""``metrics.csv`` of all members: rows are held, and written whole, as each member's logger would leave them."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
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
        self._paths = [folder / "metrics.csv" for folder in folders]
        self._rows: list[list[dict[str, Any]]] = [[] for _ in folders]
        self._written = 0.0

    def add(self, member: int, step: int, values: dict[str, Any]) -> None:
        """Add to the row of the step, which is the last or a new one."""
        rows = self._rows[member]
        if rows and rows[-1]["step"] == step:
            rows[-1].update(values)
        else:
            rows.append({"step": step, **values})

    def write(self, member: int) -> None:
        """Write the rows of one member, whole or not at all."""
        path, rows = self._paths[member], self._rows[member]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        partial = path.with_suffix(".csv.part")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([row.get(name, "") for name in columns] for row in rows)
        partial.replace(path)

    def show(self) -> None:
        """Write all rows if that was some seconds ago, for whoever looks on."""
        if time.monotonic() - self._written > _SECONDS:
            for member in range(len(self._rows)):
                self.write(member)
            self._written = time.monotonic()
