import math
from fractions import Fraction
from functools import partial

import netcal.metrics
import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from ls_lightning.functional import (
    accuracy,
    brier_score,
    calibration_error,
    calibration_gap,
    measures,
    negative_log_likelihood,
    overconfidence_error,
    reliability_bins,
    underconfidence_error,
    waiting,
)
from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.outputs import Spec as PlainSpec
from ls_lightning.functional.sums import add_sums, bin_index, calibration_sums, empty_sums, read_sums

Spec = partial(PlainSpec, entropy=True)

MEASURES = {
    "ece": lambda s: measures.calibration_error(s, "l1"),
    "rmsce": lambda s: measures.calibration_error(s, "l2"),
    "mce": lambda s: measures.calibration_error(s, "max"),
    "gap": measures.calibration_gap,
    "over": measures.overconfidence_error,
    "under": measures.underconfidence_error,
    "acc": measures.accuracy,
    "nll": measures.negative_log_likelihood,
    "brier": measures.brier_score,
    "entropy": measures.mean_entropy,
}


def example(n=400, k=5, scale=2.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, k, generator=generator, dtype=torch.float64) * scale).to(dtype)
    noisy = logits.double() / scale + torch.randn(n, k, generator=generator, dtype=torch.float64)
    return logits, noisy.argmax(1)


def read(sums):
    return {name: float(measure(sums)) for name, measure in MEASURES.items()}


def oracle(probs, target, *, num_bins=15, closed="right", positive=False):
    """All measures in float64 numpy, from the definitions, bin by bin."""
    probs, target = np.asarray(probs, np.float64), np.asarray(target)
    n, k = probs.shape
    correct = (probs.argmax(1) == target).astype(float)
    p, hit = (probs[:, 1], target.astype(float)) if positive else (probs.max(1), correct)
    edges = np.arange(num_bins + 1) / num_bins
    bins = []
    for b in range(num_bins):
        low, high, last = edges[b], edges[b + 1], b == num_bins - 1
        if closed == "right":
            inside = (p > low) & (p <= high) | (p == 0) & (b == 0)
        else:
            inside = (p >= low) & (p < high) | (p == 1) & last
        if inside.any():
            bins.append((inside.sum() / n, p[inside].mean(), hit[inside].mean()))
    w, conf, acc = np.array(bins).T
    assert math.isclose(w.sum(), 1)
    with np.errstate(divide="ignore"):
        log_p = np.log(probs)
    return {
        "ece": (w * abs(conf - acc)).sum(),
        "rmsce": math.sqrt((w * (conf - acc) ** 2).sum()),
        "mce": abs(conf - acc).max(),
        "gap": p.mean() - hit.mean(),
        "over": (w * conf * np.maximum(conf - acc, 0)).sum(),
        "under": (w * conf * np.maximum(acc - conf, 0)).sum(),
        "acc": correct.mean(),
        "nll": -log_p[np.arange(n), target].mean(),
        "brier": ((probs - np.eye(k)[target]) ** 2).sum(1).mean(),
        "entropy": -np.where(probs > 0, probs * np.where(probs > 0, log_p, 0), 0).sum(1).mean(),
    }


def softmax(logits):
    z = logits.double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def check(given, expected, atol=1e-9):
    for name, value in expected.items():
        assert given[name] == pytest.approx(value, abs=atol, rel=0), name


# bins


def on_and_beside_edges(num_bins):
    """The float32 nearest to each k/M and its two neighbours, as integers over 2**149 and as numbers."""
    edges = (torch.arange(num_bins + 1, dtype=torch.float64) / num_bins).float()
    p = torch.cat([edges, edges.nextafter(torch.zeros(())), edges.nextafter(torch.ones(()))])
    numerators = [top * (2**149 // bottom) for top, bottom in (value.as_integer_ratio() for value in p.tolist())]
    return p, numerators


@pytest.mark.parametrize("sizes", [range(start, start + 100) for start in range(1, 1001, 100)])
def test_bins_are_exact_on_and_beside_every_edge(sizes):
    """Every M to 1000 against integer arithmetic."""
    for num_bins in sizes:
        p, numerators = on_and_beside_edges(num_bins)
        last = num_bins - 1
        right = [max(-(-value * num_bins // 2**149) - 1, 0) for value in numerators]
        left = [min(value * num_bins >> 149, last) for value in numerators]
        assert bin_index(p, num_bins, "right").tolist() == right, num_bins
        assert bin_index(p, num_bins, "left").tolist() == left, num_bins


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("num_bins", [1, 2, 15, 49, 100, 999, 1000])
def test_bins_of_float32_are_exact(num_bins, closed):
    p = torch.rand(2000, generator=torch.Generator().manual_seed(num_bins))
    position = [Fraction(value) * num_bins for value in p.tolist()]
    expected = [math.ceil(v) - 1 if closed == "right" else math.floor(v) for v in position]
    assert bin_index(p, num_bins, closed).tolist() == [min(max(index, 0), num_bins - 1) for index in expected]


@pytest.mark.parametrize("sizes", [range(start, start + 100) for start in range(1, 1001, 100)])
def test_edges_in_float64_belong_to_their_bin(sizes):
    for num_bins in sizes:
        p = torch.tensor([k / num_bins for k in range(num_bins + 1)], dtype=torch.float64)
        assert bin_index(p, num_bins, "right").tolist() == [0, *range(num_bins)]
        assert bin_index(p, num_bins, "left").tolist() == [*range(num_bins), num_bins - 1]


def test_sums_take_a_thousand_bins_as_the_formulas_do():
    probs = torch.stack([on_and_beside_edges(1000)[0].clamp(0, 1).double()] * 2, 1)
    probs[:, 0] = 1 - probs[:, 1]
    target = torch.arange(len(probs)) % 2
    for closed in ("right", "left"):
        options = {"num_bins": 1000, "closed": closed}
        sums = calibration_sums(probs[:, 1], target, Spec("binary", input="probs", confidence="positive", **options))
        counts = measures.reliability_bins(sums).counts
        expected = torch.bincount(bin_index(probs[:, 1], 1000, closed), minlength=1000)
        assert counts.tolist() == expected.tolist()


def test_closed_decides_only_about_edges():
    probs = torch.tensor([[0.75, 0.25], [0.8, 0.2]])
    right = reliability_bins(probs, torch.tensor([0, 0]), num_bins=4, input="probs", closed="right")
    left = reliability_bins(probs, torch.tensor([0, 0]), num_bins=4, input="probs", closed="left")
    assert right.counts.tolist() == [0, 0, 1, 1]
    assert left.counts.tolist() == [0, 0, 0, 2]


# values


@pytest.mark.parametrize("num_bins", [1, 7, 15, 100])
@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 10])
def test_multiclass_against_float64_formulas(k, dtype, closed, num_bins):
    logits, target = example(k=k, dtype=dtype, seed=num_bins)
    sums = calibration_sums(logits, target, Spec(closed=closed, num_bins=num_bins))
    check(read(sums), oracle(softmax(logits), target, num_bins=num_bins, closed=closed))


@pytest.mark.parametrize("confidence", ["top", "positive"])
@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize("source", ["logits", "probs"])
def test_binary_against_float64_formulas(source, task, closed, confidence):
    z = example(n=300, k=4, dtype=torch.float64)[0]
    y = (torch.rand(300, 4, generator=torch.Generator().manual_seed(1)) < torch.sigmoid(z)).long()
    if task == "binary":
        z, y = z[:, :1], y[:, 0]
    p = 1 / (1 + np.exp(-z.numpy().ravel()))
    expected = oracle(np.stack([1 - p, p], 1), y.numpy().ravel(), closed=closed, positive=confidence == "positive")
    expected["brier"] /= 2
    spec = Spec(task=task, closed=closed, confidence=confidence, input=source)
    scores = z if source == "logits" else torch.from_numpy(p).view_as(z)
    check(read(calibration_sums(scores, y, spec)), expected)


def test_more_rows_than_one_chunk():
    logits, target = example(n=50_000, k=3)
    check(read(calibration_sums(logits, target, Spec())), oracle(softmax(logits), target))


def test_functions_return_what_the_sums_say():
    logits, target = example()
    expected = read(calibration_sums(logits, target, Spec(num_bins=12, closed="left")))
    options = {"num_bins": 12, "closed": "left"}
    given = {
        "ece": calibration_error(logits, target, **options),
        "rmsce": calibration_error(logits, target, norm="l2", **options),
        "mce": calibration_error(logits, target, norm="max", **options),
        "gap": calibration_gap(logits, target),
        "over": overconfidence_error(logits, target, **options),
        "under": underconfidence_error(logits, target, **options),
        "acc": accuracy(logits, target),
        "nll": negative_log_likelihood(logits, target),
        "brier": brier_score(logits, target),
    }
    for name, value in given.items():
        assert value.dtype == torch.float64
        assert value.shape == ()
        assert not value.requires_grad
        assert float(value) == pytest.approx(expected[name], abs=1e-15), name


def test_no_graph_is_kept():
    logits, target = example()
    assert not calibration_error(logits.requires_grad_(), target).requires_grad


# judges


@pytest.mark.parametrize("num_bins", [5, 10, 15])
def test_against_netcal(num_bins):
    logits, target = example(n=1000, k=6)
    probs = softmax(logits)
    ours = {
        norm: calibration_error(logits, target, norm=norm, closed="left", num_bins=num_bins).item()
        for norm in ("l1", "max")
    }
    assert ours["l1"] == pytest.approx(netcal.metrics.ECE(num_bins).measure(probs, target.numpy()), abs=1e-9)
    assert ours["max"] == pytest.approx(netcal.metrics.MCE(num_bins).measure(probs, target.numpy()), abs=1e-9)


def test_against_netcal_binary():
    p = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y = (torch.rand(500, generator=torch.Generator().manual_seed(4)) < p**2).long()
    ours = calibration_error(p, y, task="binary", input="probs", closed="left", confidence="positive")
    assert ours.item() == pytest.approx(netcal.metrics.ECE(15).measure(p.numpy(), y.numpy()), abs=1e-9)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_against_torchmetrics(norm):
    logits, target = example(n=1000, k=6, dtype=torch.float64)
    theirs = tm.multiclass_calibration_error(logits.softmax(-1), target, num_classes=6, n_bins=15, norm=norm)
    ours = calibration_error(logits, target, norm=norm, closed="left")
    # torchmetrics sums in float32
    assert_close(ours, theirs.double(), atol=1e-6, rtol=0)
    p, y = logits[:, 0].sigmoid(), (target == 0).long()
    theirs = tm.binary_calibration_error(p, y, n_bins=15, norm=norm)
    ours = calibration_error(p, y, task="binary", input="probs", norm=norm, closed="left", confidence="positive")
    assert_close(ours, theirs.double(), atol=1e-6, rtol=0)


def test_against_sklearn():
    logits, target = example(n=500, k=4, dtype=torch.float64)
    probs, labels = softmax(logits), target.numpy()
    classes = list(range(4))
    assert accuracy(logits, target).item() == sklearn.metrics.accuracy_score(labels, probs.argmax(1))
    nll = sklearn.metrics.log_loss(labels, probs, labels=classes)
    assert negative_log_likelihood(logits, target).item() == pytest.approx(nll, abs=1e-9)
    brier = sklearn.metrics.brier_score_loss(labels, probs, labels=classes, scale_by_half=False)
    assert brier_score(logits, target).item() == pytest.approx(brier, abs=1e-9)
    z, y = logits[:, 0], (target == 0).long()
    p = z.sigmoid().numpy()
    assert brier_score(z, y, task="binary").item() == pytest.approx(
        sklearn.metrics.brier_score_loss(y.numpy(), p), abs=1e-9
    )
    assert negative_log_likelihood(z, y, task="binary").item() == pytest.approx(
        sklearn.metrics.log_loss(y.numpy(), p), abs=1e-9
    )
    assert accuracy(z, y, task="binary").item() == sklearn.metrics.accuracy_score(y.numpy(), p > 0.5)


@pytest.mark.parametrize("k", [2, 63, 64, 255, 256, 257, 287, 288, 1000])
def test_of_equals_the_first_class_is_predicted(k):
    logits = torch.randint(0, 3, (60, k), generator=torch.Generator().manual_seed(k)).float()
    logits[:20, : k // 2] = -torch.inf
    logits[20:25, :-1] = -torch.inf
    first = torch.from_numpy(logits.numpy().argmax(1))
    assert accuracy(logits, first).item() == 1
    last = k - 1 - torch.from_numpy(logits.flip(1).numpy().argmax(1))
    assert accuracy(logits, last).item() == (first == last).double().mean().item()


# identities


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(1, 120),
    st.integers(2, 12),
    st.sampled_from([0.3, 2.0, 20.0]),
    st.integers(1, 30),
)
def test_identities(seed, n, k, scale, num_bins):
    logits, target = example(n, k, scale, seed)
    sums = calibration_sums(logits, target, Spec(num_bins=num_bins))
    value, bins = read(sums), measures.reliability_bins(sums)
    gaps = (bins.counts / n * (bins.confidence - bins.accuracy)).nan_to_num()
    over, under = gaps.clamp(min=0).sum().item(), -gaps.clamp(max=0).sum().item()
    assert over + under == pytest.approx(value["ece"], abs=1e-12)
    assert over - under == pytest.approx(value["gap"], abs=1e-12)
    assert abs(value["gap"]) <= value["ece"] + 1e-12
    assert value["ece"] <= value["rmsce"] + 1e-12 <= value["mce"] + 2e-12
    assert value["over"] <= over + 1e-12
    assert value["under"] <= under + 1e-12
    probs = softmax(logits)
    p, right = probs.max(1), probs.argmax(1) == target.numpy()
    wrong_part, right_part = p[~right].sum() / n, (1 - p[right]).sum() / n
    assert value["gap"] == pytest.approx(wrong_part - right_part, abs=1e-9)
    residuals = read_sums(sums)[0].squared_residuals.sum().item()
    assert residuals / n == pytest.approx(((p - right) ** 2).mean(), abs=1e-9)


def test_binary_is_two_classes_of_zero_and_z():
    z, y = torch.randn(300, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 2
    two = read(calibration_sums(torch.stack([torch.zeros(300), z], 1), y, Spec()))
    one = read(calibration_sums(z, y, Spec(task="binary")))
    check(one, {**two, "brier": two["brier"] / 2})


def test_every_label_of_multilabel_is_a_sample():
    z, y = torch.randn(20, 3, 2), torch.randint(0, 2, (20, 3, 2))
    many = calibration_sums(z, y, Spec(task="multilabel"))
    assert torch.equal(many, calibration_sums(z.flatten(), y.flatten(), Spec(task="binary")))
    assert measures.num_samples(many) == 120


def test_positions_of_dense_logits_are_samples():
    logits, target = torch.randn(4, 5, 3, 2), torch.randint(0, 5, (4, 3, 2))
    rows = logits.permute(0, 2, 3, 1).reshape(-1, 5)
    dense = calibration_sums(logits, target, Spec(num_classes=5))
    assert torch.equal(dense, calibration_sums(rows, target.flatten(), Spec()))


# the same bits, however the samples arrive


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_split_and_order_gives_the_same_bits(data):
    n, k = data.draw(st.integers(1, 80)), data.draw(st.sampled_from([2, 3, 10, 17, 257]))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    source = data.draw(st.sampled_from(["logits", "probs"]))
    logits, target = example(n, k, 3.0, data.draw(st.integers(0, 10**6)), dtype)
    if source == "probs":
        logits = logits.softmax(-1)
    spec = Spec(num_bins=data.draw(st.integers(1, 20)), input=source)
    whole = calibration_sums(logits, target, spec)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=8)))
    total, plain = empty_sums(spec.num_bins), empty_sums(spec.num_bins)
    for low, high in zip([0, *cuts], [*cuts, n], strict=True):
        batch = calibration_sums(logits[order[low:high]], target[order[low:high]], spec)
        total, plain = add_sums(total, batch), plain + batch
    assert torch.equal(total, whole)
    assert read(plain) == read(whole)


@pytest.mark.parametrize("k", [2, 9, 1000])
def test_memory_layout_and_threads_do_not_change_a_bit(k):
    logits, target = example(100, k)
    expected = calibration_sums(logits, target, Spec())
    assert torch.equal(calibration_sums(logits.t().contiguous().t(), target, Spec()), expected)
    assert torch.equal(calibration_sums(torch.cat([logits, logits], 1)[:, :k], target, Spec()), expected)
    dense = logits.view(10, 10, k).movedim(-1, 1)
    assert torch.equal(calibration_sums(dense.contiguous(), target.view(10, 10), Spec()), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert torch.equal(calibration_sums(logits, target, Spec()), expected)
    finally:
        torch.set_num_threads(threads)


def test_one_row_of_many_classes_is_the_same_alone():
    # torch splits the sum of a single long row over threads; of several rows it does not.
    logits, target = example(4, 70_000)
    whole = calibration_sums(logits, target, Spec())
    total = empty_sums(15)
    for i in range(4):
        total = add_sums(total, calibration_sums(logits[i : i + 1], target[i : i + 1], Spec()))
    assert torch.equal(total, whole)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.randoms(use_true_random=False))
def test_exact_sum_does_not_depend_on_order(values, random):
    shuffled = random.sample(values, len(values))
    one, other = (exact_sum(torch.tensor(v, dtype=torch.float64)) for v in (values, shuffled))
    assert torch.equal(one, other)
    assert one.item() == pytest.approx(math.fsum(values), abs=1e-10)


# large numbers


def test_values_hold_at_two_to_the_forty_samples():
    logits, target = example(n=777, scale=0.5)
    sums = once = calibration_sums(logits, target, Spec())
    for _ in range(40):
        sums = add_sums(sums, sums)
    exact = [[int(whole) * 2**32 + int(rest) for whole, rest in row] for row in once.tolist()]
    grown = [[int(whole) * 2**32 + int(rest) for whole, rest in row] for row in sums.tolist()]
    assert grown == [[value * 2**40 for value in row] for row in exact]
    assert (sums[..., 1] >= 0).all()
    assert (sums[..., 1] < 2**32).all()
    assert measures.num_samples(sums) == 777 * 2**40
    check(read(sums), read(once), atol=1e-14)


def test_huge_but_finite_losses():
    logits = torch.tensor([[0.0, 1e9], [0.0, 2e9], [0.0, 3.0]], dtype=torch.float64)
    sums = calibration_sums(logits, torch.tensor([0, 0, 1]), Spec())
    assert read(sums)["nll"] == pytest.approx((1e9 + 2e9 + math.log1p(math.exp(-3))) / 3, rel=1e-12)
    for _ in range(30):
        sums = add_sums(sums, sums)
    assert read(sums)["nll"] == pytest.approx(1e9, rel=1e-3)


@pytest.mark.parametrize("largest", [1e12, torch.finfo(torch.float32).max])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_beyond_the_accumulator_are_infinite_not_garbage(dtype, largest):
    logits = torch.tensor([[-largest, largest], [0.0, 1.0]], dtype=dtype)
    value = read(calibration_sums(logits, torch.tensor([0, 1]), Spec()))
    assert value["nll"] == math.inf
    assert value["acc"] == 0.5
    assert value["brier"] == pytest.approx((2 + 2 / (1 + math.e) ** 2) / 2, abs=1e-9)


# samples that do not count


def test_masked_classes():
    logits, target = example(n=50, k=4)
    masked = torch.cat([logits, torch.full((50, 2), -torch.inf)], 1)
    check(read(calibration_sums(masked, target, Spec())), read(calibration_sums(logits, target, Spec())))
    target = target.clone()
    target[3] = 5
    value = read(calibration_sums(masked, target, Spec()))
    assert value["nll"] == math.inf
    assert all(math.isfinite(v) for name, v in value.items() if name != "nll")


def test_sure_and_wrong_probability_has_infinite_loss():
    value = read(calibration_sums(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), Spec(input="probs")))
    assert value["nll"] == math.inf
    assert value["brier"] == 2
    assert value["entropy"] == 0


def test_infinite_binary_logits_are_sure_answers():
    z, y = torch.tensor([torch.inf, -torch.inf]), torch.tensor([1, 0])
    value = read(calibration_sums(z, y, Spec(task="binary")))
    assert (value["acc"], value["nll"], value["ece"], value["brier"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("target_dtype", [torch.int64, torch.int32, torch.int16])
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 255])
def test_ignored_samples_are_not_counted(ignore_index, target_dtype):
    logits, target = example(n=60, k=4)
    ignored = torch.arange(60) % 3 == 0
    if ignore_index == 0:
        ignored |= target == 0
    target = torch.where(ignored, ignore_index, target).to(target_dtype)
    logits[ignored] = torch.nan
    given = calibration_sums(logits, target, Spec(ignore_index=ignore_index))
    expected = calibration_sums(logits[~ignored], target[~ignored], Spec(ignore_index=None))
    assert torch.equal(given, expected)


def test_ignoring_in_binary_with_float_targets():
    z, y = torch.tensor([0.3, -2.0, torch.nan]), torch.tensor([1.0, 0.0, -100.0])
    given = calibration_sums(z, y, Spec(task="binary"))
    assert torch.equal(given, calibration_sums(z[:2], y[:2].bool(), Spec(task="binary")))


def test_uint8_targets():
    logits, target = example(n=300, k=200)
    bytes_ = target.to(torch.uint8)
    bytes_[0], bytes_[1] = 255, 156
    logits[0] = torch.nan
    sums = calibration_sums(logits, bytes_, Spec(ignore_index=255))
    assert measures.num_samples(sums) == 299
    assert measures.num_samples(calibration_sums(logits[1:], bytes_[1:], Spec())) == 299


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_a_sample_that_is_no_number_raises_when_read(task, bad):
    if task != "multiclass" and bad == torch.inf:
        bad = torch.nan
    logits = torch.zeros(6, 2) if task != "binary" else torch.zeros(6)
    target = torch.zeros(6, 2).long() if task == "multilabel" else torch.zeros(6).long()
    logits.view(-1)[3] = bad
    sums = calibration_sums(logits, target, Spec(task=task))
    with pytest.raises(ValueError, match=r"^1 of (6|12) samples cannot be measured: logits must not be NaN"):
        measures.accuracy(sums)
    with pytest.raises(ValueError, match="cannot be measured"):
        calibration_error(logits, target, task=task)


def test_a_row_without_any_class_left_raises():
    logits = torch.tensor([[-torch.inf, -torch.inf], [0.0, 1.0]])
    with pytest.raises(ValueError, match="1 of 2 samples cannot be measured"):
        accuracy(logits, torch.tensor([0, 1]))


@pytest.mark.parametrize("wrong", [-1, 3, 10**12])
def test_a_target_out_of_range_raises_when_read(wrong):
    with pytest.raises(ValueError, match=r"^1 of 2 targets are out of range"):
        accuracy(torch.zeros(2, 3), torch.tensor([0, wrong]))


@pytest.mark.parametrize("wrong", [2.0, 0.5, -1.0, torch.nan])
def test_a_binary_target_other_than_0_and_1_raises(wrong):
    with pytest.raises(ValueError, match="1 of 2 targets are out of range"):
        accuracy(torch.zeros(2), torch.tensor([0.0, wrong]), task="binary")


@pytest.mark.parametrize("row", [[2.0, -1.0], [0.2, 0.2], [1.2, 0.0], [torch.nan, 1.0], [-0.2, 1.2], [torch.inf, 0.0]])
def test_rows_that_are_no_probabilities_raise(row):
    probs = torch.tensor([[0.4, 0.6], row])
    with pytest.raises(ValueError, match=r"1 of 2 samples cannot be measured: .*input='probs'.*sum to 1"):
        calibration_error(probs, torch.tensor([0, 1]), input="probs")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounded_probabilities_are_probabilities(dtype):
    logits, target = example(n=500, k=300, scale=4.0)
    probs = logits.softmax(-1)
    probs[0] = 0
    probs[0, 1] = 1.0000001
    value = read(calibration_sums(probs.to(dtype), target, Spec(input="probs")))
    assert 0 <= value["ece"] <= 1
    assert value["brier"] == pytest.approx(
        read(calibration_sums(probs, target, Spec(input="probs")))["brier"], abs=0.01
    )


def test_input_is_never_guessed():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    as_logits = calibration_gap(scores, torch.tensor([0, 1]), input="logits").item()
    assert as_logits == pytest.approx(softmax(scores).max(1).mean() - 1, abs=1e-9)
    assert calibration_gap(scores, torch.tensor([0, 1]), input="probs").item() == pytest.approx(-0.15, abs=1e-7)


@pytest.mark.parametrize("rows", ["none", "ignored"])
def test_no_samples_give_nan(rows):
    n = 0 if rows == "none" else 3
    value = read(calibration_sums(torch.zeros(n, 4), torch.full((n,), -100), Spec()))
    assert all(math.isnan(v) for v in value.values())


# no surprises while training


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_summing_never_looks_at_a_value(task, monkeypatch):
    """Fake tensors have none: .item(), boolean indexing and nonzero raise."""
    monkeypatch.setattr(waiting, "READY", frozenset())  # as on a GPU
    with FakeTensorMode():
        logits = torch.zeros(8, 4) if task != "binary" else torch.zeros(8)
        target = torch.zeros(8, 4).long() if task == "multilabel" else torch.zeros(8).long()
        sums = calibration_sums(logits, target, Spec(task=task))
        assert add_sums(sums, sums).shape == (16, 8, 2)


def test_autocast_does_not_touch_the_arithmetic():
    logits, target = example()
    expected = calibration_sums(logits, target, Spec())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(calibration_sums(logits, target, Spec()), expected)


# arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "regression"}, ValueError, "task must be one of 'multiclass', 'binary', 'multilabel'"),
        ({"closed": "both"}, ValueError, "closed must be one of 'right', 'left', got 'both'"),
        ({"input": "auto"}, ValueError, "input must be one of 'logits', 'probs'"),
        ({"confidence": "max"}, ValueError, "confidence must be one of 'top', 'positive'"),
        ({"confidence": "positive"}, ValueError, "needs task='binary' or 'multilabel'"),
        ({"num_bins": 0}, ValueError, "num_bins must be at least 1, got 0"),
        ({"num_bins": True}, TypeError, "num_bins must be an int, got True"),
        ({"num_bins": 10.0}, TypeError, "num_bins must be an int, got 10.0"),
        ({"num_classes": 1}, ValueError, "num_classes of task='multiclass' must be at least 2, got 1"),
        ({"num_classes": "3"}, TypeError, "num_classes must be an int or None, got '3'"),
        ({"num_classes": 3, "task": "binary"}, ValueError, "must be None, 1 or 2, got 3"),
        ({"num_classes": 0, "task": "multilabel"}, ValueError, "must be at least 1, got 0"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be an int or None, got 0.5"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, error, message):
    with pytest.raises(error, match=message) as caught:
        calibration_error(torch.zeros(2, 2), torch.zeros(2).long(), **options)
    assert "\n" not in str(caught.value)


def test_a_wrong_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be one of 'l1', 'l2', 'max', got 'l3'"):
        calibration_error(torch.zeros(2, 2), torch.zeros(2).long(), norm="l3")


@pytest.mark.parametrize(
    ("task", "logits", "target", "message"),
    [
        ("multiclass", (4,), (4,), r"\(N, K, ...\) with K >= 2, got logits \(4,\) and target \(4,\)"),
        ("multiclass", (4, 1), (4,), "task='binary'"),
        (
            "multiclass",
            (4, 3),
            (3,),
            r"one class index a sample, \(4,\), got logits \(4, 3\) and target \(3,\)",
        ),
        ("multiclass", (4, 3), (4, 3), r"got logits \(4, 3\) and target \(4, 3\)"),
        ("multiclass", (4, 3, 5, 5), (4, 5), r"\(4, 5, 5\), got logits \(4, 3, 5, 5\) and target \(4, 5\)"),
        ("binary", (4, 2), (4,), r"got logits \(4, 2\) and target \(4,\). Two scores .* task='multiclass'"),
        ("binary", (), (), "binary logits must be"),
        ("multilabel", (4, 2), (4,), r"0/1 target of that shape, got logits \(4, 2\) and target \(4,\)"),
        ("multilabel", (4,), (4,), "multilabel logits must be"),
    ],
)
def test_shapes_that_do_not_fit(task, logits, target, message):
    with pytest.raises(ValueError, match=message) as caught:
        accuracy(torch.zeros(logits), torch.zeros(target).long(), task=task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("logits", "target"), [((4,), (4, 1)), ((4, 1), (4,)), ((4, 1, 2), (4, 2)), ((1,), (1, 1))])
def test_a_binary_column_may_be_left_out(logits, target):
    assert accuracy(torch.ones(logits), torch.ones(target), task="binary").item() == 1


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_num_classes_is_checked(task):
    target = torch.zeros(4, 3).long() if task == "multilabel" else torch.zeros(4).long()
    assert accuracy(torch.zeros(4, 3), target, task=task, num_classes=3).item() == 1
    with pytest.raises(ValueError, match=r"num_classes=5, but there are logits \(4, 3\)"):
        accuracy(torch.zeros(4, 3), target, task=task, num_classes=5)


def test_dtypes_that_do_not_fit():
    with pytest.raises(TypeError, match=r"logits must be floating point, got torch.int64, shape \(2, 2\)"):
        accuracy(torch.zeros(2, 2).long(), torch.zeros(2).long())
    with pytest.raises(TypeError, match=r"class indices, got torch.float32: pass target.long\(\)"):
        accuracy(torch.zeros(2, 2), torch.zeros(2))


def test_the_entropy_is_summed_up_only_if_asked():
    batch = example()
    plain, asked = (read(calibration_sums(*batch, PlainSpec(entropy=entropy))) for entropy in (False, True))
    assert math.isnan(plain.pop("entropy"))
    assert asked.pop("entropy") > 0
    assert plain == asked
