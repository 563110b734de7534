"""Where a result comes from: versions of what computed it, revision of the user's project."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from typing import Any

_PACKAGES = ("ls-lightning", "torch", "lightning", "torchmetrics", "hydra-core", "omegaconf")


@cache
def versions() -> dict[str, str]:
    """Python's version and those of the packages that compute a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


@cache
def git_revision() -> dict[str, Any] | None:
    """Commit of the project in the working directory and whether it had changes; None if it is not in git.

    As it was when a process asked first: what that has imported does not follow later changes.
    """
    commit = _git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
