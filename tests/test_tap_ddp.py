"""Several ranks, as real processes of a user's script."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
HERE = Path(__file__).parent


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, str(HERE / "ddp_script.py"), str(folder), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """For 1, 2 and 3 devices what each rank saw."""
    found = {}
    for devices in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"on_{devices}")
        run(folder, str(devices), "ddp" if devices > 1 else "auto")
        found[devices] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(devices)]
    return found


def test_measured_to_the_last_bit(ranks):
    (alone,) = ranks[1]
    for devices in (2, 3):
        for rank in ranks[devices]:
            assert rank["measured"] == alone["measured"]
    sizes = {
        name: int(float.fromhex(found["results"]["val"]["n"]))
        for name, found in alone["measured"].items()
        if name.endswith("validate") and "val" in found["results"]
    }
    assert sizes["plain_validate"] == sizes["shuffled_validate"] == 50
    assert sizes["fewer_than_ranks_validate"] == 2
    assert sizes["dense_validate"] == sizes["flat_validate"] < 26 * 6
    loaders = alone["measured"]["two_test"]["results"]
    assert [float.fromhex(values["n"]) for values in loaders.values()] == [20, 31]
    assert "test/ece/dataloader_idx_1" in alone["measured"]["two_test"]["logged"]


def test_trained_as_torch_smooths(ranks):
    for devices in (1, 2, 3):
        for rank in ranks[devices]:
            ours, theirs = rank["trained"]["ours"], rank["trained"]["torch"]
            for our, their in zip(ours[0], theirs[0], strict=True):
                np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
            assert len(ours[1]) == 2 * math.ceil(math.ceil(50 / devices) / 8)
    weights = [found["trained"]["ours"][0] for found in ranks[3]]
    assert weights[0] == weights[1] == weights[2]


def test_checkpoints_and_early_stopping_agree_on_all_ranks(ranks):
    for devices in (1, 2, 3):
        first = ranks[devices][0]["trained"]
        for rank in ranks[devices]:
            for key in ("stopped", "best", "best_path", "eps", "steps"):
                assert rank["trained"][key] == first[key]
            assert rank["trained"]["num_smoothed"] == 1
        assert first["stopped"] == 2
        assert first["best_path"] == "best.ckpt"
        batches = math.ceil(math.ceil(50 / devices) / 8)
        assert first["steps"] == 2 * batches
        assert first["eps"] == pytest.approx(0.3 * (1 - (2 * batches - 1) / (5 * batches)))


def test_a_sampler_that_nobody_knows(ranks):
    words, n = ranks[1][0]["warned"]
    assert (words, n) == ([], 50)
    for devices, repeated in ((2, 50), (3, 51)):
        words, n = ranks[devices][0]["warned"]
        assert len(words) == 1
        assert f"cannot tell which samples DistributedSamplerWrapper repeats on {devices} ranks" in words[0]
        assert n == repeated


def test_compiled_under_ddp(ranks):
    for rank in ranks[2]:
        (eager, measured), (compiled, compiled_measured) = rank["compiled"]
        for ours, theirs in zip(compiled, eager, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert compiled_measured["val"] == pytest.approx(measured["val"], abs=1e-6)


def test_spawned_processes(ranks, tmp_path):
    """The callbacks travel to them by pickle."""
    run(tmp_path, "2", "ddp_spawn")
    spawned = json.loads((tmp_path / "spawned.json").read_text())
    for ours, theirs in zip(spawned, ranks[2][0]["trained"]["ours"][0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
