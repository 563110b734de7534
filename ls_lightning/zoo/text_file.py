"""Reading tables of texts from ``.csv``, ``.tsv``, ``.jsonl`` and ``.json`` files, one or a folder of them."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from .text_table import MISSING, TextTable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
CONTENT = f"It must hold rows of texts and labels: {', '.join(SUFFIXES)}."

_WHOLE = ""


def read_tables(path: Path, text: str, label: str, split: str | None = None) -> dict[str, TextTable]:
    r"""The tables of a file by the names of their splits.

    Rows are objects ``{"text": ..., "label": ...}`` or pairs ``[text, label]``. A ``.json`` file holds a list of them,
    or an object of such lists, one a split; a ``.jsonl`` file a row a line; a ``.csv`` or ``.tsv`` file begins with
    the names of its columns, between commas, tabs, semicolons or bars.

    Args:
        path: of the file; or of a folder, in which ``train.csv`` and so on are the splits.
        text: the column of texts.
        label: the column of labels.
        split: the column that says to which split a row belongs.

    Returns:
        One table for each split; a file without splits is ``train``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a file cannot be read, is not UTF-8, or has no rows of this form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.csv"
        ...     lines = path.write_text("text,label\ngood,1\nbad,0\n")
        ...     read_tables(path, "text", "label")["train"].read()
        Rows(texts=['good', 'bad'], labels=['1', '0'])
    """
    found = dict(_rows_by_split(path, split, text))
    return {
        name or "train": _table(f"{path}{f' ({name})' if name else ''}", rows, text, label)
        for name, rows in found.items()
    }


def _rows_by_split(path: Path, split: str | None, text: str) -> Iterator[tuple[str, list[Any]]]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if split is not None:
            raise ValueError(f"data.split names a column of one file, but {path} is a folder. Leave split out.")
        yield from ((file.stem, _only(_read(file, text), file)) for file in files)
        return
    rows = _read(path, text)
    if split is None:
        if any(isinstance(row, dict) and "split" in row for row in rows.get(_WHOLE, [])):
            rank_zero_warn(f"{path} has a column 'split', which is not read. Use data.split=split to split by it.")
        yield from rows.items()
        return
    by_split = defaultdict(list)
    for number, row in enumerate(_only(rows, path), 1):
        if not isinstance(row, dict) or not row.get(split):
            raise ValueError(f"{path}, row {number} must name its split in a column {split!r}, got {_short(row)}.")
        by_split[str(row[split])].append(row)
    yield from by_split.items()


def _only(rows: dict[str, list[Any]], file: Path) -> list[Any]:
    if list(rows) != [_WHOLE]:
        raise ValueError(f"{file} must hold one list of rows here, it has the splits {', '.join(rows)} already.")
    return rows[_WHOLE]


def _read(file: Path, text: str) -> dict[str, list[Any]]:
    """Rows by split, or all of them as one."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"data.path must be a folder or a file {', '.join(SUFFIXES)}, got {str(file)!r}.")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file.absolute()}. {CONTENT}")
    try:
        content = file.read_text(encoding="utf-8-sig")
        if file.suffix in (".csv", ".tsv"):
            return {_WHOLE: _read_csv(content, _delimiter(content, "," if file.suffix == ".csv" else "\t", text))}
        if file.suffix == ".jsonl":
            return {_WHOLE: _read_lines(content)}
        found = json.loads(content)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8, but byte {error.start} is not. Save it again as UTF-8.") from None
    except (ValueError, OSError, csv.Error, RecursionError) as error:
        raise ValueError(f"cannot read {file}: {error}. {CONTENT}") from None
    splits = found if isinstance(found, dict) else {_WHOLE: found}
    strange = next((name for name, rows in splits.items() if not isinstance(rows, list)), None)
    if strange is not None:
        raise ValueError(f"{file} must hold lists of rows, got {_short(splits[strange])}. {CONTENT}")
    return splits


def _read_lines(content: str) -> list[Any]:
    rows = []
    for number, line in enumerate(content.split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON ({str(error).partition(': line')[0]})") from None
    return rows


def _delimiter(content: str, usual: str, text: str) -> str:
    """The sign by which the first line names the column of texts; else the usual one, if it divides that line."""
    first = content.partition("\n")[0].strip()
    names = {sign: [name.strip('" ') for name in first.split(sign)] for sign in (usual, ",", ";", "\t", "|")}
    dividing = [sign for sign, found in names.items() if len(found) > 1]
    return next((sign for sign in dividing if text in names[sign]), next(iter(dividing), usual))


def _read_csv(content: str, delimiter: str) -> list[dict[str, str]]:
    lines = csv.reader(content.splitlines(keepends=True), delimiter=delimiter, strict=True)
    header = next(lines, [])
    rows = [row for row in lines if row]
    ragged = next((row for row in rows if len(row) != len(header)), None)
    if ragged is not None:
        raise ValueError(f"it has {len(header)} columns, but a row with {len(ragged)} cells: {_short(ragged)}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _table(where: str, rows: list[Any], text: str, label: str) -> TextTable:
    strange = next((k for k, row in enumerate(rows) if not isinstance(row, dict) and not _is_pair(row)), None)
    if strange is not None:
        raise ValueError(
            f"{where}, row {strange + 1} must be an object with {text!r} and {label!r}, or a pair of them, got "
            f"{_short(rows[strange])}."
        )
    named = [row if isinstance(row, dict) else {text: row[0], label: row[1]} for row in rows]
    texts, labels = ([row.get(name, MISSING) for row in named] for name in (text, label))
    return TextTable(where, texts, labels, (text, label), columns=[*named[0]] if named else ())


def _is_pair(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
