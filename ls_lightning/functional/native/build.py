"""Builds a file of C beside this one into a shared library, which is kept for later processes.

Where no compiler is, as in an image, libraries serve that were built ahead, for every processor of the architecture:
`python build.py FOLDER` makes them, and needs no torch; `LS_LIGHTNING_LOOPS=FOLDER` uses them, and only reads.
"""

import argparse
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
            compiler (`cc`), `XDG_CACHE_HOME` where what was built is kept (`~/.cache`), `LS_LIGHTNING_LOOPS` a folder
            where it is looked for before.
    """
    if os.environ.get("LS_LIGHTNING_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    try:
        return ctypes.CDLL(str(_library(name)))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("%s.c is not used, torch's operations are: %s", name, error)
        return None


def build_ahead(folder: Path) -> list[Path]:
    """Build all files of C for every level that a processor of this architecture may have, readable by all users."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = [[], *_LEVELS.values()] if platform.machine() in {"x86_64", "AMD64"} else [[]]
    built = [_built(file.stem, level, folder) for file in sorted(_sources().glob("*.c")) for level in levels]
    for library in built:
        library.chmod(0o755)
    return built


def _library(name: str) -> Path:
    import torch  # not needed to build ahead

    level = _LEVELS.get(torch.backends.cpu.get_cpu_capability(), [])
    ahead = os.environ.get("LS_LIGHTNING_LOOPS")
    if ahead and (found := Path(ahead) / _file(name, level)).exists():
        return found
    return _built(name, level, _kept())


def _built(name: str, level: list[str], folder: Path) -> Path:
    kept = folder / _file(name, level)
    if not kept.exists():
        made = _compile(_command(level), _sources() / f"{name}.c", folder)
        os.replace(made, kept)  # at once, and the same whoever of several processes is the last
    return kept


def _file(name: str, level: list[str]) -> str:
    sources = [path.read_bytes() for path in (_sources() / f"{name}.c", *sorted(_sources().glob("*.h")))]
    said = "\0".join([*_command(level), platform.system(), platform.machine()]).encode()
    return f"{name}-{hashlib.sha256(b''.join([said, *sources])).hexdigest()[:16]}.so"


def _command(level: list[str]) -> list[str]:
    return [*shlex.split(os.environ.get("CC") or "cc"), *_OPTIONS, *level]


def _sources() -> Path:
    return Path(__file__).parent


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the loops in C ahead, for machines without a compiler.")
    parser.add_argument("folder", type=Path, help="what LS_LIGHTNING_LOOPS will name")
    try:
        print(*build_ahead(parser.parse_args().folder), sep="\n")
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}\n{getattr(error, 'stderr', None) or ''}".strip())
