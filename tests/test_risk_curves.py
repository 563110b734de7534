"""Risk-coverage curves: sampled at coverages that all jobs share, written to result.json, averaged over seeds."""

import json
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from job_folders import measured, write_job
from scipy import stats
from scipy.special import softmax

from ls_lightning.functional.levels import exact_levels, sample_keys
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.risk import sampled_curve
from ls_lightning.functional.sketch import read_sketch, sketch
from ls_lightning.plots.figure import FAINT
from ls_lightning.report.looks import LOOKS
from ls_lightning.report.risk import risk_by_eps
from ls_lightning.sweep.curves import mean_risk
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.groups import group_jobs
from ls_lightning.sweep.jobs import read_job
from ls_lightning.sweep.results import write_result


def by_sorting(logits, target, points):
    """In float64, one sample after the other; no two confidences tie."""
    probabilities = softmax(logits.double().numpy(), axis=1)
    order = np.argsort(-probabilities.max(1))
    wrong = (probabilities.argmax(1) != target.numpy())[order]
    kept = [max(1, math.ceil(len(wrong) * k / points - 1e-9)) for k in range(1, points + 1)]
    return np.array([wrong[:count].mean() for count in kept])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(2, 6), st.integers(1, 120), st.integers(0, 2**31))
def test_the_sampled_curve_against_sorting(n, classes, points, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (n,), generator=generator)
    wanted = by_sorting(logits, target, points)
    exact = sampled_curve(exact_levels(sample_keys(logits, target, Ranking())), points)
    np.testing.assert_allclose(exact.coverage, np.arange(1, points + 1) / points, rtol=1e-15)
    np.testing.assert_allclose(exact.risk, wanted, atol=1e-12)
    sketched = sampled_curve(read_sketch(sketch(logits, target, Ranking())), points)
    assert (sketched.lower.numpy() <= wanted + 1e-12).all()
    assert (sketched.upper.numpy() >= wanted - 1e-12).all()
    assert sketched.risk[-1].item() == pytest.approx(wanted[-1], abs=1e-12)


def test_no_samples_have_no_curve():
    levels = read_sketch(sketch(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), Ranking()))
    with pytest.raises(ValueError, match="needs samples, got none"):
        sampled_curve(levels)


def groups_of(root):
    return group_jobs(read_job(folder) for folder in find_jobs([root]))[0]


def write_curve(folder, seed, risk, coverage=None, **keys):
    coverage = coverage or [(k + 1) / len(risk) for k in range(len(risk))]
    columns = {"coverage": coverage, "risk": risk, "lower": risk, "upper": risk}
    write_job(folder, 0.1, seed, val=measured(0.5), test=measured(0.5), risk_coverage={"test": columns}, **keys)


def test_the_mean_over_seeds_with_its_interval(tmp_path):
    risks = ([0.0, 0.1, 0.2], [0.1, 0.1, 0.4], [0.05, 0.4, 0.3])
    for seed, risk in enumerate(risks):
        write_curve(tmp_path / str(seed), seed, risk)
    ((group,),) = [groups_of(tmp_path)]
    found = mean_risk(group, "test")
    assert (found.coverage, found.n) == ([1 / 3, 2 / 3, 1], 3)
    for k, values in enumerate(zip(*risks, strict=True)):
        low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
        assert (found.risk[k] - found.half[k], found.risk[k] + found.half[k]) == pytest.approx((low, high))
    assert mean_risk(group, "val") is None
    assert mean_risk(group, "test", scaled=True) is None


def test_results_of_other_versions_stay_readable(tmp_path):
    write_curve(tmp_path / "new", 0, [0.0, 0.2])
    write_curve(tmp_path / "other_grid", 1, [0.0, 0.1, 0.2])
    write_curve(tmp_path / "hole", 2, [None, 0.2])
    write_curve(tmp_path / "uneven", 3, [0.0, 0.1], coverage=[1.0])
    path = write_job(tmp_path / "old", 0.1, 4, val=measured(0.5), test=measured(0.5)) / "result.json"
    old = json.loads(path.read_text())
    del old["risk_coverage"]
    path.write_text(json.dumps(old))
    (group,) = groups_of(tmp_path)
    assert len(group.jobs) == 5
    curves = {job.folder.name: job.risk_coverage() for job in group.jobs}
    assert curves["old"] is None
    assert curves["uneven"] is None
    assert math.isnan(curves["hole"]["risk"][0])
    assert curves["new"]["risk"] == [0.0, 0.2]
    found = mean_risk(group, "test")
    assert (found.risk, found.n) == ([0.0, 0.2], 1)
    assert all(map(math.isnan, found.half))


def test_lists_of_numbers_are_on_one_line(tmp_path):
    result = {"name": "[\n 1 ]", "risk": [0.1, math.nan, 3.0], "empty": [], "nested": [[1, 2], {"a": [3]}]}
    text = write_result(tmp_path, result).read_text()
    assert '"risk": [0.1, null, 3.0]' in text
    assert json.loads(text) == {"schema": 1, **result, "risk": [0.1, None, 3.0]}


def test_the_figure_has_a_panel_for_each_eps(tmp_path):
    number = 0
    for eps, schedule in ((0, "constant"), (0.1, "constant"), (0.1, "linear"), (0.2, "linear")):
        for seed in range(2):
            number += 1
            values = {**measured(0.5 + eps), "aurc": 0.02 + eps / 10}
            write_job(tmp_path / str(number), eps, seed, schedule=schedule, val=values, test=values, scaled=values)
    groups = groups_of(tmp_path)
    figure = risk_by_eps(groups, groups[1], "test")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left").strip() for axes in panels]
    assert titles == ["eps 0.1", "eps 0.2"]
    assert [len(axes.lines) for axes in panels] == [6, 4]  # plain, constant, linear and plain, linear; each scaled, too
    assert panels[0].texts[0].get_text() == "lowest AURC: plain training, 2.00 %"
    plain = next(line for line in panels[0].lines if line.get_color() == FAINT)
    np.testing.assert_allclose(plain.get_ydata(), [100 * 0.1 * (k / 100) ** 3 for k in range(1, 101)], rtol=1e-9)
    colours = {line.get_color() for line in panels[0].lines}
    assert {LOOKS[0][0], LOOKS[1][0]} < colours
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(words) == ["after temperature scaling", "constant", "linear decay", "plain training"]


def test_of_very_many_eps_some_are_drawn_the_recommended_one_among_them(tmp_path):
    grid = [round(0.01 * k, 2) for k in range(1, 41)]
    for eps in grid:
        write_job(tmp_path / str(eps), eps, val=measured(0.5), test=measured(0.5))
    groups = groups_of(tmp_path)
    chosen = next(group for group in groups if group.eps == 0.17)
    figure = risk_by_eps(groups, chosen, "test")
    titles = [axes.get_title(loc="left").strip() for axes in figure.axes if axes.get_visible()]
    assert len(titles) == 6
    assert {"eps 0.01", "eps 0.17", "eps 0.4"} <= set(titles)


def test_without_curves_there_is_no_figure(tmp_path):
    write_job(tmp_path, 0.1, val=measured(0.5), test=measured(0.5), risk_coverage={})
    (group,) = groups_of(tmp_path)
    assert risk_by_eps([group], group, "test") is None
