"""The processes of a job: who has started them, and whether there are as many as the Trainer counts on.

Imports neither torch nor lightning: the command line asks before they are loaded, and lightning reads the rank of a
process from the environment when it is imported.
"""

from __future__ import annotations

import atexit
import os
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ls_lightning.errors import ConfigError


@dataclass(frozen=True)
class Started:
    """The processes of this job, where somebody else than Lightning starts them.

    Args:
        variable: how the environment says how many there are.
        count: how many.
        remedy: what starts the right number, with ``{devices}`` and ``{nodes}`` to be filled in.
    """

    variable: str
    count: int
    remedy: str


_SUBMITIT = "Set hydra.launcher.tasks_per_node={devices} and hydra.launcher.nodes={nodes}."
_SLURM = "Start them by srun with --nodes={nodes} --ntasks-per-node={devices}."
_TORCHRUN = "Give torchrun --nnodes={nodes} --nproc_per_node={devices}."
_INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which Lightning starts its ranks by itself


def started(environ: Mapping[str, str]) -> Started | None:
    """Who has started the processes of this job, as Lightning will see it; None where it is Lightning itself.

    Example:
        >>> started({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}).count
        4
        >>> started({"SLURM_NTASKS": "2"}).variable
        'SLURM_NTASKS'
        >>> started({}) is None
        True
    """
    slurm = "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in _INTERACTIVE
    if environ.get("SUBMITIT_EXECUTOR") == "local":
        return Started("SUBMITIT_LOCAL_NTASKS", int(environ["SUBMITIT_LOCAL_NTASKS"]), _SUBMITIT)
    if slurm:
        remedy = _SUBMITIT if "SUBMITIT_EXECUTOR" in environ else _SLURM
        return Started("SLURM_NTASKS", int(environ["SLURM_NTASKS"]), remedy)
    if "TORCHELASTIC_RUN_ID" in environ:
        return Started("WORLD_SIZE", int(environ["WORLD_SIZE"]), _TORCHRUN)
    return None


def join_ranks() -> None:
    """Tell Lightning of the tasks that submitit has started on this machine; of SLURM's it knows by itself."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return
    job, rank, count = (os.environ[f"SUBMITIT_LOCAL_{name}"] for name in ("JOB_ID", "LOCALID", "NTASKS"))
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, LOCAL_WORLD_SIZE=count, MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(20000 + int(job) % 12000)  # the same on all ranks, another for each job


def end_with(exit_code: int) -> None:
    """Let this process end with ``exit_code`` though Hydra and submitit keep an exception to themselves.

    Or SLURM would not end the other ranks, which wait for this one.
    """
    processes = started(os.environ)
    if "SUBMITIT_EXECUTOR" in os.environ and processes is not None and processes.count > 1:
        atexit.register(os._exit, exit_code)  # submitit has sent the exception by then


def in_multirun() -> bool:
    """Whether this job is run by a launcher of Hydra that does not make it a plain run."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def check_start(cfg: DictConfig) -> None:
    """Whether all ranks of this job can know what they train, and where.

    Raises:
        ConfigError: torchrun or srun has started a sweep, which each rank would run for itself; or several machines
            would each name the job's folder by their own clock.
    """
    processes = started(os.environ)
    count = processes.count if processes is not None else 1
    if in_multirun():
        if count > 1 and "SUBMITIT_EXECUTOR" not in os.environ:
            raise ConfigError(
                f"a sweep must be started once, got {count} processes: each rank would run all of it. Start it without "
                "torchrun and srun; each job starts its own ranks (trainer=ddp)."
            )
        return
    nodes: Any = cfg.trainer.get("num_nodes", 1)
    typed = HydraConfig.get().overrides.hydra
    if (count > 1 or nodes != 1) and not any(word.lstrip("+").startswith("hydra.run.dir=") for word in typed):
        raise ConfigError(
            "hydra.run.dir is needed where ranks are started by torchrun, srun or on several machines: each would name "
            "the job's folder by its own clock. Give all the same: hydra.run.dir=outputs/<name>."
        )


def check_processes(trainer: Any) -> None:
    """Whether there are, or Lightning can start, as many processes as the Trainer counts on.

    Args:
        trainer: the ``lightning.Trainer`` of the job, before it does anything.

    Raises:
        ConfigError: data would be left out or trained twice, or Lightning's ranks would each run the whole sweep.
    """
    nodes, devices = trainer.num_nodes, trainer.num_devices
    processes = started(os.environ)
    if processes is not None and processes.count != nodes * devices:
        remedy = processes.remedy.format(nodes=nodes, devices=devices)
        raise ConfigError(
            f"num_nodes * devices must be the number of processes, got {nodes} * {devices} and "
            f"{processes.variable}={processes.count}. {remedy}"
        )
    runs_again = type(trainer.strategy.launcher).__name__ == "_SubprocessScriptLauncher"
    if processes is None and nodes * devices > 1 and runs_again and in_multirun():
        launcher = HydraConfig.get().runtime.choices.get("hydra/launcher")
        raise ConfigError(
            f"a job on {nodes * devices} devices needs a launcher that makes it a plain run, got hydra/launcher="
            f"{launcher}, where each rank would run the sweep again. Use hydra/launcher=process."
        )


def restarted_from(folder: Path) -> str | None:
    """``"last"`` where SLURM has requeued a job that left a checkpoint in its folder, else None."""
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return "last" if requeued and (folder / "checkpoints" / "last.ckpt").is_file() else None


def explain_submitit(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code for an error of submitit, which prints logs; None if it is somebody else's."""
    if "submitit" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    log = re.search(r"with path (\S+)/", lines[0])
    return (ours or lines)[-1] + (f" (log in {log[1]})" if log else ""), 1 if log else 2
