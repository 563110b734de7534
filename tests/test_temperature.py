"""The fit of one temperature, against scipy, scikit-learn and torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch.nn import functional as F

from ls_lightning.functional import fit_temperature
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.temperature import fit_rows


def drawn(n, classes, scale, seed=0):
    """Logits that are ``scale`` times as sure as they should be."""
    generator = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    y = torch.multinomial(z.softmax(1), 1, generator=generator).squeeze(1)
    return z * scale, y


def binary(n, scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, generator=generator, dtype=torch.float64)
    y = (torch.rand(n, generator=generator, dtype=torch.float64) < z.sigmoid()).long()
    return z * scale, y


def minimised(nll):
    """scipy's answer: temperature and NLL. Its minimum is as flat as rounding makes it, about 1e-8."""
    found = minimize_scalar(lambda u: nll(math.exp(u)), bounds=(-4.5, 4.5), method="bounded", options={"xatol": 1e-12})
    return math.exp(-found.x), found.fun


def class_nll(z, y):
    z, y = z.double().numpy(), y.numpy()
    own = z[np.arange(len(y)), y]
    return lambda beta: (logsumexp(beta * z, axis=1) - beta * own).mean()


def sign_nll(z, y):
    margins = ((2 * y - 1) * z.double()).numpy()
    return lambda beta: np.logaddexp(0, -beta * margins).mean()


@pytest.mark.parametrize("scale", [0.1, 0.7, 1.0, 3.0, 15.0])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (500, 3), (2000, 10), (400, 200)])
def test_against_scipy(n, classes, scale):
    z, y = drawn(n, classes, scale)
    fit = fit_temperature(z, y)
    temperature, nll = minimised(class_nll(z, y))
    assert fit.temperature == pytest.approx(temperature, rel=1e-6)
    assert fit.nll_after == pytest.approx(nll, abs=1e-10)
    assert fit.nll_before == pytest.approx(F.cross_entropy(z, y).item(), abs=1e-9)
    assert (fit.n, fit.at_boundary) == (n, False)


@pytest.mark.parametrize(("n", "classes", "scale"), [(300, 2, 2.0), (800, 5, 0.3), (1000, 10, 4.0)])
def test_against_scikit_learn(n, classes, scale):
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("scikit-learn before 1.8 has no temperature scaling")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.frozen import FrozenEstimator

    class Linear(ClassifierMixin, BaseEstimator):
        """A fitted classifier whose scores are its inputs."""

        classes_ = np.arange(classes)

        def __sklearn_is_fitted__(self):
            return True

        def fit(self, x, y):
            return self

        def predict(self, x):
            return x.argmax(1)

        def decision_function(self, x):
            return x[:, 1] - x[:, 0] if classes == 2 else x

    z, y = drawn(n, classes, scale)
    judge = calibration.CalibratedClassifierCV(FrozenEstimator(Linear()), method="temperature", ensemble=False)
    judge.fit(z.numpy(), y.numpy())
    theirs = judge.predict_proba(z.numpy())
    fit = fit_temperature(z, y)
    np.testing.assert_allclose((z / fit.temperature).softmax(1).numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("shape", [(600,), (600, 1), (120, 5), (40, 3, 5)])
def test_binary_and_multilabel(shape, scale):
    z, y = binary(600, scale)
    task = "binary" if len(shape) == 1 or shape[1] == 1 else "multilabel"
    fit = fit_temperature(z.view(shape), y.view(shape), task=task)
    temperature, nll = minimised(sign_nll(z, y))
    assert fit.temperature == pytest.approx(temperature, rel=1e-6)
    assert fit.nll_after == pytest.approx(nll, abs=1e-10)
    assert fit.nll_before == pytest.approx(F.binary_cross_entropy_with_logits(z, y.double()).item(), abs=1e-9)
    assert fit_temperature(z, y, task="binary").temperature == fit.temperature
    pairs = torch.stack([torch.zeros_like(z), z], 1)
    assert fit_temperature(pairs, y).temperature == pytest.approx(fit.temperature, rel=1e-10)


def test_probabilities():
    z, y = binary(500, 2.0)
    fit = fit_temperature(z.sigmoid(), y, task="binary", input="probs")
    assert fit.temperature == pytest.approx(fit_temperature(z, y, task="binary").temperature, rel=1e-9)
    z, y = drawn(500, 4, 2.0)
    fit = fit_temperature(z.softmax(1), y, input="probs")
    assert fit.temperature == pytest.approx(fit_temperature(z, y).temperature, rel=1e-9)
    sure = torch.tensor([1.0, 1.0, 0.7, 0.7, 0.2])
    assert 0 < fit_temperature(sure, torch.tensor([1, 1, 1, 0, 0]), task="binary", input="probs").temperature < 100


def test_dense_with_ignored_pixels():
    z, y = drawn(6 * 4 * 5, 3, 2.5)
    maps, labels = z.view(6, 4, 5, 3).movedim(-1, 1), y.view(6, 4, 5).clone()
    labels[:, 0] = 255
    fit = fit_temperature(maps, labels, ignore_index=255)
    kept = (labels != 255).flatten()
    alone = fit_temperature(z[kept], y[kept])
    assert fit == alone
    assert fit.n == 6 * 3 * 5


def test_masked_classes():
    z, y = drawn(400, 4, 2.0)
    wide = torch.cat([z, torch.full((400, 2), -torch.inf, dtype=z.dtype)], 1)
    assert fit_temperature(wide, y).temperature == pytest.approx(fit_temperature(z, y).temperature, rel=1e-10)
    wrong = torch.cat([y[:399], torch.tensor([5])])  # of probability 0 at any temperature
    fit = fit_temperature(wide, wrong)
    assert fit.temperature == pytest.approx(fit_temperature(z[:399], y[:399]).temperature, rel=1e-10)
    assert fit.nll_before == fit.nll_after == math.inf
    assert fit.n == 400


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    z, y = drawn(300, 5, 2.0)
    z = z.to(dtype)
    assert fit_temperature(z, y) == fit_temperature(z.double(), y)


def test_all_correct_is_at_the_lower_end():
    z, y = torch.eye(4) * 3, torch.arange(4)
    fit = fit_temperature(z, y)
    assert (fit.temperature, fit.at_boundary) == (0.01, True)
    assert fit_temperature(z, y, bounds=(0.5, 2)).temperature == 0.5
    assert fit_temperature(z, y, bounds=(0.5, 2)).nll_after == pytest.approx(
        F.cross_entropy(z.double() / 0.5, y).item(), abs=1e-9
    )


def test_useless_logits_are_at_the_upper_end():
    fit = fit_temperature(torch.eye(4) * 3, (torch.arange(4) + 1) % 4)
    assert (fit.temperature, fit.at_boundary) == (100.0, True)
    assert fit.nll_after < fit.nll_before


@pytest.mark.parametrize("temperature", [0.02, 0.99, 1.01, 60.0])
def test_bounds_that_are_left_alone(temperature):
    z, y = drawn(2000, 6, 1.0)
    best = fit_temperature(z, y).temperature
    fit = fit_temperature(z * temperature / best, y)
    assert fit.temperature == pytest.approx(temperature, rel=1e-9)
    assert not fit.at_boundary
    outside = (2 * temperature, 3 * temperature)
    assert fit_temperature(z * temperature / best, y, bounds=outside).temperature == outside[0]


def test_logits_that_say_nothing_are_left_alone():
    fit = fit_temperature(torch.zeros(5, 3), torch.tensor([0, 1, 2, 0, 0]))
    assert (fit.temperature, fit.at_boundary) == (1.0, False)


def test_one_sample():
    assert fit_temperature(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).temperature == 0.01
    assert fit_temperature(torch.tensor([[2.0, 0.0]]), torch.tensor([1])).temperature == 100.0


def test_a_minimum_by_hand():
    """Three of four are right at one margin: sigmoid(4 / T) = 3/4."""
    fit = fit_temperature(torch.tensor([4.0, 4.0, 4.0, 4.0]), torch.tensor([1, 1, 1, 0]), task="binary")
    assert fit.temperature == pytest.approx(4 / math.log(3), rel=1e-10)


def test_nearly_separable():
    """One error among ten thousand, where the NLL is almost flat."""
    margins = torch.full((10_000,), 0.3, dtype=torch.float64)
    y = torch.ones(10_000, dtype=torch.long)
    y[0] = 0
    assert fit_temperature(margins, y, task="binary").temperature == pytest.approx(0.3 / math.log(9999), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20), st.integers(2, 6))
def test_scaling_the_logits_scales_the_temperature(seed, factor, classes):
    z, y = drawn(60, classes, 1.0, seed)
    one, other = fit_temperature(z, y), fit_temperature(factor * z, y)
    if not (one.at_boundary or other.at_boundary):
        assert other.temperature == pytest.approx(factor * one.temperature, rel=1e-8)
        assert other.nll_after == pytest.approx(one.nll_after, abs=1e-9)
    assert one.nll_after <= one.nll_before + 1e-12


@pytest.mark.parametrize("cuts", [[700], [1, 699], [100] * 7, [33, 0, 667]])
def test_same_bits_in_any_blocks_and_order(cuts):
    z, y = drawn(700, 7, 2.0)
    whole = fit_temperature(z, y)
    blocks = list(zip(z.split(cuts), y.split(cuts), strict=True))
    assert fit_rows(blocks, Spec()) == fit_rows(blocks[::-1], Spec()) == whole
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    assert fit_temperature(z[order], y[order]) == whole


def test_same_bits_over_ranks():
    """Each rank asks for the sums of all; here one after the other, by replaying what all ranks said."""
    z, y = drawn(300, 5, 2.0)
    parts = [(z[rank::3], y[rank::3]) for rank in range(3)]
    whole = fit_temperature(z, y)
    said = []

    def record(sums):
        said.append(sums)
        return sums

    fit_rows([(z, y)], Spec(), over_ranks=record)
    for part in ([parts[0]], []):
        replay = iter(said)
        assert fit_rows(part, Spec(), over_ranks=lambda sums: next(replay)) == whole  # noqa: B023


def test_inputs_are_left_as_they_were():
    z, y = drawn(50, 3, 2.0)
    z.requires_grad_()
    before = z.detach().clone()
    fit = fit_temperature(z, y)
    assert torch.equal(z, before)
    assert z.grad is None
    assert isinstance(fit.temperature, float)


@pytest.mark.parametrize(
    ("z", "y", "options", "words"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), {}, "no sample"),
        (torch.zeros(2, 3), torch.tensor([-100, -100]), {}, "no sample"),
        (torch.full((2, 3), -torch.inf), torch.tensor([0, 1]), {}, "2 samples are no numbers"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), {}, "1 samples are no numbers"),
        (torch.tensor([[0.0, torch.inf]]), torch.tensor([0]), {}, "1 samples are no numbers"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), {}, "1 targets out of range"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), {}, "1 targets out of range"),
        (torch.zeros(2), torch.tensor([0.0, 0.5]), {"task": "binary"}, "1 targets out of range"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), {}, "target must hold one class index a sample"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"bounds": (0, 1)}, "bounds must be two temperatures"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"bounds": (2, 1)}, "bounds must be two temperatures"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"bounds": (1, math.inf)}, "bounds must be two temperatures"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"bounds": (math.nan, 1)}, "bounds must be two temperatures"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"task": "multi"}, "task must be one of"),
    ],
)
def test_errors(z, y, options, words):
    with pytest.raises(ValueError, match=words):
        fit_temperature(z, y, **options)


def test_rows_are_those_of_the_metrics():
    z, y = drawn(30, 3, 2.0)
    assert fit_rows([as_rows(z, y, Spec())], Spec()) == fit_temperature(z, y)


@pytest.mark.parametrize("wrong", [1.5, 7.0, -0.2])
def test_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match="must lie in"):
        fit_temperature(torch.tensor([0.3, wrong]), torch.tensor([0, 1]), task="binary", input="probs")
