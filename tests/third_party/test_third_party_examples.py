"""The examples that need other packages run as they say, and smoothing makes them less confident."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.third_party, pytest.mark.slow]


def gaps(script, folder):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} <= {".pt_tmp"}  # which is not ours
    rows = re.findall(r"^.*? *accuracy (\S+)%   ECE (\S+)%   gap (\S+)%$", done.stdout, re.M)
    assert min(float(accuracy) for accuracy, _, _ in rows) > 80
    return [float(gap) for _, _, gap in rows]


def test_third_party_torchgeo(tmp_path):
    pytest.importorskip("torchgeo.trainers")
    hard, smoothed = gaps("third_party_torchgeo.py", tmp_path)
    assert smoothed < hard - 2


def test_third_party_pytorch_tabular(tmp_path):
    pytest.importorskip("pytorch_tabular")
    hard, smoothed = gaps("third_party_pytorch_tabular.py", tmp_path)
    assert smoothed < hard - 2
