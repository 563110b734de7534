"""A job on disk: one folder, finished when ``result.json`` is in it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULT = "result.json"
_NUMBERS = re.compile(r'\[\n[^\[\]{}"]*\]')


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``result.json``, whole or not at all.

    Args:
        folder: the job's folder.
        result: what was trained and measured; numbers that are not finite become null.

    Returns:
        The file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_result(folder, {"eps": 0.1, "metrics": {"test": {"nll": math.inf}}})
        >>> read_result(folder)
        {'schema': 1, 'eps': 0.1, 'metrics': {'test': {'nll': None}}}
    """
    text = json.dumps(_finite({"schema": SCHEMA, **result}), indent=2, allow_nan=False)
    return write_text(folder / RESULT, _NUMBERS.sub(_on_one_line, text) + "\n")


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished job; None where the folder holds none.

    Raises:
        ValueError: the file is not a result of this program.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). Move it away, or train the job again.") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result of schema {SCHEMA}. Move it away, or train the job again.")
    return result


def write_text(path: Path, text: str) -> Path:
    """Write a file so that nobody ever sees half of it."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def config_digest(config: dict[str, Any]) -> str:
    """12 hexadecimal digits that are equal for equal configurations, whatever the order of the keys.

    Example:
        >>> config_digest({"eps": 0.1, "seed": 0}) == config_digest({"seed": 0, "eps": 0.1})
        True
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[0][1:-1].split())}]"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
