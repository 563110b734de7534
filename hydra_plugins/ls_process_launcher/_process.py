"""One job as a process: the command, the start, the end."""

import os
import sys
from functools import partial
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.ls_process_launcher._folders import LOG
from hydra_plugins.ls_process_launcher._jobs import Job
from hydra_plugins.ls_process_launcher._supervisors import ForkedSupervisor, FreshSupervisor, NeverBegunError
from hydra_plugins.ls_process_launcher._warm import Template

_CALLBACK = "hydra_plugins.ls_process_launcher._returned.StoreReturnValue"
_OF_THE_SWEEP = ("hydra.run.", "hydra.sweep.", "hydra.launcher.", "hydra.sweeper.", "hydra.mode", "hydra.job.num")


def program() -> list[str]:
    """How this program was started: interpreter, and module or script."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    return [sys.executable, "-m", spec.name] if spec else [sys.executable, os.path.abspath(sys.argv[0])]


def job_command(job: Job, config: DictConfig, extra: list[str]) -> list[str]:
    """A plain run of the same program with the overrides of the job.

    Args:
        job: which one.
        config: of the sweep; what was typed for Hydra and is not about the sweep holds for the job.
        extra: added last.
    """
    args: Any = get_args_parser().parse_args(sys.argv[1:])
    flags = {"--config-path": args.config_path, "--config-name": args.config_name, "--config-dir": args.config_dir}
    typed: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    keys = [override.get_key_element().lstrip("+~") for override in OverridesParser.create().parse_overrides(typed)]
    return [
        *program(),
        *(word for flag, value in flags.items() if value is not None for word in (flag, value)),
        *(text for text, key in zip(typed, keys, strict=True) if not key.startswith(_OF_THE_SWEEP)),
        *job.overrides,
        "hydra.mode=RUN",
        f"hydra.run.dir={_quoted(str(job.folder))}",
        f"hydra.job.num={job.num}",
        f"hydra.job.id='{job.num}'",
        f"+hydra.callbacks.process_launcher._target_={_CALLBACK}",
        *extra,
    ]


def _quoted(text: str) -> str:
    r"""As Hydra's grammar wants a value with other characters in it.

    Example:
        >>> print(_quoted("/a b/c=1"))
        '/a b/c=1'
    """
    return "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + "'"


class JobProcess:
    """A running job, its ranks and all. It ends when this process ends, however that happens.

    Args:
        job: which one.
        command: of a fresh process.
        env: its environment.
        template: to fork it from; None, or one that has ended: a fresh process.
    """

    def __init__(self, job: Job, command: list[str], env: dict[str, str], template: Template | None) -> None:
        self._log = job.folder / LOG
        self._fresh = partial(FreshSupervisor, command, env)
        self._supervisor: FreshSupervisor | ForkedSupervisor
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            socket = None if template is None else template.fork(command, env, log)
            self._supervisor = self._fresh(log) if socket is None else ForkedSupervisor(socket)

    def poll(self) -> int | None:
        """The exit code, 128 + signal if one killed it, or None while it runs."""
        try:
            return self._supervisor.poll()
        except NeverBegunError:
            with self._log.open("ab") as log:
                self._supervisor = self._fresh(log)
            return None

    def interrupt(self) -> None:
        """Ask all ranks to save a checkpoint and end."""
        self._supervisor.interrupt()

    def kill(self) -> None:
        """End all processes of the job now."""
        self._supervisor.kill()

    def last_lines(self, count: int) -> list[str]:
        """The last lines that this attempt wrote to its log."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - 16384))
            text = log.read().decode(errors="replace")
        lines = [line.rstrip().rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
        return [line for line in lines if line][-count:]
