"""The fast way and the clear one are the same loss: over layouts, dtypes, options, masked classes and nonsense."""

import itertools
from functools import partial

import pytest
import torch
from clear_loss import LAYOUTS, clear, counted, value_and_gradient, without_loop
from hypothesis import given, settings
from hypothesis import strategies as st
from no_sync import NoSync
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional import fused_layout, prior_smoothing, smoothed_cross_entropy, smoothed_kl_div

PRIOR = partial(prior_smoothing, prior=torch.tensor([3.0, 1, 0, 2, 5]))
LOSSES = [
    pytest.param(smoothed_cross_entropy, id="ce"),
    pytest.param(partial(smoothed_cross_entropy, spread="others"), id="ce-others"),
    pytest.param(smoothed_kl_div, id="kl"),
    pytest.param(partial(smoothed_kl_div, spread="all"), id="kl-all"),
    pytest.param(PRIOR, id="prior"),
]
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def in_pieces(monkeypatch):
    monkeypatch.setattr(fused_layout, "_WHOLE", 0)
    monkeypatch.setattr(fused_layout, "_ONE_THREAD", 400)
    monkeypatch.setattr(fused_layout, "_THREADS", 400)


@pytest.fixture(params=["whole", "pieces"])
def pieces(request, monkeypatch):
    """As it comes, or in pieces of a few rows."""
    if request.param == "pieces":
        in_pieces(monkeypatch)


@pytest.fixture(params=["C", "torch", "pieces"])
def way(request, monkeypatch):
    """By the loop in C, where it can be built, or by torch's operations, also in pieces."""
    if request.param != "C":
        without_loop(monkeypatch)
    if request.param == "pieces":
        in_pieces(monkeypatch)


def draw(make, k=5, dtype=torch.float64):
    torch.manual_seed(0)
    logits = make(k).double().to(dtype) if dtype != torch.float64 else make(k).to(dtype)
    return logits, torch.randint(k, (logits.shape[0], *logits.shape[2:]))


def agree(loss, logits, *args, tolerance=EXACT, upstream=None, **options):
    with counted() as passes:
        got = value_and_gradient(loss, logits, *args, upstream=upstream, **options)
    assert passes
    with clear(), counted() as passes:
        expected = value_and_gradient(loss, logits, *args, upstream=upstream, **options)
    assert not passes
    assert got[1].dtype == logits.dtype
    assert got[0].dtype == expected[0].dtype
    assert_close(got[0], expected[0], equal_nan=True, **tolerance)
    assert_close(got[1], expected[1], equal_nan=True, **tolerance)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(loss, layout):
    logits, target = draw(LAYOUTS[layout])
    agree(loss, logits, target, 0.2)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", ["few classes", "pixels", "transposed", "channels last"])
@pytest.mark.parametrize("num_classes", [2, 16, 33])
def test_numbers_of_classes(layout, num_classes):
    logits, target = draw(LAYOUTS[layout], num_classes)
    for loss in (smoothed_cross_entropy, smoothed_kl_div):
        agree(loss, logits, target, 0.2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
@pytest.mark.parametrize("reads", [True, False])
def test_options(loss, mode, reads):
    """Where nobody may look at values, as on a GPU, every call is made with care."""
    logits, target = draw(LAYOUTS["pixels"])
    weight = {} if mode is None else {"weight": torch.tensor([0.5, 2, 0, 1, 3]), "weight_mode": mode}
    for reduction, ignored in itertools.product(("mean", "sum", "none", "batchmean"), (None, -100, 2)):
        labels = target.masked_fill(target == 2, -100) if ignored == -100 else target
        index = -100 if ignored is None else ignored
        options = {"reduction": reduction, "ignore_index": index, **weight}
        if reads:
            agree(loss, logits, labels, 0.2, **options)
        else:
            with NoSync(), counted() as passes:
                got = value_and_gradient(loss, logits, labels, 0.2, **options)
            with clear():
                expected = value_and_gradient(loss, logits, labels, 0.2, **options)
            assert passes
            assert_close(got, expected, **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(), (1, 5), (5,), (40, 1), (40,)])
def test_eps_as_a_tensor(loss, shape):
    logits, target = draw(LAYOUTS["few classes"])
    agree(loss, logits, target, torch.rand(shape, dtype=torch.float64) / 2)
    agree(loss, logits, target, torch.rand(shape) / 2, reduction="none")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("eps", [0.0, 0, 0.9])
def test_eps_as_a_number(loss, eps):
    logits, target = draw(LAYOUTS["few classes"])
    agree(loss, logits, target, eps)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes(loss, dtype, autocast):
    logits, target = draw(LAYOUTS["few classes"], dtype=dtype)
    logits = logits + 100  # an offset costs the digits of a sum of exponentials without the largest taken off
    relative, absolute = {torch.float32: (1e-5, 1e-7), torch.bfloat16: (1e-2, 1e-5), torch.float16: (2e-3, 1e-6)}[dtype]
    tolerance = {"rtol": relative, "atol": absolute}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for reduction in ("mean", "none"):
            agree(loss, logits, target, 0.2, reduction=reduction, tolerance=tolerance)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", ["few classes", "pixels"])
def test_float16_is_scaled_before_it_is_rounded(layout):
    """As a gradient scaler wants it: without its factor the gradients of many samples are 0 in float16."""
    logits, target = draw(LAYOUTS[layout], dtype=torch.float16)
    factor = torch.tensor(2.0**16)
    _, got = value_and_gradient(lambda z: smoothed_cross_entropy(z, target) / 1e6, logits, upstream=factor)
    leaf = logits.double().requires_grad_()
    (smoothed_cross_entropy(leaf, target) / 1e6 * factor.double()).backward()
    assert_close(got.double(), leaf.grad, rtol=1e-3, atol=1e-7)
    assert (value_and_gradient(lambda z: smoothed_cross_entropy(z, target) / 1e6, logits)[1] == 0).any()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", ["few classes", "pixels", "tokens"])
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan, -1e36, 1e36])
def test_what_is_not_finite(loss, layout, mode, value):
    logits, target = draw(LAYOUTS[layout], dtype=torch.float32)
    rows = logits.movedim(1, -1).reshape(-1, 5)
    rows[::3, 1] = value
    rows[1] = value
    labels = target.flatten()
    labels[::4] = -100  # some of them where it is not finite
    logits = rows.view(*target.shape, 5).movedim(-1, 1)
    logits = logits.contiguous() if layout == "pixels" else logits
    weight = {} if mode is None else {"weight": torch.tensor([0.5, 0, 2, 1, 3]), "weight_mode": mode}
    for reduction in ("none", "sum"):
        agree(loss, logits, target, 0.2, reduction=reduction, tolerance={"rtol": 1e-4, "atol": 1e-6}, **weight)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.sampled_from([(1, 2), (7, 3), (3, 40), (2, 5, 3), (1, 17, 2, 2)]),
    eps=st.floats(0, 0.99),
    offset=st.floats(-1e4, 1e4),
    upstream=st.sampled_from([None, 0.0, -3.5]),
    reduction=st.sampled_from(["mean", "sum", "batchmean"]),
    spread=st.sampled_from(["all", "others"]),
)
def test_any_call(seed, shape, eps, offset, upstream, reduction, spread):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 5 + offset
    target = torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)
    upstream = None if upstream is None else torch.tensor(upstream, dtype=torch.float64)
    options = {"ignore_index": -1, "reduction": reduction, "spread": spread}
    for loss in (smoothed_cross_entropy, smoothed_kl_div):
        agree(loss, logits, target, eps, upstream=upstream, tolerance={"rtol": 1e-9, "atol": 1e-9}, **options)


@pytest.mark.usefixtures("way")
def test_gradients_of_a_large_vocabulary_are_closer_than_torchs():
    torch.manual_seed(0)
    logits, target = torch.randn(8, 32000) * 3, torch.randint(32000, (8,))
    exact = value_and_gradient(F.cross_entropy, logits.double(), target, label_smoothing=0.1)[1]
    error = [
        ((value_and_gradient(loss, logits, target, **{name: 0.1})[1] - exact).abs().max() / exact.abs().max()).item()
        for loss, name in ((smoothed_cross_entropy, "eps"), (F.cross_entropy, "label_smoothing"))
    ]
    assert error[0] <= 5e-6


@pytest.mark.parametrize("wrong", [5, -1])
@pytest.mark.parametrize("layout", ["few classes", "pixels"])
def test_a_class_that_is_none_is_named(layout, wrong):
    logits, target = draw(LAYOUTS[layout])
    target.view(-1)[3] = wrong
    for grad in (True, False):
        with pytest.raises(ValueError, match=f"class index {wrong} is out of range .* 5 classes are 0 to 4"):
            smoothed_cross_entropy(logits.requires_grad_(grad), target)


def test_matrix_of_priors_and_log_probabilities_go_the_clear_way():
    logits, target = draw(LAYOUTS["few classes"])
    with counted() as passes:
        prior_smoothing(logits, target, prior=torch.ones(5, 5))
        smoothed_cross_entropy(logits.log_softmax(1), target, input="log_probs")
        smoothed_cross_entropy(logits, logits.softmax(1))
    assert not passes
