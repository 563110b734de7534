"""What the jobs of a machine share: GPUs, cores, ports, and the variables that say which rank of what one is."""

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.ls_process_launcher._errors import LauncherError

# What torchrun, Lightning, SLURM and MPI tell a rank; a job of a sweep is a plain run.
_RANK = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE"}
_RANK |= {"ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "JSM_NAMESPACE_RANK"}
_RANK |= {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "PL_TRAINER_GPUS", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID"}
_RANK |= {"SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_JOB_NAME"}
_PREFIXES = ("TORCHELASTIC_", "SLURM_STEP_", "OMPI_COMM_WORLD_", "PMI_", "PMIX_")
_PORTS = range(20000, 32000)  # below those that the system hands out by itself


def refuse_ranks(environ: Mapping[str, str]) -> None:
    """``LauncherError`` where several copies of this program were started: each would run the whole sweep."""
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if _number(environ.get(name, "1")) > 1:
            raise LauncherError(
                f"a sweep must be started once, got {name}={environ[name]}: each rank would run all of it. Start it "
                "without torchrun, srun or mpirun; each job starts its own ranks (trainer=ddp)."
            )
    if _number(environ.get("RANK", "0")) > 0 or _number(environ.get("LOCAL_RANK", "0")) > 0:
        raise LauncherError("a sweep must be started once, got a RANK above 0. Start it without torchrun or srun.")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def gpu_slices(n_jobs: int, devices_per_job: int | None, environ: Mapping[str, str]) -> list[str | None]:
    """``CUDA_VISIBLE_DEVICES`` of each of the jobs side by side; None leaves it as it is.

    Raises:
        LauncherError: there are fewer GPUs.

    Example:
        >>> gpu_slices(2, 2, {"CUDA_VISIBLE_DEVICES": "0,1,4,5"})
        ['0,1', '4,5']
    """
    if devices_per_job is None:
        return [None] * n_jobs
    visible = visible_gpus(environ)
    if len(visible) < n_jobs * devices_per_job:
        raise LauncherError(
            f"hydra.launcher.n_jobs={n_jobs} with devices_per_job={devices_per_job} needs {n_jobs * devices_per_job} "
            f"GPUs, got {len(visible)}. Lower one of them; devices_per_job=null lets jobs share devices."
        )
    starts = range(0, n_jobs * devices_per_job, devices_per_job)
    return [",".join(visible[start : start + devices_per_job]) for start in starts]


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        return names[: next((k for k, name in enumerate(names) if name in ("", "-1")), len(names))]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listed = subprocess.run([command, "-L"], capture_output=True, text=True).stdout
    return [str(k) for k in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def free_port(taken: set[int]) -> int:
    """A port that no process listens on, and none of ``taken``."""
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            if port not in taken:
                return port
    raise LauncherError(f"no free port among {_PORTS.start} to {_PORTS.stop}. End other programs that listen there.")


def job_environment(
    environ: Mapping[str, str], cfg: DictConfig, n_jobs: int, devices: str | None, port: int
) -> dict[str, str]:
    """The environment of one job: a plain run with its own devices, its own port, and its share of the cores."""
    env = {k: v for k, v in environ.items() if k not in _RANK and not k.startswith(_PREFIXES)}
    env["MASTER_PORT"] = str(port)
    env.setdefault("PYTHONUNBUFFERED", "1")  # or a killed job takes the last lines of its log with it
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = devices
    if n_jobs > 1:  # alone, a job has the threads that it has without the launcher
        env.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // (n_jobs * _ranks(cfg)))))
    return env


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ranks(cfg: DictConfig) -> int:
    """Lightning's ``trainer.devices``, which divides threads among its ranks only if nobody else has."""
    devices: Any = OmegaConf.select(cfg, "trainer.devices", throw_on_missing=False)
    return devices if isinstance(devices, int) and devices > 0 else 1
