"""One wandb run that is logged at once: offline unless ``WANDB_MODE`` says otherwise, and never with a question."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ls_lightning.errors import as_config_error

Rows = tuple[Sequence[str], Sequence[Sequence[Any]]]


def log_run(
    folder: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    tables: Mapping[str, Rows],
    images: Mapping[str, Path],
    summary: Mapping[str, Any],
    files: Sequence[Path] = (),
) -> str:
    """Log a run and close it.

    ``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_DIR`` and their like are heeded.

    Args:
        folder: under whose ``wandb`` the run is kept.
        name: of the run.
        config: plain values.
        tables: columns and rows of each, None where there is no value.
        images: PNG files.
        summary: plain values.
        files: in or below ``folder``; copied to the run under their names there.

    Returns:
        A line that says where the run is.

    Raises:
        ConfigError: wandb cannot start, e.g. without a key in ``WANDB_MODE=online``.
    """
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    with as_config_error("upload", Exception), _nobody_to_ask():
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ls_lightning"),
            name=name,
            job_type="report",
            config=dict(config),
            dir=os.environ.get("WANDB_DIR", folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
    with run:
        logged: dict[str, Any] = {
            key: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
            for key, (columns, rows) in tables.items()
        }
        run.log(logged | {key: wandb.Image(str(path)) for key, path in images.items()})
        run.summary.update(dict(summary))
        for file in files:
            kept = Path(run.dir) / file.relative_to(folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, kept)
            run.save(str(kept), base_path=run.dir, policy="now")
    if run.disabled:
        return "WANDB_MODE=disabled: nothing was logged to wandb."
    if run.offline:
        return f"Logged to wandb, offline; to upload it: wandb sync {Path(run.dir).parent}"
    return f"Logged to wandb: {run.url}"


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """At a terminal, wandb asks for an account where it has no key."""
    before = sys.stdin
    with open(os.devnull) as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = before
