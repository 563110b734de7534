"""The benchmark of regimes: its figures are those of the command line, its intervals scipy's."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import result, run
from PIL import Image
from scipy import stats

from ls_lightning.losses import LOSSES
from ls_lightning.schedules import SCHEDULES
from ls_lightning.zoo.data_npz import NpzData

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import image_subsets  # noqa: E402
import regimes  # noqa: E402
from regime_table import paired, table  # noqa: E402

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
REGIMES = {"clean labels": "clean", "overconfident": "overconfident", "40 % wrong labels": "noisy"}


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_intervals_are_those_of_scipy(n):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    difference, half = paired(a.tolist(), b.tolist())
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (difference - half, difference + half) == pytest.approx((low, high), abs=1e-9)


def made_up(acc, ece):
    found = {"acc": acc, "ece": ece, "gap": -ece, "aurc": 0.001, "nll": 0.5}
    return {"plain": found, "scaled": {**found, "ece": ece / 2}}


def test_a_table_has_the_means_and_marks_what_leaves_0_out():
    rows = {
        "loss=none": [made_up(0.9, 0.02), made_up(0.92, 0.03)],
        "loss=ce": [made_up(0.91, 0.1), made_up(0.93, 0.11)],
    }
    lines = table(rows, "loss=none").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| `loss=none` | 91.0 | 2.5 | 1.2 | -2.5 | 1.00 | 0.500 |")
    assert "2.5 (" not in lines[3]
    assert lines[3].startswith("| `loss=none`, with T | 91.0 (+0.0 ± 0.0) | 1.2 (")
    assert lines[4].startswith("| `loss=ce` | 92.0 (**+1.0 ± 0.0**) | 10.5 (**+8.0 ± 0.0**) |")


def test_every_loss_and_schedule_is_compared():
    settings = " ".join(row for regime in regimes.DIGITS.values() for row in (regime.plain, *regime.methods))
    assert set(re.findall(r"(?:^| )loss=(\w+)", settings)) == set(LOSSES)
    assert set(re.findall(r"schedule=(\w+)", settings)) | {"constant"} == set(SCHEDULES)


@pytest.mark.slow
def test_figures_are_those_of_the_command_line_and_a_second_run_trains_nothing(tmp_path):
    script = [sys.executable, str(ROOT / "benchmarks" / "regimes.py"), "only=binary", "methods=eps=0.2", "seeds=1"]
    pages = []
    for out in ("one.md", "two.md"):
        command = [*script, "cache=kept/runs.jsonl", f"out={out}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        pages.append((tmp_path / out).read_text())
        assert ("accuracy" in done.stderr) is (out == "one.md")
    assert pages[0] == pages[1]
    kept = {run["settings"]: run for run in map(json.loads, (tmp_path / "kept/runs.jsonl").read_text().splitlines())}
    for settings, one in kept.items():
        code, _, err = run(tmp_path, *settings.split(), "trainer=cpu", "seed=0", "hydra.run.dir=job")
        assert code == 0, err
        found = result(tmp_path / "job")
        assert found["metrics"]["test"] == one["plain"]
        assert found["temperature"]["metrics"]["test"] == one["scaled"]
        shutil.rmtree(tmp_path / "job")


def test_subsets_keep_the_official_index(tmp_path, monkeypatch):
    """An image's grey value is its index, which a file of labels for the whole data set is read by."""
    monkeypatch.setattr(image_subsets, "TRAIN", 40)
    monkeypatch.setattr(image_subsets, "TEST", 10)
    for split, count in (("train", 200), ("test", 20)):
        for index in range(count):
            folder = tmp_path / "cifar10" / split / "abcdefghij"[index % 10]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (index,) * 3).save(folder / f"{index:05d}.jpg", quality=100)
    labels = np.random.default_rng(0).integers(0, 10, 200)
    np.savez(tmp_path / "cifar10n.npz", worse_label=labels)
    file = image_subsets.cifar10_subset(tmp_path, tmp_path / "kept")
    data = NpzData(str(file), noisy_labels=str(tmp_path / "cifar10n.npz"))
    data.setup("fit")
    at = data.train_set.x[:, 0, 0, 0].long()
    assert torch.equal(data.train_labels, torch.from_numpy(labels)[at])
    assert torch.equal(data.train_labels_clean, at % 10)
    assert data.train_labels_clean.bincount().tolist() == data.train_labels_clean.bincount().clamp(3, 4).tolist()
    assert data.input_shape == (3, 16, 16)


# What the cards say is what the page says


def page_rows(regime):
    """Settings and the means of their row."""
    section = PAGE.split(f"\n### {regime}\n")[1].split("\n### ")[0]
    lines = [re.split(r" \| ?", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): [float(cell.split()[0]) for cell in cells[1:]] for cells in lines}


CARDS = {row.split()[0].removeprefix("loss="): row for row in regimes.LOSSES} | {"ce": "loss=ce eps=0.1"}


@pytest.mark.parametrize("loss", CARDS)
def test_the_card_of_a_loss_has_the_figures_of_the_page(loss):
    card = LOSSES[loss].__doc__
    for name, regime in REGIMES.items():
        rows = page_rows(regime)
        found = re.search(rf"^ *{name} +(.*)$", card, re.M)
        figures = [float(figure) for figure in re.findall(r"[\d.]+", found[1])]
        plain, mine = ([row[at] for at in (0, 1, 4)] for row in (rows["loss=none"], rows[CARDS[loss]]))
        expected = [figure for pair in zip(plain, mine, strict=True) for figure in pair]
        assert figures == pytest.approx(expected, abs=0.0501)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "two_stage", "step", "warmup", "coslog", "sequence"])
def test_the_line_of_a_schedule_has_the_figures_of_the_page(name):
    card = " ".join(SCHEDULES[name].__doc__.split())
    for label, regime in REGIMES.items():
        rows = page_rows(regime)
        mine = rows["loss=ce eps=0.1" + ("" if name == "constant" else f" schedule={name}")]
        plain = rows["loss=none"]
        assert f"{label} {plain[0]} -> {mine[0]}, {plain[1]} -> {mine[1]}" in card


def test_the_table_of_the_readme_has_the_figures_of_the_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {
        "`loss=none`": "loss=none",
        "the same, divided by T": "loss=none`, with T",
        "`eps=0.1`": "loss=ce eps=0.1",
        "`eps=0.2`": "loss=ce eps=0.2",
        "`eps=0.1 schedule=linear`": "loss=ce eps=0.1 schedule=linear",
        "`schedule=feedback`": "loss=ce schedule=feedback",
    }
    for label, settings in shown.items():
        cells = [page_rows(regime)[settings][:2] for regime in REGIMES.values()]
        assert f"| {label} | {' | '.join(f'{acc} / {ece}' for acc, ece in cells)} |" in readme
