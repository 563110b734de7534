"""What is read off the bins beyond the plain errors: debiased errors, parts, the Brier score's terms, intervals."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ls_lightning.functional import (
    bootstrap_interval,
    brier_decomposition,
    brier_score,
    calibration_error,
    calibration_gap,
    measures,
    overconfidence_part,
    underconfidence_part,
)
from ls_lightning.functional.brier import brier_decomposition as decompose
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.sums import add_sums, calibration_sums, empty_sums
from ls_lightning.metrics import BrierComponent, CalibrationError, CalibrationGap, full_metrics


def example(n=400, k=5, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * 2
    target = (logits / 2 + generator.normal(size=(n, k))).argmax(1)
    return torch.from_numpy(logits), torch.from_numpy(target)


def top(logits, target):
    e = np.exp(logits.numpy() - logits.numpy().max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return p.max(1), (p.argmax(1) == target.numpy()).astype(float)


def in_bins(p, hit, num_bins=15):
    """Confidence and hits of each bin that is not empty."""
    place = np.maximum(np.ceil(p * num_bins), 1)
    return [(p[place == b], hit[place == b]) for b in range(1, num_bins + 1) if (place == b).any()]


# debiased


def kumar_l2(p, hit, num_bins):
    total = 0.0
    for conf, right in in_bins(p, hit, num_bins):
        n, a = len(conf), right.mean()
        if n > 1:
            total += n * ((conf.mean() - a) ** 2 - a * (1 - a) / (n - 1))
    return math.sqrt(max(0.0, total / len(p)))


def kumar_l1(p, hit, num_bins):
    plain = expected = 0.0
    for conf, right in in_bins(p, hit, num_bins):
        n, a = len(conf), right.mean()
        gap, noise = abs(conf.mean() - a), math.sqrt(a * (1 - a) / n)
        plain += n * gap
        expected += n * (scipy.stats.foldnorm.mean(gap / noise, scale=noise) if noise > 0 else gap)
    return (2 * plain - expected) / len(p)


@pytest.mark.parametrize("num_bins", [1, 5, 15, 200])
@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_debiased_errors_against_the_formulas(n, num_bins):
    logits, target = example(n, seed=n)
    p, hit = top(logits, target)
    options = {"num_bins": num_bins, "debias": True}
    assert calibration_error(logits, target, **options).item() == pytest.approx(kumar_l1(p, hit, num_bins), abs=1e-9)
    squared = calibration_error(logits, target, norm="l2", **options).item() ** 2
    assert squared == pytest.approx(kumar_l2(p, hit, num_bins) ** 2, abs=1e-9)


def test_debiased_l1_is_what_kumar_draws():
    logits, target = example(300)
    bins = in_bins(*top(logits, target))
    generator = np.random.default_rng(0)
    n = np.array([len(conf) for conf, _ in bins])
    conf, acc = (np.array([values[i].mean() for values in bins]) for i in (0, 1))
    drawn = generator.normal(acc, np.sqrt(acc * (1 - acc) / n), size=(200_000, len(n)))
    expected = 2 * (n * abs(conf - acc)).sum() / 300 - (n * abs(drawn - conf)).sum(1).mean() / 300
    assert calibration_error(logits, target, debias=True).item() == pytest.approx(expected, abs=3e-4)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_debiasing_lowers_what_a_calibrated_model_shows(norm):
    generator = torch.Generator().manual_seed(0)
    plain, debiased = [], []
    for _ in range(60):
        p = torch.rand(300, generator=generator, dtype=torch.float64)
        y = (torch.rand(300, generator=generator, dtype=torch.float64) < p).long()
        options = {"task": "binary", "input": "probs", "confidence": "positive", "norm": norm}
        power = 1 if norm == "l1" else 2
        plain.append(calibration_error(p, y, **options) ** power)
        debiased.append(calibration_error(p, y, debias=True, **options) ** power)
    # The l1 form halves the bias only: what it draws around is itself the noisy gap.
    assert torch.stack(debiased).mean() < (0.65 if norm == "l1" else 0.55) * torch.stack(plain).mean()


def test_sure_bins_have_no_bias():
    probs, target = torch.tensor([0.9, 0.9, 0.2]), torch.tensor([1, 1, 0])
    options = {"task": "binary", "input": "probs", "confidence": "positive"}
    assert calibration_error(probs, target, debias=True, **options).item() == pytest.approx(0.4 / 3, abs=1e-7)


def test_the_maximum_has_no_debiased_form():
    for make in (CalibrationError, lambda **k: calibration_error(torch.zeros(1, 2), torch.zeros(1).long(), **k)):
        with pytest.raises(ValueError, match="debias=True needs norm='l1' or 'l2', got norm='max'"):
            make(norm="max", debias=True)


# parts


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 40))
def test_parts_add_up_to_the_error_and_differ_by_the_gap(seed, n, num_bins):
    logits, target = example(n, seed=seed)
    over = overconfidence_part(logits, target, num_bins=num_bins)
    under = underconfidence_part(logits, target, num_bins=num_bins)
    assert (over + under).item() == pytest.approx(
        calibration_error(logits, target, num_bins=num_bins).item(), abs=1e-12
    )
    assert (over - under).item() == pytest.approx(calibration_gap(logits, target).item(), abs=1e-12)
    expected = sum(max(conf.sum() - right.sum(), 0) for conf, right in in_bins(*top(logits, target), num_bins)) / n
    assert over.item() == pytest.approx(expected, abs=1e-9)


# the Brier score


def murphy(p, hit, num_bins):
    n, base = len(p), hit.mean()
    terms = np.zeros(5)
    for conf, right in in_bins(p, hit, num_bins):
        c, a, w = conf.mean(), right.mean(), len(conf) / n
        covariance = 2 * ((conf - c) * (right - a)).sum() / n
        terms += [w * (c - a) ** 2, w * (a - base) ** 2, 0, ((conf - c) ** 2).sum() / n, covariance]
    terms[2] = base * (1 - base)
    return [((p - hit) ** 2).mean(), *terms]


@pytest.mark.parametrize("num_bins", [1, 10, 15, 137])
@pytest.mark.parametrize("n", [1, 50, 2000])
def test_the_terms_of_the_brier_score_against_their_definitions(n, num_bins):
    logits, target = example(n, seed=n)
    given_ = brier_decomposition(logits, target, num_bins=num_bins)
    np.testing.assert_allclose(list(given_), murphy(*top(logits, target), num_bins), atol=1e-9, rtol=0)
    metric = BrierComponent("resolution", num_bins=num_bins)
    assert metric(logits, target).item() == given_.resolution.item()
    assert metric.decomposition() == given_


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 60), st.sampled_from(["top", "positive"]))
def test_the_terms_add_up_to_the_brier_score(seed, n, num_bins, confidence):
    p = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = (torch.rand(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) < p).long()
    options = {"task": "binary", "input": "probs"}
    bs, rel, res, unc, wbv, wbc = brier_decomposition(p, y, num_bins=num_bins, confidence=confidence, **options)
    assert bs.item() == pytest.approx((rel - res + unc + wbv - wbc).item(), abs=1e-9)
    assert bs.item() == pytest.approx(brier_score(p, y, **options).item(), abs=1e-9)
    rms = calibration_error(p, y, norm="l2", num_bins=num_bins, confidence=confidence, **options)
    assert rel.item() == pytest.approx(rms.item() ** 2, abs=1e-12)


def test_of_several_classes_the_top_labels_score_is_taken_apart():
    logits, target = example(k=5)
    assert abs(brier_decomposition(logits, target).brier - brier_score(logits, target)) > 0.05
    two = logits[:, :2], target.clamp(max=1)
    assert 2 * brier_decomposition(*two).brier.item() == pytest.approx(brier_score(*two).item(), abs=1e-9)


def test_an_unknown_component_is_refused():
    with pytest.raises(ValueError, match=r"component must be one of 'brier', 'reliability', .*, got 'refinement'"):
        BrierComponent("refinement")


# intervals


@pytest.mark.parametrize("n", [60, 500, 5000])
@pytest.mark.parametrize("of", ["ece", "gap"])
def test_the_interval_is_that_of_resampled_samples(of, n):
    logits, target = example(n, seed=n)
    p, hit = top(logits, target)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(3000):
        pick = generator.integers(0, n, n)
        excess = [conf.sum() - right.sum() for conf, right in in_bins(p[pick], hit[pick])]
        drawn.append((np.abs(excess).sum() if of == "ece" else np.sum(excess)) / n)
    low, high = bootstrap_interval(logits, target, of, num_samples=3000)
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([low, high], expected, atol=0.08 * (expected[1] - expected[0]))


def test_the_gaps_interval_is_normal():
    logits, target = example(4000)
    p, hit = top(logits, target)
    error = (p - hit).std() / math.sqrt(4000)
    wanted = (p - hit).mean() + np.array([-1, 1]) * scipy.stats.norm.ppf(0.95) * error
    given_ = bootstrap_interval(logits, target, "gap", level=0.9, num_samples=20_000)
    np.testing.assert_allclose(given_, wanted, atol=0.05 * error)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    logits, target = example()
    sums = calibration_sums(logits, target, Spec())
    state = torch.get_rng_state()
    first = bootstrap_interval(logits, target)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert bootstrap_interval(logits, target) == first
    assert bootstrap_interval(logits, target, seed=1) != first
    metric = CalibrationGap()
    for rows in torch.arange(400).split(33):
        metric.update(logits[rows], target[rows])
    assert metric.bootstrap_interval() == first
    padded = calibration_sums(logits, target, Spec(num_bins=15, ignore_index=None))
    assert torch.equal(padded, sums)


def test_of_more_samples_the_interval_is_narrower_at_any_size():
    sums, before = calibration_sums(*example(777), Spec(num_bins=1000)), math.inf
    for doublings in (0, 10, 30):
        grown = sums
        for _ in range(doublings):
            grown = add_sums(grown, grown)
        low, high = measures_interval(grown)
        assert 0 < high - low < before / 20
        before = high - low


def measures_interval(sums):
    from ls_lightning.functional.bootstrap import bootstrap_interval as read

    return read(sums, "gap")


def test_an_interval_without_samples_is_nan():
    assert all(map(math.isnan, measures_interval(empty_sums(15))))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"of": "mce"}, ValueError, "of must be one of 'ece', 'gap', got 'mce'"),
        ({"level": 95}, ValueError, r"level must be in \(0, 1\), got 95"),
        ({"level": math.nan}, ValueError, r"level must be in \(0, 1\), got nan"),
        ({"num_samples": 0}, ValueError, "num_samples must be an int of at least 1, got 0"),
        ({"seed": 0.5}, TypeError, "seed must be an int, got 0.5"),
    ],
)
def test_wrong_arguments_of_an_interval(options, error, message):
    with pytest.raises(error, match=message):
        bootstrap_interval(torch.zeros(2, 2), torch.zeros(2).long(), **options)


# samples that are no numbers


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_omitted_samples_are_left_out_and_counted(bad):
    logits, target = example(50, k=2)
    broken = torch.cat([logits, torch.tensor([bad], dtype=torch.float64)])
    labels = torch.cat([target, torch.tensor([1])])
    metrics = full_metrics(nan_policy="omit")
    metrics.update(broken, labels)
    plain = full_metrics()
    plain.update(logits, target)
    assert {k: v.item() for k, v in metrics.compute().items()} == {k: v.item() for k, v in plain.compute().items()}
    assert (metrics["ece"].num_samples, metrics["ece"].num_omitted) == (50, 1)
    assert (plain["ece"].num_samples, plain["ece"].num_omitted) == (50, 0)
    given_ = calibration_error(broken, labels, nan_policy="omit")
    assert given_.item() == calibration_error(logits, target).item()


def test_a_wrong_target_is_an_error_also_where_samples_are_omitted():
    logits, target = example(50, k=2)
    target[3] = 7
    with pytest.raises(ValueError, match="1 of 50 targets are out of range"):
        calibration_error(logits, target, nan_policy="omit")


def test_an_ignored_sample_is_not_omitted():
    sums = calibration_sums(torch.full((1, 2), torch.nan), torch.tensor([-100]), Spec(nan_policy="omit"))
    assert measures.num_omitted(sums) == 0
    assert decompose(sums).brier.isnan()


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="nan_policy must be one of 'raise', 'omit', got 'propagate'"):
        CalibrationError(nan_policy="propagate")
