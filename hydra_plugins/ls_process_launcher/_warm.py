"""Jobs without the price of their imports: which may start so, and the template that they are forked from."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.ls_process_launcher._errors import LauncherError
from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_process_launcher._template import LONGEST

_IMPORTS = {"ls_lightning.train": ("ls_lightning.job",)}
"""The programs that do nothing but define as they are imported, and what they import later."""
_PLAIN = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
_OF_EACH = {"MASTER_PORT"}  # of an environment, what differs from job to job and no import reads


class Warm:
    """Decides how jobs start, and holds the template for as long as the launcher lives.

    Args:
        mode: "auto" starts warm what can, True refuses what cannot, False starts every job as a fresh process.
        devices_per_job: of the launcher.
    """

    def __init__(self, mode: Any, devices_per_job: int | None) -> None:
        if not isinstance(mode, bool) and mode != "auto":
            raise LauncherError(f"hydra.launcher.warm must be auto, true or false, got {mode}.")
        self._mode = mode
        self._devices_per_job = devices_per_job
        self._template: Template | None = None

    def check(self, jobs: list[Job]) -> None:
        """``LauncherError`` where a warm start is asked for that cannot be."""
        for job in jobs:
            why = self._why_not(job.cfg)
            if self._mode is True and job.state == State.QUEUED and why:
                raise LauncherError(
                    f"hydra.launcher.warm=true needs {why}, which job {job.num} does not have. warm=auto starts such "
                    "a job as a fresh process."
                )

    def template(self, job: Job, command: list[str], env: dict[str, str]) -> "Template | None":
        """That from which to fork the job, or None for a fresh process."""
        if self._mode is False or self._why_not(job.cfg):
            return None
        if self._template is None:
            _python, _dash_m, module, *_arguments = command
            self._template = Template(module, env)
        return self._template

    def _why_not(self, cfg: DictConfig) -> str:
        """What a warm start needs and the job does not have; empty if it can."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if not sys.platform.startswith("linux"):
            return "Linux"
        if spec is None or spec.name not in _IMPORTS:
            return f"the program python -m {' or '.join(_IMPORTS)}"
        trainer = {key: OmegaConf.select(cfg, f"trainer.{key}", throw_on_missing=False) for key in _PLAIN}
        if trainer != _PLAIN or self._devices_per_job is not None:
            return "one process on the CPU (trainer=cpu)"
        return ""


class Template:
    """The process that ``_template.py`` describes.

    Args:
        module: what it runs.
        env: its environment, and that of its jobs but for ``MASTER_PORT``.
    """

    def __init__(self, module: str, env: dict[str, str]) -> None:
        self._module, self._env, self._folder = module, env, Path.cwd()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [str(theirs.fileno()), str(os.getpid()), module, *_IMPORTS[module]]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hydra_plugins.ls_process_launcher._template", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=env,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._requests.setblocking(False)

    def fork(self, command: list[str], env: dict[str, str], log: IO[bytes]) -> socket.socket | None:
        """Ask for a job. Returns the other end of its supervisor's stdin, or None if there is no template any more."""
        names = (env.keys() | self._env.keys()) - _OF_EACH
        message = json.dumps({"module": self._module, "arguments": command[3:], "environment": env}).encode()
        same = self._folder == Path.cwd() and all(env.get(name) == self._env.get(name) for name in names)
        if not same or len(message) > LONGEST:
            return None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._requests, [message], [log.fileno(), theirs.fileno()])
            except OSError:  # it has ended, or more is asked for at once than it can note
                ours.close()
                return None
        ours.setblocking(False)
        return ours
