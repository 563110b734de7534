"""Run one command, and leave no process of it behind: ``python _supervise.py <command>``.

The launcher holds the other end of stdin. When the launcher dies, however it dies, stdin ends and the job is killed.
SIGINT is passed on to all processes of the job; SIGTERM kills them. When the first process of the job ends, so do the
others. Started by path in an isolated interpreter, so that it costs milliseconds: standard library only.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AFTER_SUCCESS = 5.0  # seconds that the other ranks have to end by themselves


def main(command: list[str]) -> int:
    """Exit code of the command; 128 + signal if one killed it."""
    stop: list[int] = []
    # Functions, not SIG_IGN: the command must start with the default handlers.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _frame: stop.append(signum))
    prctl = _prctl()
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)  # grandchildren that leave the process group are found, too
    job = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=None if prctl is None else lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    while job.poll() is None:
        if select.select([0], [], [], 0.05)[0] and not os.read(0, 1):
            break
        while stop:
            if stop.pop(0) == signal.SIGTERM:
                _kill_group(job.pid, signal.SIGKILL)
            else:
                _kill_group(job.pid, signal.SIGINT)
    if job.returncode == 0:
        _wait(_AFTER_SUCCESS)
    _kill_group(job.pid, signal.SIGKILL)
    code = job.wait()
    _kill_children()
    return code if code >= 0 else 128 - code


def _prctl() -> Callable[[int, int], int] | None:
    """Linux's; elsewhere the process group alone keeps the job together."""
    if not sys.platform.startswith("linux"):
        return None
    call = ctypes.CDLL(None, use_errno=True).prctl
    return lambda option, value: int(call(option, value, 0, 0, 0))


def _kill_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(group, signum)


def _wait(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _children() and time.monotonic() < deadline:
        if select.select([0], [], [], 0.05)[0] and not os.read(0, 1):
            return


def _kill_children() -> None:
    """Until none is left: the children of a killed process become ours."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _children() -> list[int]:
    """Living processes whose parent we are; the dead among them are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
