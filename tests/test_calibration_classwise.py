import math
import tracemalloc

import netcal.metrics
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from ls_lightning.functional import calibration_error, classwise_calibration, classwise_calibration_error
from ls_lightning.functional.classwise import LARGEST, classwise_sums, empty_classwise_sums, read_classwise
from ls_lightning.functional.outputs import Spec
from ls_lightning.metrics import ClasswiseCalibrationError


def example(n, k, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * 3
    target = (logits / 3 + generator.normal(size=(n, k))).argmax(1)
    return torch.from_numpy(logits.astype(dtype)), torch.from_numpy(target)


def softmax(logits):
    e = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def one_class(p, y, num_bins, closed):
    """ECE of one class from the definition, sample by sample."""
    sums = np.zeros((num_bins, 2))
    for value, hit in zip(p, y, strict=True):
        place = math.ceil(value * num_bins) - 1 if closed == "right" else math.floor(value * num_bins)
        sums[min(max(place, 0), num_bins - 1)] += value, hit
    return abs(sums[:, 0] - sums[:, 1]).sum() / len(p)


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("num_bins", [1, 4, 15, 60])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_against_a_loop_over_classes(k, num_bins, closed):
    logits, target = example(150, k, seed=k)
    probs = softmax(logits)
    errors = [one_class(probs[:, c], target.numpy() == c, num_bins, closed) for c in range(k)]
    options = {"num_bins": num_bins, "closed": closed}
    given_ = classwise_calibration(logits, target, **options)
    np.testing.assert_allclose(given_.error, errors, atol=1e-9, rtol=0)
    np.testing.assert_allclose(given_.confidence, probs.mean(0), atol=1e-9, rtol=0)
    np.testing.assert_allclose(given_.frequency, np.bincount(target, minlength=k) / 150, atol=0, rtol=0)
    np.testing.assert_allclose(given_.gap, given_.confidence - given_.frequency, atol=1e-15, rtol=0)
    assert given_.counts.tolist() == [150] * k
    mean = classwise_calibration_error(logits, target, **options)
    assert mean.item() == pytest.approx(np.mean(errors), abs=1e-9)


@pytest.mark.parametrize("k", [3, 20])
def test_against_netcal(k):
    """Which bins on the left; its class-wise error of a class is the binary ECE of its probability."""
    logits, target = example(400, k)
    probs = softmax(logits)
    theirs = [netcal.metrics.ECE(10).measure(probs[:, c], (target.numpy() == c).astype(int)) for c in range(k)]
    ours = classwise_calibration(logits, target, num_bins=10, closed="left")
    np.testing.assert_allclose(ours.error, theirs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("num_bins", [1, 2, 15])
@pytest.mark.parametrize("closed", ["right", "left"])
def test_a_thousand_classes_are_those_of_every_entry(num_bins, closed):
    """Here only the largest probabilities are put in bins; the binary form of each class puts all of them."""
    logits, target = example(300, 1000)
    given_ = classwise_calibration(logits, target, num_bins=num_bins, closed=closed)
    probs = torch.from_numpy(softmax(logits))
    hits = torch.nn.functional.one_hot(target, 1000)
    each = classwise_calibration(probs, hits, task="multilabel", input="probs", num_bins=num_bins, closed=closed)
    assert_close(given_.error, each.error, atol=1e-9, rtol=0)
    assert_close(given_.frequency, each.frequency, atol=0, rtol=0)


@pytest.mark.parametrize("num_bins", [2, 5, 10])
@pytest.mark.parametrize("closed", ["right", "left"])
def test_as_many_classes_on_an_edge_as_there_can_be(num_bins, closed):
    probs = torch.zeros(4, 100, dtype=torch.float64)
    probs[:, :num_bins] = 1 / num_bins
    target = torch.arange(4) % 2
    sums = classwise_sums(probs, target, Spec(num_bins=num_bins, closed=closed, input="probs"))
    place = 0 if closed == "right" or num_bins == 1 else 1
    assert (sums[:num_bins, place, 0] == 4).all()
    assert (sums[:-1, :, 0].sum(1) == 4).all()


def test_binary_and_multilabel():
    z = example(200, 3)[0]
    y = (torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) < z.sigmoid()).long()
    y[:7, 1] = -100
    given_ = classwise_calibration(z, y, task="multilabel")
    for label in range(3):
        expected = calibration_error(z[:, label], y[:, label], task="binary", confidence="positive")
        assert given_.error[label].item() == pytest.approx(expected.item(), abs=1e-9)
        one = classwise_calibration_error(z[:, label : label + 1], y[:, label], task="binary")
        assert one.item() == pytest.approx(expected.item(), abs=1e-9)
    assert given_.counts.tolist() == [200, 193, 200]


def test_dense_labels_stay_with_their_label():
    z = example(60, 6)[0].view(20, 3, 3, 2)
    y = (z > 0.3).long()
    rows = z.permute(0, 2, 3, 1).reshape(-1, 3), y.permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(
        classwise_sums(z, y, Spec("multilabel")), classwise_sums(*rows, Spec("multilabel", num_classes=3))
    )
    target = torch.arange(120).view(20, 3, 2) % 3
    dense = classwise_sums(z, target, Spec())
    assert torch.equal(dense, classwise_sums(rows[0], target.flatten(), Spec()))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_split_and_order_gives_the_same_bits(data):
    n, k = data.draw(st.integers(1, 60)), data.draw(st.sampled_from([2, 17, 300]))
    logits, target = example(n, k, data.draw(st.integers(0, 10**6)), np.float32)
    spec = Spec(num_bins=data.draw(st.integers(1, 20)))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=6)))
    total = empty_classwise_sums(k, spec.num_bins)
    for low, high in zip([0, *cuts], [*cuts, n], strict=True):
        total += classwise_sums(logits[order[low:high]], target[order[low:high]], spec)
    assert torch.equal(total, classwise_sums(logits, target, spec))


def test_an_absent_class_counts_with_the_probability_it_is_given():
    given_ = classwise_calibration(torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([0]), input="probs")
    assert_close(given_.error, torch.tensor([0.4, 0.4, 0.0], dtype=torch.float64), atol=1e-7, rtol=0)
    labels = torch.tensor([[1, -100]])
    given_ = classwise_calibration(torch.tensor([[0.6, 0.4]]), labels, task="multilabel", input="probs")
    assert given_.error[1].isnan()
    error = classwise_calibration_error(torch.tensor([[0.6, 0.4]]), labels, task="multilabel", input="probs")
    assert error.item() == pytest.approx(0.4, abs=1e-7)


def test_a_state_that_is_too_large_is_refused_before_it_is_there():
    message = r"num_classes \* num_bins of at most 524,288, got 50,000 \* 15 = 750,000, a state of 18.0 MB.*fewer bins"
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        ClasswiseCalibrationError(num_classes=50_000)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
    with pytest.raises(ValueError, match=message):
        classwise_calibration_error(torch.zeros(1, 50_000), torch.tensor([0]))
    assert ClasswiseCalibrationError(num_classes=LARGEST // 8, num_bins=8).sums.numel() * 8 < 14e6


def test_the_number_of_classes_is_needed():
    with pytest.raises(ValueError, match="class-wise sums of task='multilabel' need num_classes, got None"):
        ClasswiseCalibrationError(task="multilabel")


def test_a_thousand_classes_take_a_third_of_a_megabyte():
    metric = ClasswiseCalibrationError(num_classes=1000)
    logits, target = example(30, 1000)
    for rows in torch.arange(30).split(7):
        metric.update(logits[rows], target[rows])
    assert metric.sums.numel() * 8 == 1001 * 15 * 3 * 8
    assert metric.compute().item() == classwise_calibration_error(logits, target).item()
    assert_close(tuple(metric.per_class()), tuple(classwise_calibration(logits, target)), atol=0, rtol=0)


def test_values_hold_at_two_to_the_thirty_samples():
    sums = classwise_sums(*example(777, 30), Spec())
    once, grown = read_classwise(sums), read_classwise(sums * 2**20)
    assert_close(grown.error, once.error, atol=1e-14, rtol=0)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_summing_never_looks_at_a_value(task):
    with FakeTensorMode():
        logits = torch.zeros(8, 40) if task != "binary" else torch.zeros(8)
        target = torch.zeros(8, 40).long() if task == "multilabel" else torch.zeros(8).long()
        assert classwise_sums(logits, target, Spec(task=task)).shape == (2 if task == "binary" else 41, 15, 3)
