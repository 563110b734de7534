import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_metrics_robust import METRICS
from torch.testing import assert_close

from ls_lightning.metrics import ClasswiseCalibrationError, SmoothCalibrationError, full_metrics

SCRIPT = Path(__file__).with_name("metrics_ddp.py")


@pytest.mark.slow
@pytest.mark.ddp
def test_one_two_and_three_ranks_give_the_same_bits(tmp_path):
    """Of several ranks the last has no data, and takes part all the same."""
    for ranks in (1, 2, 3):
        command = [sys.executable, SCRIPT, tmp_path]
        started = [subprocess.Popen([*command, str(rank), str(ranks)]) for rank in range(ranks)]
        assert [process.wait(timeout=300) for process in started] == [0] * ranks
    alone = torch.load(tmp_path / "1-0.pt")
    assert sorted(alone) == sorted(cls.__name__ for cls in METRICS)
    for file in ("2-0.pt", "2-1.pt", "3-0.pt", "3-1.pt", "3-2.pt"):
        for name, value in torch.load(tmp_path / file).items():
            assert_close(value, alone[name], rtol=0, atol=0, msg=lambda text, n=name, f=file: f"{n} in {f}: {text}")


@pytest.mark.slow
def test_thirty_million_samples():
    """Against bins in float64; sums in float32 are off by more than .01 here."""
    options = {"task": "binary", "input": "probs"}
    binned = full_metrics(confidence="positive", **options)
    smooth, classwise = SmoothCalibrationError(confidence="positive", **options), ClasswiseCalibrationError(**options)
    sums, square = np.zeros((2, 15)), 0.0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        p = generator.random(10**6)
        y = generator.random(10**6) < p**1.1
        place = np.maximum(np.ceil(p * 15).astype(int) - 1, 0)
        sums += [np.bincount(place, values, 15) for values in (p, y)]
        square += ((p - y) ** 2).sum()
        batch = torch.from_numpy(p), torch.from_numpy(y)
        for metric in (binned, smooth, classwise):
            metric.update(*batch)
    n, (p_sum, hits) = 30 * 10**6, sums
    found = {name: value.item() for name, value in binned.compute().items()}
    error = abs(p_sum - hits).sum() / n
    assert binned["ece"].num_samples == n
    assert found["ece"] == pytest.approx(error, abs=1e-9)
    assert found["gap"] == pytest.approx((p_sum - hits).sum() / n, abs=1e-9)
    assert found["brier"] == pytest.approx(square / n, abs=1e-9)
    assert classwise.compute().item() == pytest.approx(error, abs=1e-9)
    # All residuals are of one sign on average, E[p - p**1.1] = 1/2 - 1/2.1, and smoothing keeps their integral.
    assert smooth.compute().item() == pytest.approx((p_sum - hits).sum() / n, abs=1e-4)
    assert found["gap"] == pytest.approx(1 / 2 - 1 / 2.1, abs=3e-4)
