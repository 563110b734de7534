"""Builds a file of C beside this one into a shared library, which is kept for later processes."""

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

_LEVELS = {"AVX512": ["-march=x86-64-v4"], "AVX2": ["-march=x86-64-v3"]}
"""By what torch found the processor to have, so that processors that share a home directory do not share a library."""
_OPTIONS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fPIC", "-shared", "-pthread"]
_SECONDS = 120

_log = logging.getLogger(__name__)


@cache
def load_library(name: str) -> ctypes.CDLL | None:
    """Load `<name>.c` as a library, built if need be; None if that is not wanted or not possible here.

    Args:
        name: of a C file in this folder. Environment: `LS_LIGHTNING_NATIVE=0` turns all of them off, `CC` names the
            compiler (`cc`), `XDG_CACHE_HOME` where what was built is kept (`~/.cache`).
    """
    if os.environ.get("LS_LIGHTNING_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    try:
        return ctypes.CDLL(str(_library(name)))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("%s.c is not used, torch's operations are: %s", name, error)
        return None


def _library(name: str) -> Path:
    folder = Path(__file__).parent
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, *_OPTIONS, *_LEVELS.get(torch.backends.cpu.get_cpu_capability(), [])]
    sources = [path.read_bytes() for path in (folder / f"{name}.c", *sorted(folder.glob("*.h")))]
    said = "\0".join([*command, platform.system(), platform.machine()]).encode()
    kept = _kept() / f"{name}-{hashlib.sha256(b''.join([said, *sources])).hexdigest()[:16]}.so"
    if not kept.exists():
        made = _compile(command, folder / f"{name}.c", kept.parent)
        os.replace(made, kept)  # at once, and the same whoever of several processes is the last
    return kept


def _compile(command: list[str], source: Path, folder: Path) -> Path:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"no C compiler {command[0]!r}")
    handle, made = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        subprocess.run(
            [*command, "-o", made, str(source), "-lm"], check=True, capture_output=True, text=True, timeout=_SECONDS
        )
    except BaseException:
        os.unlink(made)
        raise
    return Path(made)


def _kept() -> Path:
    """A folder of this user's alone; where there is none, one for this process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ls_lightning"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except (OSError, RuntimeError):
        pass
    return _of_this_process()


@cache
def _of_this_process() -> Path:
    folder = tempfile.mkdtemp(prefix="ls_lightning-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
