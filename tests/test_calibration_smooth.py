import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from ls_lightning.functional import smooth_calibration_error, waiting
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.smooth import empty_smooth_sums, read_smooth, smooth_sums
from ls_lightning.metrics import SmoothCalibrationError

BINARY = {"task": "binary", "input": "probs", "confidence": "positive"}


def example(n, seed=0, power=2.0):
    generator = np.random.default_rng(seed)
    p = generator.random(n)
    return p, (generator.random(n) < p**power).astype(int)


def smooth(p, y, **options):
    return smooth_calibration_error(torch.from_numpy(p), torch.from_numpy(y), **BINARY, **options).item()


def integral(p, y, width, points):
    """The smoothed residuals on a dense grid, kernel by kernel with its reflections, and their integral."""
    t = np.linspace(0, 1, points)
    value = np.zeros(points)
    for place, residual in zip(p, p - y, strict=True):
        for shift in range(-4, 5):
            for image in (place + 2 * shift, -place + 2 * shift):
                value += residual / len(p) * np.exp(-(((t - image) / width) ** 2) / 2)
    return np.trapezoid(abs(value), t) / (width * np.sqrt(2 * np.pi))


def judged(p, y, points=8001):
    low, high = 0.0, 1.0
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (middle, high) if integral(p, y, middle, points) > middle else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize(("n", "power"), [(1, 1), (3, 2), (15, 0.5), (40, 1)])
def test_against_dense_integration(n, power):
    p, y = example(n, n, power)
    # The trapezoids of the judge are off by the square of their width.
    assert smooth(p, y) == pytest.approx(judged(p, y), abs=2e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_against_denser_integration(seed):
    p, y = example(40, seed, 1.3)
    if seed % 2:
        p[:8], p[8:10] = 1, 0
    assert smooth(p, y) == pytest.approx(judged(p, y, 60_001), abs=1e-9)


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_mass_on_an_end_counts_in_full(sure):
    """A model that is always sure and wrong once in twenty is off by .05, by any width of the kernel."""
    p, y = np.full(100, sure), np.full(100, int(sure))
    y[:5] = 1 - y[:5]
    assert smooth(p, y) == pytest.approx(0.05, abs=1e-9)


def test_one_place_has_the_error_that_it_has():
    p = np.full(40, 0.8)
    y = np.arange(40) % 2
    assert smooth(p, y) == pytest.approx(0.3, abs=1e-9)


def test_a_calibrated_model_is_near_0_and_a_perfect_one_at_0():
    assert smooth(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 1])) < 1e-12
    p, y = example(100_000, power=1)
    assert smooth(p, y) < 0.01


def test_against_relplot():
    relplot = pytest.importorskip("relplot")
    p, y = example(3000)
    p = 0.2 + 0.6 * p  # away from the ends
    # It rounds to a grid of about a thousandth.
    assert smooth(p, y) == pytest.approx(relplot.smECE(p, y), abs=1e-3)


def test_several_classes_and_top_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 4, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(4, (300,), generator=generator)
    probs = logits.softmax(1)
    hit = (probs.argmax(1) == target).long()
    expected = smooth_calibration_error(probs.amax(1), hit, **BINARY)
    assert smooth_calibration_error(logits, target).item() == pytest.approx(expected.item(), abs=1e-9)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_any_split_and_order_gives_the_same_bits(data):
    n = data.draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    logits, target = torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=6)))
    total = empty_smooth_sums()
    for low, high in zip([0, *cuts], [*cuts, n], strict=True):
        total += smooth_sums(logits[order[low:high]], target[order[low:high]], Spec(num_bins=1))
    assert torch.equal(total, smooth_sums(logits, target, Spec(num_bins=1)))
    assert read_smooth(total * 2**20).item() == pytest.approx(read_smooth(total).item(), abs=1e-12)


def test_batches_add_up_to_the_function():
    p, y = (torch.from_numpy(v) for v in example(100))
    metric = SmoothCalibrationError(**BINARY)
    for rows in torch.arange(100).split(13):
        metric.update(p[rows], y[rows])
    assert metric.compute().item() == smooth_calibration_error(p, y, **BINARY).item()


def test_summing_never_looks_at_a_value(monkeypatch):
    monkeypatch.setattr(waiting, "READY", frozenset())  # as on a GPU
    with FakeTensorMode():
        assert smooth_sums(torch.zeros(8, 4), torch.zeros(8).long(), Spec(num_bins=1)).dtype == torch.int64
