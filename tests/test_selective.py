import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch.testing import assert_close

from ls_lightning.functional import (
    augrc,
    aurc,
    calibration_error,
    coverage_at_risk,
    eaurc,
    risk_at_coverage,
    risk_coverage_curve,
)
from ls_lightning.functional.ranking import Ranking, rank

FUNCTIONS = {
    "aurc": aurc,
    "eaurc": eaurc,
    "augrc": augrc,
    "risk_at": lambda *args, **kwargs: risk_at_coverage(*args, 0.7, **kwargs),
    "coverage_at": lambda *args, **kwargs: coverage_at_risk(*args, 0.3, **kwargs),
}


def example(n=300, k=5, scale=2.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, k, generator=generator, dtype=torch.float64) * scale).to(dtype)
    noisy = logits.double() / scale + torch.randn(n, k, generator=generator, dtype=torch.float64)
    return logits, noisy.argmax(1)


def doubt(logits):
    """log(1 - p) of the largest class, in float64, by the definition."""
    z = logits.double().numpy()
    others = np.array([np.delete(row, row.argmax()) for row in z])
    return logsumexp(others, axis=1) - logsumexp(z, axis=1)


def wrong(logits, target):
    return (logits.double().numpy().argmax(1) != target.numpy()).astype(float)


def expected_errors(doubts, wrongs):
    """W(1), ..., W(N), where each sample of a tie stands at each of its places equally often."""
    order = sorted(range(len(doubts)), key=lambda i: doubts[i])
    share = [np.mean([wrongs[j] for j in order if doubts[j] == doubts[i]]) for i in order]
    return np.cumsum(share)


def oracle(doubts, wrongs, coverage=0.7, risk=0.3):
    n = len(doubts)
    errors, k = expected_errors(doubts, wrongs), np.arange(1, n + 1)
    e = np.mean(wrongs)
    area = np.mean(errors / k)
    low = [count for count in k if errors[count - 1] / count <= risk + 1e-12]
    return {
        "aurc": area,
        "eaurc": area - (e + (1 - e) * math.log1p(-e) if e < 1 else 1),
        "augrc": np.sum(errors) / n**2,
        "risk_at": (errors / k)[math.ceil(coverage * n - 1e-9) - 1],
        "coverage_at": max(low, default=0) / n,
    }


def check(given_functions, wanted, atol=1e-9):
    for name, value in wanted.items():
        assert float(given_functions[name]) == pytest.approx(value, abs=atol, rel=0), name


def of(logits, target, **options):
    return {name: function(logits, target, **options) for name, function in FUNCTIONS.items()}


# against the definitions


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 5, 100])
def test_values(k, dtype):
    logits, target = example(k=k, dtype=dtype, seed=k)
    if k == 2:  # ties are those of the difference, which float64 must not break
        logits[:, 0] = 0
    check(of(logits, target), oracle(doubt(logits), wrong(logits, target)))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize("input", ["logits", "probs"])
def test_one_score_a_sample(task, input):
    z, _ = example(k=3)
    target = (torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < z.sigmoid()).long()
    if task == "binary":
        z, target = z[:, :1], target[:, :1]
    scores = z if input == "logits" else z.double().sigmoid()
    mistakes = ((z > 0).long() != target).flatten().double().numpy()
    ranks = -z.double().abs().flatten().numpy()
    check(of(scores, target, task=task, input=input), oracle(ranks, mistakes))


def test_binary_is_two_classes():
    z, target = example(k=1)
    two = torch.cat([torch.zeros_like(z), z], 1)
    check(of(z, target.view(-1, 1), task="binary"), {k: float(v) for k, v in of(two, target).items()}, atol=0)


def test_dense_targets_with_ignored_positions():
    logits, target = example(n=240)
    ignored = torch.arange(240) % 3 == 0
    dense = logits.view(4, 6, 10, 5).permute(0, 3, 1, 2)
    labels = target.masked_fill(ignored, 255).view(4, 6, 10)
    kept = logits[~ignored], target[~ignored]
    check(of(dense, labels, ignore_index=255), {k: float(v) for k, v in of(*kept).items()}, atol=0)


def test_probabilities_are_ranked_as_given():
    logits, target = example()
    probs = logits.double().softmax(1)
    check(of(probs, target, input="probs"), oracle(-probs.amax(1).numpy(), wrong(logits, target)))


def test_largest_logit():
    logits, target = example()
    check(of(logits, target, score="max_logit"), oracle(-logits.double().amax(1).numpy(), wrong(logits, target)))


@pytest.mark.parametrize("p", [0.5, 1, 2, 4.5, 20])
def test_norm_of_the_logits(p):
    logits, target = example()
    z = logits.double().numpy()
    score = z.max(1) / (np.abs(z) ** p).sum(1) ** (1 / p)
    check(of(logits, target, score="pnorm", p=p), oracle(-score, wrong(logits, target)))


def test_norm_of_zeros_and_masked_classes():
    logits = torch.tensor([[0.0, 0, 0], [3, -torch.inf, 4], [1, 0, 0], [2, 2, 1]])
    found = rank(logits, torch.zeros(4, dtype=torch.long), Ranking(score="pnorm", p=2.0)).log_odds
    score = -torch.tanh(found / 2)
    assert_close(score, torch.tensor([0, 0.8, 1, 2 / 3], dtype=torch.float64))


def test_a_million_samples():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1_000_000, generator=generator, dtype=torch.float64)
    target = (torch.rand(1_000_000, generator=generator) < z.sigmoid()).long()
    order = np.argsort(-np.abs(z.numpy()))
    errors = np.cumsum(((z > 0).long() != target).numpy()[order])
    k = np.arange(1, 1_000_001)
    assert float(aurc(z, target, task="binary")) == pytest.approx(math.fsum(errors / k) / 1e6, abs=1e-12)
    assert float(augrc(z, target, task="binary")) == pytest.approx(errors.sum() / 1e12, abs=1e-12)


# ties


def all_orders(levels):
    """Of levels [(wrong, ...), ...] every order of samples within them, as lists of 0 and 1."""
    for orders in itertools.product(*(itertools.permutations(level) for level in levels)):
        yield [value for order in orders for value in order]


def mean_area(levels, generalized):
    values = []
    for order in all_orders(levels):
        errors = list(itertools.accumulate(order))
        divide = [Fraction(len(order)) if generalized else Fraction(k + 1) for k in range(len(order))]
        values.append(sum(w / d for w, d in zip(errors, divide, strict=True)) / len(order))
    return sum(values) / len(values)


LEVELS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=3)


def from_levels(levels):
    """Two-class logits, the first level the surest."""
    z = [float(len(levels) - i) for i, level in enumerate(levels) for _ in level]
    logits = torch.tensor([[0.0, value] for value in z])
    return logits, torch.tensor([1 - value for level in levels for value in level])


@settings(max_examples=40, deadline=None)
@given(LEVELS)
def test_ties_are_the_mean_over_all_orders(levels):
    logits, target = from_levels(levels)
    assert float(aurc(logits, target)) == pytest.approx(float(mean_area(levels, False)), abs=1e-12)
    assert float(augrc(logits, target)) == pytest.approx(float(mean_area(levels, True)), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(LEVELS, st.integers(1, 100), st.integers(0, 100))
def test_points_of_the_curve_with_ties(levels, coverage, risk):
    logits, target = from_levels(levels)
    wanted = oracle(-logits[:, 1].numpy(), 1 - target.numpy(), coverage / 100, risk / 100)
    assert float(risk_at_coverage(logits, target, coverage / 100)) == pytest.approx(wanted["risk_at"], abs=1e-12)
    assert float(coverage_at_risk(logits, target, risk / 100)) == pytest.approx(wanted["coverage_at"], abs=1e-12)


def test_all_equally_sure():
    logits, target = torch.zeros(8, 4), torch.tensor([0, 0, 0, 1, 2, 3, 0, 0])
    assert_close(aurc(logits, target).item(), 3 / 8)
    assert risk_at_coverage(logits, target, 0.01).item() == 3 / 8
    assert coverage_at_risk(logits, target, 3 / 8).item() == 1
    assert coverage_at_risk(logits, target, 0.37).item() == 0
    curve = risk_coverage_curve(logits, target)
    assert curve.lower.tolist() == [0, 0, 3 / 8]
    assert curve.upper.tolist() == [1, 3 / 5, 3 / 8]


@pytest.mark.parametrize(
    ("levels", "risk", "kept"),
    [
        ([[0, 0, 0], [0, 1]], 0.15, 4),  # risks 0, 0, 0, 1/8, 1/5
        ([[0, 0, 0], [0, 1]], 0.12, 3),
        ([[0], [1, 1, 1, 0]], 0.39, 2),  # 0, 3/8, ...
        ([[1], [0, 0, 0, 0]], 0.25, 5),  # 1, 1/2, 1/3, 1/4, 1/5
        ([[0, 0], [1, 0, 1, 0], [1, 1]], 0.2, 3),
        ([[1, 1], [0, 1]], 0.2, 0),
        ([[0] * 6, [1, 1, 1, 0]], 0.2, 8),  # 0, ..., 3/28, 3/16, 1/4
    ],
)
def test_a_risk_that_is_passed_within_a_tie(levels, risk, kept):
    logits, target = from_levels(levels)
    assert coverage_at_risk(logits, target, risk).item() == kept / len(target)


def test_zeros_of_both_signs_tie():
    logits = torch.tensor([[0.0, -1.0], [-0.0, -1.0]])
    assert aurc(logits, torch.tensor([0, 1]), score="max_logit").item() == 0.5


def test_the_fewest_samples_that_cover_enough():
    logits = torch.arange(100, 0, -1.0)
    target = torch.zeros(100)  # all wrong but for the last
    for count in range(1, 101):
        assert risk_at_coverage(logits, target, count / 100, task="binary").item() == 1
    target[6] = 1
    assert risk_at_coverage(logits, target, 0.07, task="binary").item() == pytest.approx(6 / 7)
    assert risk_at_coverage(logits, target, 0.0601, task="binary").item() == pytest.approx(6 / 7)
    assert risk_at_coverage(logits, target, 0.06, task="binary").item() == 1


def test_a_risk_that_is_reached_exactly_counts():
    for n in range(1, 101):
        logits, target = torch.arange(n, 0, -1.0), torch.ones(n)
        for errors in (n // 3, n // 2, n - n // 3):
            target[n - errors :] = 0
            assert coverage_at_risk(logits, target, errors / n, task="binary").item() == 1


# nothing saturates


def test_probabilities_of_exactly_1_are_told_apart():
    """Float32 probabilities are 1.0 from a gap of 17 on, float64 from 37 on."""
    gaps = torch.tensor([900.0, 20, 40, 120, 800])
    logits = torch.stack([gaps, torch.zeros(5), torch.full((5,), -1.0)], 1)
    target = torch.tensor([0, 1, 1, 0, 0])
    assert (logits.softmax(1).amax(1) == 1).all()
    assert aurc(logits, target).item() == pytest.approx((1 / 4 + 2 / 5) / 5, abs=1e-12)
    assert aurc(logits.softmax(1), target, input="probs").item() == pytest.approx(2 / 5)
    assert aurc(torch.full((5, 1), torch.inf), torch.ones(5, 1), task="binary").item() == 0


def test_half_precision_probabilities_tie_and_their_logits_do_not():
    logits, target = example(n=2000, scale=8.0)
    exact = aurc(logits, target)
    rounded = aurc(logits.softmax(1).bfloat16(), target, input="probs")
    assert rounded > exact + 0.002
    assert_close(aurc(logits.bfloat16(), target), exact, atol=5e-4, rtol=0)


def test_masked_classes():
    logits = torch.tensor([[2.0, 1, -torch.inf], [-torch.inf, 0, -torch.inf], [0.5, 0, -torch.inf]])
    target = torch.tensor([1, 1, 0])  # the second is the only class left: sure
    assert aurc(logits, target).item() == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    wanted = torch.tensor([-1, -torch.inf, -0.5], dtype=torch.float64)
    assert_close(rank(logits, target, Ranking()).log_odds, wanted)


# identities


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.data())
def test_a_perfect_order(n, data):
    errors = data.draw(st.integers(0, n))
    z = torch.arange(n, 0, -1.0)
    target = (torch.arange(n) < n - errors).long()
    e = errors / n
    best = e + (1 - e) * math.log1p(-e) if e < 1 else 1.0
    harmonic = math.fsum(1 / k for k in range(n - errors + 1, n + 1))
    assert float(aurc(z, target, task="binary")) == pytest.approx(e - (1 - e) * harmonic, abs=1e-12)
    assert abs(float(eaurc(z, target, task="binary"))) <= 1 / n
    assert float(aurc(z, target, task="binary")) == pytest.approx(best, abs=1 / n)
    assert float(coverage_at_risk(z, target, 0.0, task="binary")) == (n - errors) / n


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_order_of_samples_and_classes_does_not_matter(seed, dtype):
    logits, target = example(n=60, k=4, seed=seed, dtype=dtype)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    classes = torch.randperm(4, generator=torch.Generator().manual_seed(seed + 1))
    base = of(logits, target)
    if (logits.topk(2).values.diff() != 0).all():  # of two largest logits the first is predicted
        check(of(logits[:, classes], classes.argsort()[target]), {k: float(v) for k, v in base.items()}, atol=0)
    check(of(logits[order], target[order]), {k: float(v) for k, v in base.items()}, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.25, 4.0, 1024.0]))
def test_a_monotone_change_of_scores_changes_nothing(seed, factor):
    logits, target = example(n=60, k=4, seed=seed)
    for options in ({"score": "max_logit"}, {"task": "binary"}):
        binary = "task" in options
        scores, labels = (logits[:, 0], (target == 0).long()) if binary else (logits, target)
        base = of(scores, labels, **options)
        check(of(scores * factor, labels, **options), {k: float(v) for k, v in base.items()}, atol=0)
    cubed = of(logits.double() ** 3, target, score="max_logit")
    check(cubed, {k: float(v) for k, v in of(logits, target, score="max_logit").items()}, atol=0)


def test_an_added_constant_changes_nothing_for_softmax():
    logits, target = example(dtype=torch.float64)
    check(of(logits + 3, target), {k: float(v) for k, v in of(logits, target).items()}, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_bounds_of_all_measures(seed):
    logits, target = example(n=40, k=3, seed=seed)
    found, e = of(logits, target), float(np.mean(wrong(logits, target)))
    assert 0 <= found["augrc"] <= found["aurc"] <= 1
    assert found["eaurc"] >= -1 / 40
    assert risk_at_coverage(logits, target, 1.0).item() == pytest.approx(e)
    assert coverage_at_risk(logits, target, 1.0).item() == 1


def test_the_curve_holds_all_of_it():
    logits, target = example()
    curve = risk_coverage_curve(logits, target)
    assert_close(curve.coverage, torch.arange(1, 301, dtype=torch.float64) / 300)
    assert_close(curve.risk.mean(), aurc(logits, target))
    assert_close((curve.risk * curve.coverage).mean(), augrc(logits, target))
    assert_close(curve.lower, curve.risk)
    assert_close(curve.upper, curve.risk)
    assert curve.risk[209] == risk_at_coverage(logits, target, 0.7)


def test_smoothing_the_confidences_to_calibration_need_not_help():
    """A temperature orders the samples of two classes as before, so it repairs ECE and leaves AURC."""
    logits, target = example(k=2)
    assert calibration_error(logits * 4, target) > calibration_error(logits, target) + 0.02
    assert_close(aurc(logits * 4, target), aurc(logits, target), atol=1e-12, rtol=0)


# judges


def test_against_torch_uncertainty():
    theirs = pytest.importorskip("torch_uncertainty.metrics.classification.risk_coverage")
    logits, target = example(n=1000, k=6, dtype=torch.float64)
    probs = logits.softmax(1)
    n, curve = 1000, risk_coverage_curve(logits, target).risk
    metric = theirs.AURC()
    metric.update(probs, target)
    assert_close(metric.partial_compute().double(), curve, atol=1e-9, rtol=0)
    # Theirs is the trapezoidal rule from 1/N to 1, divided by its width; from float32 coverages.
    ends = (curve[0] + curve[-1]) / 2
    wanted = (n * aurc(logits, target) - ends) / (n - 1)
    assert float(metric.compute()) == pytest.approx(float(wanted), abs=1e-6)
    generalized = theirs.AUGRC()
    generalized.update(probs, target)
    wanted = (n * augrc(logits, target) - (curve[0] / n + curve[-1]) / 2) / (n - 1)
    assert float(generalized.compute()) == pytest.approx(float(wanted), abs=1e-6)
    for coverage in (0.1, 0.5, 0.8, 1.0):
        risk_at = theirs.RiskAtxCov(coverage)
        risk_at.update(probs, target)
        assert float(risk_at.compute()) == pytest.approx(float(risk_at_coverage(logits, target, coverage)), abs=1e-9)
    for risk in (0.1, 0.3, 0.5):
        coverage_at = theirs.CovAtxRisk(risk)
        coverage_at.update(probs, target)
        assert float(coverage_at.compute()) == pytest.approx(float(coverage_at_risk(logits, target, risk)), abs=1e-6)


# what comes in


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number(bad):
    logits, target = example(n=10)
    logits[3, 1] = bad
    for function in FUNCTIONS.values():
        with pytest.raises(ValueError, match="1 of 10 samples cannot be measured"):
            function(logits, target)
        kept = torch.arange(10) != 3
        assert function(logits, target, nan_policy="omit") == function(logits[kept], target[kept])


@pytest.mark.parametrize("value", [-1, 5, 200])
def test_targets_out_of_range(value):
    logits, target = example(n=10)
    target[2] = value
    with pytest.raises(ValueError, match="1 of 10 targets are out of range"):
        aurc(logits, target)


def test_probabilities_that_are_none():
    probs = torch.tensor([[0.5, 0.5], [2.0, -1.0]])
    with pytest.raises(ValueError, match="1 of 2 samples cannot be measured"):
        aurc(probs, torch.tensor([0, 1]), input="probs")
    assert aurc(torch.tensor([[1.0000001, -1e-9], [0.7, 0.3]]), torch.tensor([0, 1]), input="probs").item() == 0.25


@pytest.mark.parametrize("target", [torch.empty(0, dtype=torch.long), torch.full((3,), -100)])
def test_nothing_to_count(target):
    for function in FUNCTIONS.values():
        assert math.isnan(function(torch.zeros(len(target), 4), target))
    assert [len(column) for column in risk_coverage_curve(torch.zeros(len(target), 4), target)] == [0] * 4


@pytest.mark.parametrize(("label", "risk"), [(0, 0.0), (1, 1.0)])
def test_one_sample(label, risk):
    logits, target = torch.tensor([[1.0, 0.0]]), torch.tensor([label])
    assert aurc(logits, target).item() == augrc(logits, target).item() == risk
    assert risk_at_coverage(logits, target, 0.5).item() == risk
    assert coverage_at_risk(logits, target, 0.5).item() == 1 - risk
    assert eaurc(logits, target).item() == 0


def test_memory_layout_does_not_matter():
    logits, target = example(n=240)
    dense = logits.view(4, 6, 10, 5).permute(0, 3, 1, 2)
    labels = target.view(4, 6, 10)
    wanted = aurc(logits, target)
    assert not dense.is_contiguous()
    for given_logits in (dense, dense.contiguous(), dense.contiguous(memory_format=torch.channels_last)):
        assert_close(aurc(given_logits, labels), wanted, rtol=0, atol=0)
    assert_close(aurc(logits.T.contiguous().T, target), wanted, rtol=0, atol=0)


def test_no_graph_is_kept_and_nothing_is_changed():
    logits, target = example()
    before = logits.clone(), target.clone()
    assert not aurc(logits.requires_grad_(), target).requires_grad
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "entropy"}, "score must be one of 'msp', 'max_logit', 'pnorm', got 'entropy'"),
        ({"score": "pnorm"}, "score='pnorm' needs p, positive and finite and chosen on validation data, got None"),
        ({"score": "pnorm", "p": 0}, "needs p, positive and finite"),
        ({"score": "pnorm", "p": math.nan}, "needs p, positive and finite"),
        ({"score": "pnorm", "p": math.inf}, "needs p, positive and finite"),
        ({"p": 2.0}, "p=2.0 belongs to score='pnorm', got score='msp'"),
        ({"score": "max_logit", "input": "probs"}, "score='max_logit' needs task='multiclass' and input='logits'"),
        ({"score": "max_logit", "task": "binary"}, "score='max_logit' needs task='multiclass' and input='logits'"),
        ({"input": "scores"}, "input must be one of"),
        ({"task": "ordinal"}, "task must be one of"),
        ({"num_classes": 7}, "num_classes=7, but there are"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        aurc(*example(n=4), **options)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\], got"):
        risk_at_coverage(*example(n=4), share)
    with pytest.raises(ValueError, match=r"risk must be in \[0, 1\], got"):
        coverage_at_risk(*example(n=4), share)
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\], got 0"):
        risk_at_coverage(*example(n=4), 0)


def test_wrong_shapes_and_dtypes():
    with pytest.raises(ValueError, match=r"logits \(4, 5\) and target \(3,\)"):
        aurc(torch.zeros(4, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(TypeError, match="logits must be floating point"):
        aurc(torch.zeros(4, 5, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(TypeError, match="target must hold class indices"):
        aurc(torch.zeros(4, 5), torch.zeros(4))
