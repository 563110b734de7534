"""SLURM on one machine: sbatch, srun, sacct and scontrol as small programs, put on PATH by ``install``.

sbatch runs the script that it is given, once for each task of an array, with the variables that SLURM sets; srun starts
the tasks, each as if on the node that it would be on; a job for which ``scontrol requeue`` was called runs again.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = "FAKE_SLURM"  # a folder: job scripts, what was called


def install(folder):
    """The environment in which the four programs are found."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {name} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", STATE: str(folder)}


def options(script):
    """What stands behind ``#SBATCH --``."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", Path(script).read_text(), re.M)
    return {name: value.strip("'\"") for name, value in found}


def sbatch(script):
    job = 1000 + len(list(Path(os.environ[STATE]).glob("*.sh")))
    Path(os.environ[STATE], f"{job}.sh").write_text(Path(script).read_text())
    print(f"Submitted batch job {job}", flush=True)
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)  # or submitit waits for its end
    subprocess.Popen([sys.executable, "-IS", __file__, "run", script, str(job)], **nowhere)


def run(script, job):
    """The controller: one job of the array after the other."""
    said = options(script)
    first, last = re.match(r"(\d+)-(\d+)", said.get("array", "0-0")).groups()
    nodes, per_node = int(said["nodes"]), int(said["ntasks-per-node"])
    for task in range(int(first), int(last) + 1):
        number = int(job) + task if "array" in said else int(job)
        env = {
            **os.environ, "SLURM_JOB_ID": str(number), "SLURM_JOB_NAME": said["job-name"],
            "SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": str(nodes),
            "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NTASKS": str(nodes * per_node),
            "SLURM_NTASKS_PER_NODE": str(per_node),
        }  # fmt: skip
        if "array" in said:
            env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
        for restart in range(10):
            requeued = requeue_file(env)
            requeued.unlink(missing_ok=True)
            # A port for each: several tests may run on this machine.
            port = {"MASTER_PORT": str(12000 + (os.getpid() * 10 + number) % 8000)}
            if restart:
                port["SLURM_RESTART_COUNT"] = str(restart)
            done = subprocess.run(["bash", script], env={**env, **port})
            if not requeued.exists():
                Path(os.environ[STATE], f"exit-{task}").write_text(str(done.returncode))
                break


def requeue_file(env=os.environ):
    """There while the job is to be run again; submitit names a task of an array by the array."""
    array = env.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]
    return Path(os.environ[STATE], f"requeue-{job}")


def srun(*words):
    flags = dict(re.findall(r"--(output|error) (\S+)", " ".join(words)))
    command = words[words.index(sys.executable) :]
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        files = [_filled(flags[name], rank) for name in ("output", "error")]
        for path in files:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        env = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node), "SLURM_NODEID": str(rank // per_node)}
        env["SLURM_STEP_NUM_TASKS"] = os.environ["SLURM_NTASKS"]
        with open(files[0], "a") as out, open(files[1], "a") as err:
            tasks.append(subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=err))
        Path(os.environ[STATE], f"pid-{rank}").write_text(str(tasks[-1].pid))
    sys.exit(wait(tasks))


def _filled(pattern, rank):
    """SLURM's names of files."""
    for sign, name in (("%j", "SLURM_JOB_ID"), ("%A", "SLURM_ARRAY_JOB_ID"), ("%a", "SLURM_ARRAY_TASK_ID")):
        pattern = pattern.replace(sign, os.environ.get(name, ""))
    return pattern.replace("%t", str(rank))


def wait(tasks):
    """Until all have ended. Where one fails or the job is requeued: SIGTERM to all, SIGKILL some seconds later."""
    killed = None
    while any(task.poll() is None for task in tasks):
        time.sleep(0.05)
        failed = os.environ.get("SLURM_KILL_BAD_EXIT") == "1" and any(task.poll() for task in tasks)
        if killed is None and (failed or requeue_file().exists()):
            killed = time.monotonic()
            for task in tasks:
                task.send_signal(signal.SIGTERM)
        if killed is not None and time.monotonic() > killed + 5:
            for task in tasks:
                task.kill()
    return max(abs(task.returncode) for task in tasks)


def sacct(*_words):
    print("JobID|State|NodeList")


def scontrol(command, job):
    Path(os.environ[STATE], f"{command}-{job}").touch()


if __name__ == "__main__":
    programs = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scontrol": scontrol, "run": run}
    programs[sys.argv[1]](*sys.argv[2:])
