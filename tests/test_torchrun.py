"""Ranks started by torchrun or by hand, on two "nodes" of this machine; real processes."""

import os
import re
import subprocess
import sys

import pytest
from cli import result, run

from hydra_plugins.ls_process_launcher._machine import free_port

pytestmark = [pytest.mark.slow, pytest.mark.ddp]

TINY = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.pictures"]
TINY += ["model=linear", "trainer=ddp_cpu"]
NODES = ["trainer.num_nodes=2", "trainer.devices=1"]
ENV = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"} | {"OMP_NUM_THREADS": "1"}
TRAIN = ["-m", "ls_lightning.train"]


def start(folder, command, env=None):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**ENV, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(*processes):
    """(exit code, what it wrote) of each."""
    written = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, out + err) for process, (out, err) in zip(processes, written, strict=True)]


def torchrun(folder, *overrides, nodes=1, per_node=1):
    """Start torchrun on each of the nodes."""
    where = f"--master_addr=127.0.0.1 --master_port={free_port(set())} --nnodes={nodes} --nproc_per_node={per_node}"
    command = ["-m", "torch.distributed.run", *where.split()]
    return [start(folder, [*command, f"--node_rank={node}", *TRAIN, *overrides]) for node in range(nodes)]


def by_hand(folder, *overrides, own=((), ())):
    """One process a node, told its place by variables, with overrides of its own."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port(set())), "WORLD_SIZE": "2"}
    return [start(folder, [*TRAIN, *overrides, *own[node]], {**place, "NODE_RANK": str(node)}) for node in range(2)]


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    """The same job on one node, its ranks started by Lightning."""
    folder = tmp_path_factory.mktemp("one_node")
    code, _, err = run(folder, *TINY, "eps=0.1", "hydra.run.dir=job", env={"OMP_NUM_THREADS": "1"})
    assert code == 0, err
    return result(folder / "job")


@pytest.mark.parametrize("launch", [lambda *job: torchrun(*job, nodes=2), by_hand], ids=["torchrun", "by_hand"])
def test_two_nodes_are_as_one(tmp_path, one_node, launch):
    for code, text in end(*launch(tmp_path, *TINY, *NODES, "eps=0.1", "hydra.run.dir=job")):
        assert code == 0, text
    assert [path.name for path in tmp_path.iterdir()] == ["job"]
    found = result(tmp_path / "job")
    assert found["devices"] == 2
    for key in ("metrics", "reliability", "steps"):
        assert found[key] == one_node[key]


@pytest.mark.parametrize("launch", [lambda *job: torchrun(*job, nodes=2), by_hand], ids=["torchrun", "by_hand"])
def test_a_folder_by_two_clocks_is_refused(tmp_path, launch):
    for code, text in end(*launch(tmp_path, *TINY, *NODES, "eps=0.1")):
        assert code != 0
        assert "error: hydra.run.dir is needed where ranks are started by torchrun, srun or on several" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("launcher", ["process", "basic"])
def test_a_sweep_is_refused(tmp_path, launcher):
    overrides = ["-m", "eps=0,0.1", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    ((code, text),) = end(*torchrun(tmp_path, *overrides, *TINY, per_node=2))
    assert code != 0
    assert "error: a sweep must be started once, got" in text
    assert not list(tmp_path.glob("sweep/*/*"))


@pytest.mark.parametrize("trainer", [["trainer=ddp_cpu", "trainer.devices=3"], ["trainer=cpu"]], ids=["few", "many"])
def test_another_number_of_processes_is_refused(tmp_path, trainer):
    ((code, text),) = end(*torchrun(tmp_path, *TINY, *trainer, "hydra.run.dir=job", per_node=2))
    devices = 3 if trainer[1:] else 1
    assert code != 0
    assert f"must be the number of processes, got 1 * {devices} and WORLD_SIZE=2. Give torchrun --nnodes=1" in text
    assert not list(tmp_path.iterdir())


def test_slurm_with_a_task_too_few(tmp_path):
    """``sbatch --ntasks=1`` with devices=2: Lightning alone trains on half of the data, exit code 0."""
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    code, _, err = run(tmp_path, *TINY, "hydra.run.dir=job", env=slurm)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: num_nodes * devices must be the number of processes, got 1 * 2 and SLURM_NTASKS=1.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "values"),
    [("eps", ("0.1", "0.2")), ("seed", ("0", "1")), ("data.batch_size", ("32", "64"))],
)
def test_nodes_that_were_told_otherwise_are_refused(tmp_path, key, values):
    own = [[f"{key}={value}"] for value in values]
    shared = [*TINY, *NODES, *(["eps=0.1"] if key != "eps" else []), "hydra.run.dir=job"]
    for code, text in end(*by_hand(tmp_path, *shared, own=own)):
        assert code != 0
        named = re.search(r"error: ranks disagree: (.*) on rank 0, (.*) on rank 1\.", text)
        assert named, text
        assert named.groups() == tuple(f"{key}={value}" for value in values)
    assert not list(tmp_path.iterdir())
