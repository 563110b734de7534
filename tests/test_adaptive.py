import itertools
import math

import netcal.metrics
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selective import example
from torch.testing import assert_close

from ls_lightning.functional import adaptive_calibration_error, calibration_gap
from ls_lightning.functional.adaptive import adaptive_bounds, adaptive_error, adaptive_gaps
from ls_lightning.functional.levels import exact_levels, sample_keys
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.sketch import read_sketch, sketch

NORMS = ["l1", "l2", "max"]


def softmax(logits):
    z = logits.double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def groups(p, hits, num_bins):
    """(n, mean confidence, accuracy) of each group, cut as `numpy.array_split` does; no ties."""
    order = np.argsort(p)
    parts = [part for part in np.array_split(order, num_bins) if len(part)]
    return np.array([(len(part), p[part].mean(), hits[part].mean()) for part in parts]).T


def oracle(p, hits, num_bins, norm):
    n, conf, acc = groups(p, hits, num_bins)
    gaps, w = abs(conf - acc), n / n.sum()
    return {"l1": (w * gaps).sum(), "l2": math.sqrt((w * gaps**2).sum()), "max": gaps.max()}[norm]


def read(logits, target, **options):
    p = softmax(logits)
    return p.max(1), (p.argmax(1) == target.numpy()).astype(float)


# against the definition


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("n", "num_bins"), [(300, 15), (301, 15), (314, 15), (300, 1), (300, 1000), (7, 7), (1, 15)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values(n, num_bins, norm, dtype):
    logits, target = example(n=n, dtype=dtype)
    given_value = adaptive_calibration_error(logits, target, num_bins=num_bins, norm=norm)
    assert given_value.dtype == torch.float64
    assert given_value.item() == pytest.approx(oracle(*read(logits, target), num_bins, norm), abs=1e-9, rel=0)


@pytest.mark.parametrize("input", ["logits", "probs"])
@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_probability_of_the_positive_class(task, input):
    z, _ = example(k=3)
    target = (torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < z.sigmoid()).long()
    if task == "binary":
        z, target = z[:, 0], target[:, 0]
    p = z.double().sigmoid()
    scores, options = (z if input == "logits" else p), {"task": task, "input": input}
    found = adaptive_calibration_error(scores, target, confidence="positive", **options)
    wanted = oracle(p.flatten().numpy(), target.flatten().double().numpy(), 15, "l1")
    assert found.item() == pytest.approx(wanted, abs=1e-9, rel=0)
    top, hits = torch.maximum(p, 1 - p), ((p > 0.5) == target).double()
    wanted = oracle(top.flatten().numpy(), hits.flatten().numpy(), 15, "l1")
    assert adaptive_calibration_error(scores, target, **options).item() == pytest.approx(wanted, abs=1e-9, rel=0)


def test_dense_targets_with_ignored_positions():
    logits, target = example(n=240)
    ignored = torch.arange(240) % 3 == 0
    dense, labels = logits.view(4, 60, 5).movedim(-1, 1), target.masked_fill(ignored, 255).view(4, 60)
    found = adaptive_calibration_error(dense, labels, ignore_index=255)
    assert_close(found, adaptive_calibration_error(logits[~ignored], target[~ignored]), rtol=0, atol=0)


# judges


@pytest.mark.parametrize("num_bins", [5, 10, 15])
def test_against_netcal(num_bins):
    """Its quantiles cut where ours do if the groups are equal; ACE there is the plain mean over groups."""
    logits, target = example(n=300, k=6)
    ours = adaptive_calibration_error(logits, target, num_bins=num_bins)
    for theirs in (netcal.metrics.ECE, netcal.metrics.ACE):
        metric = theirs(num_bins, equal_intervals=False)
        assert ours.item() == pytest.approx(metric.measure(softmax(logits), target.numpy()), abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_against_torch_uncertainty(norm):
    theirs = pytest.importorskip("torch_uncertainty.metrics.classification.calibration.adaptive_calibration_error")
    logits, target = example(n=1003, k=6, dtype=torch.float64)
    p, hits = (torch.from_numpy(column) for column in read(logits, target))
    wanted = theirs._ace_compute(p, hits, 15, norm)
    ours = adaptive_calibration_error(logits, target, norm=norm)
    assert ours.item() == pytest.approx(wanted.item(), abs=1e-9)


# ties


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 1)), min_size=1, max_size=6), st.integers(1, 4))
def test_a_divided_tie_is_shared_out(samples, num_bins):
    """Each group's gap is its mean over all orders of what ties."""
    samples = sorted(samples)
    z = torch.tensor([[0.0, float(size)] for size, _ in samples], dtype=torch.float64)
    target = torch.tensor([hit for _, hit in samples])
    p = softmax(z).max(1)
    gaps = []
    levels = [list(level) for _, level in itertools.groupby(samples, key=lambda sample: sample[0])]
    for orders in itertools.product(*(itertools.permutations(level) for level in levels)):
        hits = [hit for order in orders for _, hit in order]
        parts = np.array_split(np.arange(len(hits)), num_bins)
        gaps.append([sum(p[i] - hits[i] for i in part) for part in parts])
    found = adaptive_gaps(exact_levels(sample_keys(z, target, Ranking())), num_bins)
    np.testing.assert_allclose(found.gap, np.mean(gaps, 0), atol=1e-12)
    assert found.n.tolist() == [len(part) for part in np.array_split(np.arange(len(samples)), num_bins)]


def test_all_exactly_sure():
    logits = torch.full((20, 2), -torch.inf)
    logits[:, 0] = 0
    target = (torch.arange(20) < 5).long()
    assert adaptive_calibration_error(logits, target, num_bins=4).item() == pytest.approx(0.25)
    assert adaptive_calibration_error(logits, target.flip(0), num_bins=4, norm="max").item() == pytest.approx(0.25)


# identities


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_between_the_gap_and_1_and_independent_of_order(seed, num_bins):
    logits, target = example(n=50, k=3, seed=seed, dtype=torch.bfloat16)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    value = adaptive_calibration_error(logits, target, num_bins=num_bins)
    assert_close(adaptive_calibration_error(logits[order], target[order], num_bins=num_bins), value, rtol=0, atol=0)
    gap = calibration_gap(logits, target).abs()
    assert gap - 1e-9 <= value <= 1
    assert_close(adaptive_calibration_error(logits, target, num_bins=1), gap, atol=1e-9, rtol=0)


# the sketch


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("confidence", ["top", "positive"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 300),
    num_bins=st.integers(1, 20),
    scale=st.sampled_from([0.001, 0.05, 2.0, 50.0]),
)
def test_bounds_of_the_sketch(norm, confidence, seed, n, num_bins, scale):
    logits, target = example(n=n, seed=seed)
    scores, target = logits[:, 0] * scale, (target == 0).long()
    ranking = Ranking(Spec(task="binary", confidence=confidence))
    levels = read_sketch(sketch(scores, target, ranking))
    low, high = adaptive_bounds(levels, num_bins, norm)
    exact = adaptive_error(exact_levels(sample_keys(scores, target, ranking)), num_bins, norm)
    assert low - 1e-12 <= exact <= high + 1e-12
    assert low <= adaptive_error(levels, num_bins, norm) <= high


@pytest.mark.parametrize("norm", NORMS)
def test_the_sketch_is_close_for_many_samples(norm):
    logits, target = example(n=100_000, k=10, scale=3.0)
    levels = read_sketch(sketch(logits, target, Ranking()))
    exact = adaptive_calibration_error(logits, target, norm=norm).item()
    assert adaptive_error(levels, 15, norm).item() == pytest.approx(exact, abs=2e-3)
    low, high = adaptive_bounds(levels, 15, norm)
    assert high - low < 0.05


def test_a_sketch_cut_between_cells_is_exact():
    logits, target = example(n=300, k=3)
    levels = read_sketch(sketch(logits, target, Ranking()))
    value = adaptive_error(levels, 1)
    low, high = adaptive_bounds(levels, 1)
    assert high - low <= 2**-31
    assert value.item() == pytest.approx(adaptive_calibration_error(logits, target, num_bins=1).item(), abs=1e-9)


# what comes in


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("target", [torch.empty(0, dtype=torch.long), torch.full((3,), -100)])
def test_nothing_to_count(target, norm):
    assert math.isnan(adaptive_calibration_error(torch.zeros(len(target), 4), target, norm=norm))


def test_what_is_no_number():
    logits, target = example(n=10)
    logits[3, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 10 samples cannot be measured"):
        adaptive_calibration_error(logits, target)
    kept = torch.arange(10) != 3
    omitted = adaptive_calibration_error(logits, target, nan_policy="omit")
    assert omitted == adaptive_calibration_error(logits[kept], target[kept])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_bins": 0}, ValueError, "num_bins must be at least 1, got 0"),
        ({"num_bins": 15.0}, TypeError, "num_bins must be an int, got 15.0"),
        ({"num_bins": True}, TypeError, "num_bins must be an int, got True"),
        ({"norm": "linf"}, ValueError, "norm must be one of"),
        ({"confidence": "positive"}, ValueError, "confidence='positive' needs task"),
        ({"nan_policy": "ignore"}, ValueError, "nan_policy must be one of"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        adaptive_calibration_error(*example(n=4), **options)
