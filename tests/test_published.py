"""The published comparisons: what is said follows from the runs, and the page keeps its other sections."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import published  # noqa: E402


def made_up(acc, ece, scaled):
    found = {"acc": acc, "ece": ece, "gap": ece, "aurc": 0.01, "nll": 0.5}
    return {"plain": found, "scaled": {**found, "ece": scaled}}


@pytest.mark.parametrize(
    ("acc", "said"),
    [
        ([0.81, 0.83], "accuracy 79.0 -> 82.0 % (+3.0 ± 0.0): as published."),
        ([0.75, 0.77], "accuracy 79.0 -> 76.0 % (-3.0 ± 0.0): the opposite of what is published."),
        ([0.82, 0.78], "accuracy 79.0 -> 80.0 % (+1.0 ± 38.1): no difference that 95 % would carry."),
    ],
)
def test_a_gain_in_accuracy_is_one_where_the_interval_leaves_0_out(acc, said):
    runs = {"plain": [made_up(0.78, 0.2, 0.1), made_up(0.8, 0.2, 0.1)], "mine": [made_up(one, 0.2, 0.1) for one in acc]}
    assert published.of_accuracy(runs, "plain") == [f"- `mine`: {said}"]


@pytest.mark.parametrize(
    ("ece", "verdict"),
    [
        ([0.05, 0.09], "both lower it, alike"),
        ([0.03, 0.05], "both lower it, smoothing lowers it further"),
        ([0.12, 0.14], "both lower it, the temperature lowers it further"),
        ([0.25, 0.27], "that both lower it, 95 % would not carry"),
    ],
)
def test_smoothing_is_compared_with_the_temperature_of_the_plain_network(ece, verdict):
    runs = {
        "plain": [made_up(0.8, 0.2, 0.06), made_up(0.8, 0.22, 0.08)],
        "mine": [made_up(0.8, one, 0.05) for one in ece],
    }
    (line,) = published.of_calibration(runs, "plain")
    assert "a temperature of the plain network 7.0 % (-14.0 ± 0.0)" in line
    assert line.endswith(f": {verdict}.")


def test_the_section_is_written_from_runs_that_are_kept(tmp_path, capsys):
    lines = []
    for regime in published.DIGITS.values():
        for row in (regime.plain, *regime.methods):
            for seed in range(2):
                run = made_up(0.7 + 0.01 * seed, 0.1, 0.05)
                noise = {"train": 0.2} if "label_noise" in regime.settings else None
                kept = {"settings": f"{regime.settings} {row}", "seed": seed, "seconds": 3, "noise": noise}
                lines.append(json.dumps({**kept, **run}))
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    (tmp_path / "page.md").write_text("# Results\n\n## Others\n\nStay.\n")
    options = {"cache": str(tmp_path / "runs.jsonl"), "page": str(tmp_path / "page.md"), "seeds": "2"}
    published.main(options)
    published.main(options)
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Results\n\n## Others\n\nStay.\n")
    assert page.count("## Published comparisons") == page.count("### Lukasik on digits") == 1
    assert "20 % of the training labels are wrong" in page
    assert "14 runs, 2 seeds" in page
    assert capsys.readouterr().err == ""  # nothing was trained
