import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_sync import NoSync
from test_selective import doubt, example, wrong
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from ls_lightning.functional import risk, waiting
from ls_lightning.functional.levels import errors_first, errors_last, exact_levels, sample_keys
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.risk import risk_coverage_points
from ls_lightning.functional.sketch import add_to_sketch, empty_sketch, num_sketched, read_sketch, sketch

MEASURES = {
    "aurc": risk.area,
    "eaurc": risk.excess_area,
    "augrc": risk.generalized_area,
    "risk_at": lambda levels: risk.risk_at(levels, 0.7),
    "coverage_at": lambda levels: risk.coverage_at(levels, 0.2),
}
RANKINGS = {
    "msp": Ranking(),
    "max_logit": Ranking(score="max_logit"),
    "pnorm": Ranking(score="pnorm", p=3.0),
    "binary": Ranking(Spec(task="binary")),
    "positive": Ranking(Spec(task="binary", confidence="positive")),
    "probs": Ranking(Spec(input="probs")),
}


def inputs(name, **kwargs):
    logits, target = example(**kwargs)
    if name in ("binary", "positive"):
        return logits[:, 0], (target == 0).long()
    return (logits.softmax(1) if name == "probs" else logits), target


# cells


def test_a_cell_is_the_top_16_bits_of_the_odds():
    logits, target = example(dtype=torch.float64)
    log_p = doubt(logits)
    odds = np.exp(log_p) / -np.expm1(log_p)
    cells = np.float32(odds).view(np.uint32) >> 16
    sums = sketch(logits, target, Ranking())
    assert sums.shape == (17_409, 3)
    assert sums.numel() * 8 < 0.42e6
    np.testing.assert_array_equal(sums[:-1, 0], np.bincount(cells, minlength=17_408))
    np.testing.assert_array_equal(sums[:-1, 1], np.bincount(cells, wrong(logits, target), minlength=17_408))
    p = np.bincount(cells, 1 / (1 + odds), minlength=17_408)
    np.testing.assert_allclose(sums[:-1, 2].double() / 2**32, p, rtol=0, atol=1e-8)
    assert sums[-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("name", "cells"), [("msp", 136), ("max_logit", 255), ("positive", 255)])
def test_the_last_cell_holds_all_that_is_less_sure(name, cells):
    ranking = RANKINGS[name]
    assert empty_sketch(ranking).shape == (128 * cells + 1, 3)
    z = torch.tensor([3e38, 1e4, 110, 87, 1, 0, -1, -6.2, -87, -110, -1e4, -3e38])
    logits = z if ranking.outputs.task == "binary" else torch.stack([z, torch.full_like(z, -torch.inf)], 1)
    target = torch.ones(12) if ranking.outputs.task == "binary" else torch.zeros(12, dtype=torch.long)
    sums = sketch(logits, target, ranking)
    assert num_sketched(sums) == 12
    if cells == 136:  # the only class left is sure
        assert sums[0].tolist() == [12, 0, 12 * 2**32]
    else:
        assert int((sums[:-1, 0] > 0).sum()) == 8
        assert sums[0, 0] == sums[-2, 0] == 3


def test_more_classes_than_the_odds_reach():
    logits = torch.zeros(3, 2000)
    logits[1, 0], logits[2, 0] = 1, 9
    levels = read_sketch(sketch(logits, torch.tensor([0, 1, 0]), Ranking()))
    assert levels.n.tolist() == [1, 2]
    assert levels.wrong.tolist() == [0, 1]
    exact = 1 / 2000 + math.e / (math.e + 1999)
    assert levels.p[1].item() == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("name", ["msp", "binary", "positive", "probs"])
def test_confidences_of_a_cell_lie_within_its_width(name):
    scores, target = inputs(name, n=3000, scale=4.0, dtype=torch.float64)
    exact = exact_levels(sample_keys(scores, target, RANKINGS[name]))
    levels = read_sketch(sketch(scores, target, RANKINGS[name]))
    p = (exact.p / exact.n).repeat_interleave(exact.n.long())
    for own in zip(p.split(levels.n.long().tolist()), levels.width, levels.p, strict=True):
        assert own[0].max() - own[0].min() <= own[1] <= 0.01
        assert own[0].sum().item() == pytest.approx(own[2].item(), abs=1e-9 * len(own[0]))


# merging


@pytest.mark.parametrize("name", RANKINGS)
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_batches_add_up_to_the_same_bits(name, sizes, seed):
    scores, target = inputs(name, n=sum(sizes), seed=seed)
    whole = sketch(scores, target, RANKINGS[name])
    parts = [sketch(s, t, RANKINGS[name]) for s, t in zip(scores.split(sizes), target.split(sizes), strict=True)]
    assert torch.equal(sum(parts), whole)
    one_by_one = empty_sketch(RANKINGS[name])
    for batch in zip(reversed(scores.split(sizes)), reversed(target.split(sizes)), strict=True):
        one_by_one = add_to_sketch(one_by_one, *batch, RANKINGS[name])
    assert torch.equal(one_by_one, whole)


@pytest.mark.parametrize("name", RANKINGS)
def test_more_rows_than_one_chunk(name):
    scores, target = inputs(name, n=50_000, k=3)
    parts = [sketch(s, t, RANKINGS[name]) for s, t in zip(scores.split(777), target.split(777), strict=True)]
    assert torch.equal(sum(parts), sketch(scores, target, RANKINGS[name]))
    keys = [sample_keys(s, t, RANKINGS[name]) for s, t in zip(scores.split(777), target.split(777), strict=True)]
    assert torch.equal(torch.cat(keys), sample_keys(scores, target, RANKINGS[name]))


def test_sums_given_are_not_changed():
    sums = empty_sketch(Ranking())
    add_to_sketch(sums, *example(), Ranking())
    assert not sums.any()


# values


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", RANKINGS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 400), scale=st.sampled_from([0.001, 0.05, 2.0, 50.0]))
def test_bounds_hold_the_exact_value_and_the_estimate(name, measure, seed, n, scale):
    scores, target = inputs(name, n=n, seed=seed)
    scores = scores if name == "probs" else scores * scale
    read = MEASURES[measure]
    levels = read_sketch(sketch(scores, target, RANKINGS[name]))
    exact = read(exact_levels(sample_keys(scores, target, RANKINGS[name])))
    low, high = sorted([read(errors_last(levels)), read(errors_first(levels))])
    assert low - 1e-12 <= exact <= high + 1e-12
    assert low - 1e-12 <= read(levels) <= high + 1e-12


def test_a_level_of_ties_is_exact():
    """All in one cell, but equal: nothing to know about their order."""
    logits, target = torch.zeros(9, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 0])
    levels = read_sketch(sketch(logits, target, Ranking()))
    exact = exact_levels(sample_keys(logits, target, Ranking()))
    for read in MEASURES.values():
        assert_close(read(levels), read(exact), rtol=0, atol=0)


def test_close_to_exact_for_many_samples():
    logits, target = example(n=200_000, k=10, scale=3.0)
    levels = read_sketch(sketch(logits, target, Ranking()))
    exact = exact_levels(sample_keys(logits, target, Ranking()))
    for name, tolerance in {"aurc": 5e-6, "eaurc": 5e-6, "augrc": 5e-6, "risk_at": 2e-4, "coverage_at": 2e-4}.items():
        assert MEASURES[name](levels).item() == pytest.approx(MEASURES[name](exact).item(), abs=tolerance, rel=0), name
    bounds = risk.area(errors_last(levels)), risk.area(errors_first(levels))
    assert bounds[1] - bounds[0] < 1e-3


def test_points_of_the_curve():
    logits, target = example(n=5000)
    points = risk_coverage_points(sketch(logits, target, Ranking()))
    levels = exact_levels(sample_keys(logits, target, Ranking()))
    errors = levels.wrong.cumsum(0)
    kept = (points.coverage * 5000).round().long()
    exact = errors[kept - 1] / kept
    assert (points.coverage.diff() > 0).all()
    assert points.coverage[-1] == 1
    assert (points.lower <= exact + 1e-12).all()
    assert (exact <= points.upper + 1e-12).all()
    assert (points.lower <= points.risk + 1e-12).all()
    assert (points.risk <= points.upper + 1e-12).all()
    ends = read_sketch(sketch(logits, target, Ranking())).n.cumsum(0)
    at_ends = torch.isin(kept, ends.long())
    assert int(at_ends.sum()) == len(ends) > 500
    assert_close(points.risk[at_ends], exact[at_ends])
    assert_close(points.upper[at_ends], points.lower[at_ends])


def test_nothing_counted():
    levels = read_sketch(empty_sketch(Ranking()))
    assert all(math.isnan(read(levels)) for read in MEASURES.values())
    assert len(risk_coverage_points(empty_sketch(Ranking())).risk) == 0


# what comes in


def test_bad_samples_are_counted_and_raise_when_read():
    logits, target = example(n=10)
    logits[3, 1], logits[5] = torch.nan, -torch.inf
    target[4], target[6] = 7, -100
    sums = sketch(logits, target, Ranking())
    assert sums[-1].tolist() == [0, 2, 1]
    assert num_sketched(sums) == 6
    with pytest.raises(ValueError, match="2 of 9 samples cannot be measured"):
        read_sketch(sums)
    with pytest.raises(ValueError, match="1 of 9 targets are out of range"):
        read_sketch(sums, nan_policy="omit")
    sums[-1, 2] = 0
    assert read_sketch(sums, nan_policy="omit").n.sum() == 6


@pytest.mark.parametrize("name", RANKINGS)
@pytest.mark.parametrize("encode", [sketch, sample_keys])
def test_nothing_waits_for_the_device(name, encode):
    scores, target = inputs(name, n=50)
    target[3], scores[4] = -100, torch.nan
    with NoSync():
        encode(scores, target, RANKINGS[name])


@pytest.mark.parametrize("name", RANKINGS)
@pytest.mark.parametrize("encode", [sketch, sample_keys])
def test_shapes_do_not_depend_on_data(name, encode, monkeypatch):
    monkeypatch.setattr(waiting, "READY", frozenset())
    scores, target = inputs(name, n=50)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = encode(mode.from_tensor(scores), mode.from_tensor(target), RANKINGS[name])
    assert fake.shape == encode(scores, target, RANKINGS[name]).shape


def test_deterministic_algorithms_give_the_same():
    logits, target = example()
    wanted = sketch(logits, target, Ranking())
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(sketch(logits, target, Ranking()), wanted)
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_empty_batch_adds_nothing():
    assert not sketch(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), Ranking()).any()
