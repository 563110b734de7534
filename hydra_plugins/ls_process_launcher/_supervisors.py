"""The two ways in which a job's supervisor is started, and how the launcher talks to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from hydra_plugins.ls_process_launcher._supervise import INTERRUPT, KILL

_SUPERVISE = Path(__file__).with_name("_supervise.py")


class NeverBegunError(Exception):
    """The template ended before it had forked the job: nothing of it has run."""


class FreshSupervisor:
    """A process of its own, which starts the job's command."""

    def __init__(self, command: list[str], env: dict[str, str], log: IO[bytes]) -> None:
        # -I and -S: the supervisor needs nothing but the standard library and starts in milliseconds.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISE), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """The exit code, 128 + signal if one killed it, or None while it runs."""
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if code is not None and code < 0:
            _kill_session(self._process.pid)  # somebody killed the supervisor, which cannot clean up then
            return 128 - code
        return code

    def interrupt(self) -> None:
        """Pass on SIGINT."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End all processes of the job."""
        self._process.send_signal(signal.SIGTERM)


class ForkedSupervisor:
    """A process forked from the template, at the other end of a socket: it says its number, later the exit code."""

    def __init__(self, other_end: socket.socket) -> None:
        self._other_end = other_end
        self._said = b""
        self._stopped = False

    def poll(self) -> int | None:
        """The exit code, 128 + signal if one killed it, or None while it runs.

        Raises:
            NeverBegunError: it was never there.
        """
        try:
            words = self._other_end.recv(64)
        except BlockingIOError:
            return None
        except OSError:
            words = b""
        self._said += words
        numbers = self._said.split()
        if words and self._said.count(b"\n") < 2:
            return None
        self._other_end.close()
        if len(numbers) == 2:
            return int(numbers[1])
        if numbers:
            _kill_session(int(numbers[0]))
        elif not self._stopped:
            raise NeverBegunError
        return 128 + signal.SIGKILL

    def interrupt(self) -> None:
        """Pass on SIGINT."""
        self._say(INTERRUPT)

    def kill(self) -> None:
        """End all processes of the job."""
        self._say(KILL)

    def _say(self, word: bytes) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._other_end.send(word)


def _kill_session(session: int) -> None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[3] == str(session):
                os.kill(int(stat.parent.name), signal.SIGKILL)
