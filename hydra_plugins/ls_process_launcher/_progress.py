"""How far a running job is, from the metrics.csv in its folder."""

import csv
from pathlib import Path

_TAIL = 16384


def progress(folder: Path) -> dict[str, str]:
    r"""The latest ``epoch`` and ``ls/eps`` that are there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.csv").write_text("step,epoch,ls/eps\n0,0,0.1\n1,,0.05\n")
        >>> progress(folder)
        {'epoch': '0', 'eps': '0.05'}
    """
    try:
        with (folder / "metrics.csv").open("rb") as file:
            columns = next(csv.reader([file.readline().decode()]), [])
            start = file.tell()
            end = file.seek(0, 2)
            file.seek(max(start, end - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for row in csv.reader(lines):
        if len(row) == len(columns):  # the first of the tail and the last may be cut
            found.update({name: value for name, value in zip(columns, row, strict=True) if value})
    return {name: _short(found[key]) for name, key in (("epoch", "epoch"), ("eps", "ls/eps")) if key in found}


def _short(number: str) -> str:
    try:
        return f"{float(number):.4g}"
    except ValueError:
        return number
