"""The benchmark for a GPU on a machine without one: it ends with a line, and all but the device's own is tried here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would run")
def test_without_a_gpu_it_says_so_and_writes_nothing():
    page = BENCHMARKS / "RESULTS.md"
    before = page.read_bytes()
    done = subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "benchmarks/gpu.py needs a GPU, and torch sees none: nothing was written.\n"
    assert page.read_bytes() == before


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setenv("LS_LIGHTNING_TRITON", "0")  # put back afterwards
        import gpu

        yield gpu.report(torch.device("cpu"), {2: 64, 10: 32}, [torch.float32, torch.bfloat16], trash=8)


def test_every_way_has_a_row_and_every_size_a_column(report):
    heads = re.findall(r"^\| (\w+): (.*) \| 64x2 \| 32x10 \|$", report, re.MULTILINE)
    assert len(heads) == len(set(heads)) == 6
    assert {dtype for dtype, _ in heads} == {"float32", "bfloat16"}
    for row in "`F.cross_entropy`", "`smoothed_cross_entropy`, torch's operations":
        cells = re.findall(rf"^\| {re.escape(row)} \| (.+) \| (.+) \|$", report, re.MULTILINE)
        assert len(cells) == 6


def test_no_check_fails(report):
    found = re.findall(r"^\* (.+?): (.+)$", report, re.MULTILINE)
    assert len(found) == 5
    assert not [line for line in found if "FAILED" in line[1]]


def test_a_check_that_fails_says_so(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("LS_LIGHTNING_TRITON", "0")
    import gpu_checks

    monkeypatch.setattr(gpu_checks, "smoothed_cross_entropy", lambda logits, target, eps: logits.sum())
    monkeypatch.setattr(gpu_checks, "built", iter(range(100)).__next__)
    found = gpu_checks.checks(torch.device("cpu"))
    assert found["float16 with a gradient scaler"].startswith("FAILED, AssertionError: Tensor-likes are not close")
    assert found["a schedule of eps"].startswith("FAILED, AssertionError: 1 kernels more")
