"""Run one command, and leave no process of it behind: ``python _supervise.py <command>``.

The launcher holds the other end of stdin. When the launcher dies, however it dies, stdin ends and the job is killed.
SIGINT, or an I on stdin, is passed on to all processes of the job; SIGTERM, or a K, kills them. When the first process
of the job ends, so do the others. Started by path in an isolated interpreter, so that it costs milliseconds: standard
library only. A warm job (`_template.py`) is looked after by the same functions in a forked process.
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

INTERRUPT, KILL = b"I", b"K"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AFTER_SUCCESS = 5.0  # seconds that the other ranks have to end by themselves


class Forked:
    """A child by fork, with what is needed here of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """The exit code, minus the signal that killed it, or None."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        """The same, once it has ended."""
        code = self.poll(0)
        assert code is not None
        return code


def main(command: list[str]) -> int:
    """Exit code of the command; 128 + signal if one killed it."""
    words: list[bytes] = []
    # Functions, not SIG_IGN: the command must start with the default handlers.
    signal.signal(signal.SIGINT, lambda _signum, _frame: words.append(INTERRUPT))
    signal.signal(signal.SIGTERM, lambda _signum, _frame: words.append(KILL))
    prctl = adopt_orphans()
    job = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=None if prctl is None else lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    return look_after(job, words)


def look_after(job: "subprocess.Popen[bytes] | Forked", words: list[bytes]) -> int:
    """Until the job has ended and no process of it is left.

    Args:
        job: the leader of its process group.
        words: INTERRUPT and KILL as they come, besides those on stdin.
    """
    code = job.poll()
    while code is None:
        if select.select([0], [], [], 0.05)[0]:
            word = os.read(0, 1)
            if not word:
                break
            words.append(word)
        while words:
            _kill_group(job.pid, signal.SIGINT if words.pop(0) == INTERRUPT else signal.SIGKILL)
        code = job.poll()
    if code == 0:
        _wait(_AFTER_SUCCESS)
    _kill_group(job.pid, signal.SIGKILL)
    code = job.wait()
    _kill_children()
    return code if code >= 0 else 128 - code


def adopt_orphans() -> Callable[[int, int], int] | None:
    """Grandchildren that leave the process group are found, too. Returns Linux's prctl."""
    prctl = _prctl()
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return prctl


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, or now if it has."""
    prctl = _prctl()
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


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
        if select.select([0], [], [], 0.05)[0] and os.read(0, 1) != INTERRUPT:
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
