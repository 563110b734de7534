"""metrics.csv of a job: one row a step, written in blocks, continued exactly by a resumed run."""

from __future__ import annotations

import csv
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from typing_extensions import override

_BLOCK_ROWS = 256
_BLOCK_SECONDS = 5.0


class CSVHistory(Logger):
    """Write every logged value to ``<save_dir>/metrics.csv``, one row a step.

    Unlike Lightning's ``CSVLogger``: values of the same step share a row; tensors are fetched from the device
    only when a block is written; and a resumed run keeps the rows of the steps before its checkpoint and
    replaces the others, where ``CSVLogger`` deletes the file.

    Args:
        save_dir: the folder of the job.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> history = CSVHistory(folder)
        >>> history.log_metrics({"train/loss": torch.tensor(0.5)}, step=0)
        >>> history.log_metrics({"ls/eps": 0.1}, step=0)
        >>> history.finalize("success")
        >>> print(Path(folder, "metrics.csv").read_text().strip())
        step,train/loss,ls/eps
        0,0.5,0.1
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._opened = False
        self._carried = False
        self._last_row = 0
        self._written = time.monotonic()

    @property
    @override
    def name(self) -> str:
        return "csv"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the job's ``config.yaml`` holds them."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if step is None:
            step = self._rows[-1]["step"] if self._rows else 0
        if not self._opened:
            self._open(step)
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(metrics)
            return
        # The last row stays in memory: more values of its step may come.
        if len(self._rows) >= _BLOCK_ROWS or time.monotonic() - self._written > _BLOCK_SECONDS:
            self._write()
        self._rows.append({"step": step, **metrics})

    @rank_zero_only
    def flush(self) -> None:
        """Write what is in memory; before a checkpoint is, or a resumed run would miss the rows up to it."""
        self._write()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._write()

    def _open(self, step: int) -> None:
        """Keep what an interrupted run wrote up to ``step``; more values of that may come."""
        self._opened = True
        if not self.path.exists():
            return
        kept = [row for row in self._read() if (row.get("step") or "").isdigit() and int(row["step"]) <= step]
        self._replace(kept)
        self._carried = bool(kept) and int(kept[-1]["step"]) == step
        if self._carried:
            self._rows = [{**kept[-1], "step": step}]
        else:
            self._last_row = self.path.stat().st_size

    def _write(self) -> None:
        """Write the rows in memory. The last one stays there too, and is written again once its step is over."""
        self._written = time.monotonic()
        if not self._rows:
            return
        rows = _to_numbers(self._rows)
        new = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in self._columns]
        if new or not self.path.exists():
            settled = self._read() if self.path.exists() else []
            self._columns += new
            self._replace((settled[:-1] if self._carried else settled) + rows)
        else:
            with self.path.open("r+", newline="") as file:
                file.seek(self._last_row)
                self._put(file, rows)
                file.truncate()  # last: a kill loses no row
        self._rows, self._carried = rows[-1:], True

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file, restkey="")
            self._columns = self._columns or list(reader.fieldnames or [])
            return [{name: value for name, value in row.items() if name} for row in reader]

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".csv.part")
        with partial.open("w", newline="") as file:
            csv.DictWriter(file, self._columns).writeheader()
            self._put(file, rows)
        partial.replace(self.path)

    def _put(self, file: TextIO, rows: list[dict[str, Any]]) -> None:
        writer = csv.DictWriter(file, self._columns, restval="")
        writer.writerows(rows[:-1])
        self._last_row = file.tell()
        writer.writerows(rows[-1:])


def _to_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fetch all tensors of a block in one copy from the device."""
    tensors = [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    if not tensors:
        return rows
    stacked = torch.stack([tensor.detach().reshape(()).to(tensors[0].device, torch.float64) for tensor in tensors])
    numbers = iter(stacked.tolist())
    return [{k: next(numbers) if isinstance(v, Tensor) else v for k, v in row.items()} for row in rows]
