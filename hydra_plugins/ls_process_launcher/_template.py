"""An interpreter that has imported what a job needs, and becomes a supervised job at each request.

::

    launcher -- requests --> template -- fork --> supervisor -- fork --> job
       |                                              |
       +----------- the supervisor's stdin -----------+

Nothing but imports happens in the template: it starts no thread and touches no GPU, so that a forked process is as a
fresh one would be after its imports. Run by ``_warm.py``.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from hydra_plugins.ls_process_launcher._supervise import Forked, adopt_orphans, die_with_parent, look_after

LONGEST = 2**20


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a supervised job at each request.

    Returns:
        In the process of a job its request; in the template None, once the launcher has hung up.
    """
    while True:
        message, fds, _flags, _address = socket.recv_fds(requests, LONGEST, 2)
        _reap()
        if not message:
            return None
        if os.fork() == 0:
            requests.close()
            return _become_job(json.loads(message), *fds)
        for fd in fds:
            os.close(fd)


def _become_job(request: dict[str, Any], log: int, stdin: int) -> dict[str, Any]:
    """Stay behind as the supervisor, as ``_supervise.py`` would; go on in a child as the job."""
    os.setsid()
    for fd, target in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    for fd in (stdin, log):
        os.close(fd)
    supervisor = os.getpid()
    os.write(0, b"%d\n" % supervisor)
    adopt_orphans()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # the job does so, too: whoever comes first
            os.setpgid(pid, pid)
        code = look_after(Forked(pid), [])
        with contextlib.suppress(OSError):
            os.write(0, b"%d\n" % code)
        os._exit(code)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    die_with_parent(supervisor)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return request


def _be_fresh(request: dict[str, Any]) -> None:
    """What a new interpreter would find."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    sys.orig_argv[1:] = ["-m", request["module"], *request["arguments"]]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # from the system, as at its import; Python's own generator does so by itself


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _can_fork() -> bool:
    """Whether nothing is running here that a fork would cut off."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)  # numpy's threads end before a fork and start anew when they are needed
    driver = "libcuda.so" in Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/task")) == 1 and not driver


def main(requests: str, launcher: str, module: str, *imports: str) -> None:
    """Import, then serve; in a job, run the module as ``python -m`` does."""
    die_with_parent(int(launcher))
    gc.disable()  # what is imported stays: to look through it again and again takes a fifth of the time
    for name in (module, *imports):
        importlib.import_module(name)
    del sys.modules[module]  # it is run as __main__
    gc.freeze()  # or each job would copy all of this memory, by looking through it for garbage
    gc.enable()
    with socket.socket(fileno=int(requests)) as served:
        request = serve(served) if _can_fork() else None
    if request is not None:
        _be_fresh(request)
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
