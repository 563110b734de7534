"""Ranks that were given different settings stop before they train; real processes. More of it in test_guard.py."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import lightning as L
import ls_lightning as ls
from nets import Data, Net, trainer
from ls_lightning.callbacks.agreement import RanksAgree

rank = int(os.environ.get("LOCAL_RANK", 0))
t = trainer(".", ls.LabelSmoothing(), RanksAgree({{"seed": rank}}), devices=2, strategy="ddp")
t.fit(Net(), datamodule=Data())
print("trained")
"""


def run(tmp_path, **env):
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=os.path.dirname(__file__)))
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.ddp
def test_a_difference_ends_the_job(tmp_path):
    done = run(tmp_path)
    assert done.returncode != 0
    assert "RuntimeError: ranks disagree: seed=0 on rank 0, seed=1 on rank 1." in done.stderr
    assert "trained" not in done.stdout


@pytest.mark.slow
def test_a_process_too_few(tmp_path):
    """``sbatch --ntasks=1`` with devices=2: Lightning alone trains on half of the data, exit code 0."""
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    done = run(tmp_path, **slurm)
    assert done.returncode != 0
    assert "num_nodes * devices must be the number of processes, got 1 * 2 and 1" in done.stderr
