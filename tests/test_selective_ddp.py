"""Several ranks, as real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
SCRIPT = Path(__file__).parent / "selective_ranks.py"


def run(folder, ranks):
    """What each rank found; ranks differ in their threads, which must not show either."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(rank), str(ranks)],
            env={**os.environ, "OMP_NUM_THREADS": str(1 + rank % 2)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(errors)[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def test_the_same_bits_on_any_number_of_ranks(tmp_path_factory):
    """Also on a rank without a sample."""
    (alone,) = run(tmp_path_factory.mktemp("one"), 1)
    assert len(alone) == 2 * 2 * 7
    for found in alone.values():
        assert found[0] == found[1]
        assert found[0][-1] == 60_000
    for ranks in (2, 3):
        for found in run(tmp_path_factory.mktemp(f"ranks_{ranks}"), ranks):
            assert found == alone
