"""A callback of jobs that writes down what a process can know of itself, or misbehaves."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import lightning as L
import torch


def facts():
    main = sys.modules["__main__"]
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP)
    return {
        "forked": "hydra_plugins.ls_process_launcher._supervise" in sys.modules,
        "environ": {name: value for name, value in os.environ.items() if name != "MASTER_PORT"},
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "main": [main.__spec__.name, main.__file__],
        "path": sys.path,
        "flags": repr(sys.flags),
        "folder": os.getcwd(),
        "leads its group": os.getpgrp() == os.getpid(),
        "in a session of its own": os.getsid(0) not in (os.getpid(), os.getsid(1)),
        "signals": {signum.name: repr(signal.getsignal(signum)).split(" at ")[0] for signum in stopping},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "files": sorted(re.sub(r"\[\d+\]", "", os.readlink(f"/proc/self/fd/{fd}")) for fd in range(3)),
        "open": sorted(name for name in map(target, os.listdir("/proc/self/fd")) if "socket" in name),
        "torch threads": torch.get_num_threads(),
        "buffering": [stream.line_buffering or stream.write_through for stream in (sys.stdout, sys.stderr)],
    }


def target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


class Probe(L.Callback):
    def __init__(self, do="note"):
        self.do = do

    def on_train_start(self, trainer, pl_module):
        folder = Path(trainer.default_root_dir)
        (folder / "facts.json").write_text(json.dumps({**facts(), "pid": os.getpid(), "parent": os.getppid()}))
        if self.do == "hang":
            time.sleep(300)
        while self.do == "wait" and not Path("go").exists():
            time.sleep(0.05)
        if self.do == "raise":
            raise ValueError("this job does not work")
        if self.do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
