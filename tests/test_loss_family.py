import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_family import FAMILY, STRENGTHS, by_hand, call, draw
from no_sync import NoSync
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional.focal import focal_loss
from ls_lightning.functional.penalties import confidence_penalty, margin_smoothing, max_suppression
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.functional.relaxation import label_relaxation
from ls_lightning.functional.smoothing import smoothed_cross_entropy

SHAPES = [(3, 4), (5, 2), (2, 5, 3), (2, 3, 2, 4)]
EXACT = {"rtol": 0, "atol": 1e-12}
SOFT = [name for name, entry in FAMILY.items() if entry[3]]
every = pytest.mark.parametrize("name", FAMILY)


# Values


@pytest.mark.parametrize(("name", "soft"), [*((name, False) for name in FAMILY), *((name, True) for name in SOFT)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
def test_definition(name, soft, shape, mode):
    logits, index, distribution = draw(shape)
    index.flatten()[::3] = -100
    target = distribution if soft else index
    weight = torch.linspace(0.2, 3, shape[1], dtype=torch.float64)
    weighting = {} if mode is None else {"weight": weight, "weight_mode": mode}
    losses, shares = by_hand(
        name, logits, target, STRENGTHS[name], weight=weighting.get("weight"), mode=mode or "sample"
    )
    expected = {
        "none": torch.tensor(losses, dtype=torch.float64).view(index.shape),
        "sum": torch.tensor(math.fsum(losses), dtype=torch.float64),
        "mean": torch.tensor(math.fsum(losses) / math.fsum(shares), dtype=torch.float64),
        "batchmean": torch.tensor(math.fsum(losses) / shape[0], dtype=torch.float64),
    }
    for reduction, value in expected.items():
        assert_close(call(name, logits, target, reduction=reduction, **weighting), value, **EXACT)
        if shape == (3, 4):
            log_probs = logits.log_softmax(1)
            got = call(name, log_probs, target, reduction=reduction, input="log_probs", **weighting)
            assert_close(got, value, **EXACT)


@every
@pytest.mark.parametrize("form", ["per class", "per sample", "0-d"])
def test_strength_as_a_tensor(name, form):
    logits, index, _ = draw((6, 4))
    scale = torch.tensor([0.0, 0.5, 1.0, 1.2], dtype=torch.float64) * STRENGTHS[name]
    each = {"per class": scale[index], "per sample": scale[[0, 1, 2, 3, 2, 1]], "0-d": scale[1].expand(6)}[form]
    given_form = {"per class": scale, "per sample": each[:, None], "0-d": scale[1]}[form]
    expected = [call(name, logits[i : i + 1], index[i : i + 1], float(each[i])) for i in range(6)]
    assert_close(call(name, logits, index, given_form, reduction="none"), torch.stack(expected), **EXACT)


@every
def test_neutral_strength_is_cross_entropy(name):
    logits, index, soft = draw((4, 5, 3))
    weight = torch.tensor([1, 2, 0.5, 4, 1], dtype=torch.float64)
    index[0, 0] = -100
    for strength in (0, 0.0, torch.tensor(0.0), torch.zeros(4, 1)):
        got = call(name, logits, index, strength, weight=weight)
        assert_close(got, F.cross_entropy(logits, index, weight), **EXACT)
        if name in SOFT:
            got = call(name, logits, soft, strength, weight=weight, weight_mode="torch")
            assert_close(got, F.cross_entropy(logits, soft, weight), **EXACT)


@every
def test_gradient(name):
    logits, index, soft = draw((3, 4), seed=4)
    leaf = logits.requires_grad_()
    weight = torch.tensor([1, 2, 0.5, 3], dtype=torch.float64)
    for target in [index, soft][: 1 + (name in SOFT)]:
        for mode in ("sample", "torch"):
            if name.startswith("relaxation"):  # r is held fixed, which the finite difference is not
                continue
            assert torch.autograd.gradcheck(
                lambda z, t=target, m=mode: call(name, z, t, weight=weight, weight_mode=m), (leaf,)
            )


@pytest.mark.parametrize("name", [name for name in FAMILY if not name.startswith("relaxation")])
def test_gradient_with_respect_to_the_strength(name):
    logits, index, _ = draw((3, 4))
    strength = torch.full((4,), STRENGTHS[name], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: call(name, logits, index, s), (strength,))


def test_gradient_of_relaxation_holds_its_target_fixed():
    logits, index, _ = draw((6, 4))
    leaf = logits.clone().requires_grad_()
    label_relaxation(leaf, index, 0.3, reduction="sum").backward()
    p = logits.softmax(1)
    true = F.one_hot(index, 4).bool()
    others = p.masked_fill(true, 0)
    r = torch.where(true, 0.7, 0.3 * others / others.sum(1, keepdim=True))
    enough = p.gather(1, index[:, None]) >= 0.7
    assert 0 < enough.sum() < 6
    assert_close(leaf.grad, (p - r).masked_fill(enough, 0), **EXACT)


# What masks, weights and ignores do


@pytest.mark.parametrize("name", [name for name in FAMILY if not name.startswith("prior")])
def test_a_masked_class_is_as_if_it_were_not_there(name):
    logits, index, soft = draw((5, 4))
    masked = torch.cat([logits, torch.full((5, 1), -torch.inf, dtype=torch.float64)], 1)
    wide = torch.cat([soft, torch.zeros(5, 1, dtype=torch.float64)], 1)
    for target, other in [(index, index), (soft, wide)][: 1 + (name in SOFT)]:
        small, large = logits.clone().requires_grad_(), masked.clone().requires_grad_()
        expected, got = call(name, small, target), call(name, large, other)
        assert_close(got, expected, **EXACT)
        expected.backward()
        got.backward()
        assert_close(large.grad[:, :4], small.grad, **EXACT)
        assert_close(large.grad[:, 4], torch.zeros(5, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("matrix", [False, True])
def test_a_masked_class_leaves_its_prior_to_the_others(matrix):
    logits, index, _ = draw((5, 4))
    prior = torch.rand((5, 5) if matrix else (5,), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    masked = torch.cat([logits, torch.full((5, 1), -torch.inf, dtype=torch.float64)], 1).requires_grad_()
    got = prior_smoothing(masked, index, 0.2, prior=prior)
    got.backward()
    assert_close(got.detach(), prior_smoothing(logits, index, 0.2, prior=prior[(slice(4),) * prior.ndim]), **EXACT)
    assert masked.grad.isfinite().all()


def test_a_prior_without_a_class_that_is_left_takes_nothing():
    logits, index = torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([0])
    got = prior_smoothing(logits, index, 0.2, prior=torch.tensor([0.0, 0.0, 1.0]))
    assert_close(got, F.cross_entropy(logits[:, :2], index))


@every
def test_only_the_true_class_left(name):
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf]], requires_grad=True)
    loss = call(name, logits, torch.tensor([1]))
    loss.backward()
    assert_close(loss.detach(), torch.tensor(0.0))
    assert_close(logits.grad, torch.zeros(1, 3))


@every
def test_a_masked_true_class_is_infinite(name):
    logits = torch.tensor([[-torch.inf, 1.0, 2.0], [0.0, 1.0, 2.0]])
    losses = call(name, logits, torch.tensor([0, 1]), reduction="none")
    assert losses[0] == torch.inf
    assert losses[1].isfinite()


@every
def test_ignored_samples_reach_nothing(name):
    logits, index, _ = draw((4, 5, 2))
    index[1] = index[2, 0] = 3
    poisoned = logits.clone()
    poisoned[1], poisoned[2, :, 0] = torch.nan, torch.inf
    leaf = poisoned.requires_grad_()
    kept = index != 3
    expected = call(name, logits.movedim(1, -1)[kept], index[kept])
    loss = call(name, leaf, index, ignore_index=3)
    loss.backward()
    assert_close(loss.detach(), expected, **EXACT)
    assert (leaf.grad.movedim(1, -1)[~kept] == 0).all()


@every
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_all_ignored_is_zero_with_zero_gradient(name, reduction):
    leaf = torch.randn(3, 4).requires_grad_()
    loss = call(name, leaf, torch.full((3,), -100), reduction=reduction)
    loss.backward()
    assert loss == 0
    assert (leaf.grad == 0).all()


@every
def test_extreme_logits(name):
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, 3e4, 3e4], [200.0, 0.0, -5.0]], dtype=dtype)
        leaf = logits.requires_grad_()
        target = torch.tensor([0, 1, 0])
        loss = call(name, leaf, target)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert leaf.grad.isfinite().all()
        assert_close(loss.detach().double(), call(name, logits.detach().double(), target), rtol=1e-5, atol=1e-7)


@every
def test_autocast_computes_in_float32(name):
    logits, index, _ = draw((8, 6), dtype=torch.bfloat16)
    expected = call(name, logits.double(), index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = call(name, logits, index)
    assert got.dtype == torch.float32
    assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


@every
def test_no_host_sync(name):
    logits, index, _ = draw((4, 5))
    with NoSync():
        call(name, logits.requires_grad_(), index, weight=torch.ones(5)).backward()


@every
def test_vmap_and_functional_gradients(name):
    logits, index, _ = draw((3, 4, 5))
    index = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(0))

    def loss(z, y):
        return call(name, z, y)

    got = torch.func.vmap(torch.func.grad(loss))(logits, index)
    for one, z, y in zip(got, logits, index, strict=True):
        leaf = z.clone().requires_grad_()
        loss(leaf, y).backward()
        assert_close(one, leaf.grad, **EXACT)


# Identities


rows = st.lists(st.floats(-20, 20), min_size=4, max_size=4).map(lambda z: torch.tensor([z], dtype=torch.float64))
classes = st.integers(0, 3).map(lambda y: torch.tensor([y]))
levels = st.floats(0, 0.99)


@given(z=rows, y=classes, eps=levels)
def test_a_uniform_prior_is_smoothing(z, y, eps):
    expected = smoothed_cross_entropy(z, y, eps)
    for prior in (torch.ones(4), torch.full((4, 4), 0.25)):
        assert_close(prior_smoothing(z, y, eps, prior=prior), expected, rtol=1e-9, atol=1e-9)


@given(z=rows, eps=levels)
def test_max_suppression_is_smoothing_where_the_prediction_is_right(z, eps):
    y = z.argmax(1)
    assert_close(max_suppression(z, y, eps), smoothed_cross_entropy(z, y, eps), rtol=1e-9, atol=1e-9)


@given(z=rows, y=classes, eps=levels)
def test_margin_0_is_max_suppression_and_a_wide_one_cross_entropy(z, y, eps):
    assert_close(margin_smoothing(z, y, eps, margin=0.0), max_suppression(z, y, eps), rtol=1e-9, atol=1e-9)
    assert_close(margin_smoothing(z, y, eps, margin=41.0), F.cross_entropy(z, y), rtol=1e-9, atol=1e-9)


@given(z=rows, y=classes, gamma=st.floats(1, 8))
def test_focal_is_above_cross_entropy_less_entropy(z, y, gamma):
    """Mukhoti et al. 2020, section 4, with gamma times H."""
    lp = z.log_softmax(1)
    bound = F.cross_entropy(z, y) + gamma * (lp.exp() * lp).sum()
    assert focal_loss(z, y, gamma) >= bound - 1e-9


@settings(deadline=None)
@given(z=rows, y=classes, eps=levels)
def test_relaxation_is_never_negative_and_zero_where_confident(z, y, eps):
    loss = label_relaxation(z, y, eps)
    p = z.softmax(1)[0, y]
    assert loss >= -1e-12
    assert (loss == 0) if p >= 1 - eps else True
    if p < 1 - eps:
        p = float(p)
        expected = (1 - eps) * math.log((1 - eps) / p) + (eps * math.log(eps / (1 - p)) if eps else 0)
        assert_close(float(loss), expected, rtol=1e-6, atol=1e-9)


def test_the_optimum_of_the_confidence_penalty_is_where_its_gradient_says():
    z = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = confidence_penalty(z, torch.tensor([0]), 0.5)
        loss.backward()
        return loss

    optimizer.step(closure)
    grid = torch.linspace(0.34, 0.9999, 10_000, dtype=torch.float64)
    p = torch.stack([grid, (1 - grid) / 2, (1 - grid) / 2])
    best = grid[(-grid.log() + 0.5 * (p * p.log()).sum(0)).argmin()]
    assert_close(z.softmax(1)[0, 0].detach(), best, rtol=0, atol=1e-3)


# What is refused


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        (lambda z, y: focal_loss(z, y, -1.0), ValueError, r"gamma must be in \[0, inf\), got -1.0"),
        (lambda z, y: focal_loss(z, y, math.nan), ValueError, "gamma must be in .* got nan"),
        (lambda z, y: focal_loss(z, y, "2"), TypeError, "gamma must be a number"),
        (lambda z, y: focal_loss(z, y, torch.ones(7)), ValueError, r"gamma of shape \(7,\) does not fit logits"),
        (lambda z, y: max_suppression(z, y, -0.1), ValueError, r"eps must be in \[0, 1\), got -0.1"),
        (lambda z, y: call("negative", z, y, 0.1), ValueError, r"eps must be in \(-inf, 0\], got 0.1"),
        (lambda z, y: call("negative", z, y, -math.inf), ValueError, "got -inf"),
        (lambda z, y: margin_smoothing(z, y, margin=-1.0), ValueError, "margin must be a number of at least 0, got -1"),
        (lambda z, y: margin_smoothing(z, y, margin=math.nan), ValueError, "margin must be"),
        (lambda z, y: margin_smoothing(z, y, margin="6"), TypeError, "margin must be a number"),
        (lambda z, y: label_relaxation(z, z.softmax(1)), ValueError, "loss=relaxation needs class indices"),
        (lambda z, y: prior_smoothing(z, y, prior=torch.ones(3)), ValueError, r"prior must be \(K,\) or \(K, K\)"),
        (lambda z, y: prior_smoothing(z, y, prior=torch.ones(4, 3)), ValueError, "prior must be"),
        (lambda z, y: prior_smoothing(z, y, prior=torch.ones(4).long()), TypeError, "prior must be floating point"),
        (lambda z, y: prior_smoothing(z, y + 9, prior=torch.ones(4, 4)), ValueError, "class index .* is out of range"),
    ],
)
def test_refuses(do, error, message):
    logits, index, _ = draw((3, 4))
    with pytest.raises(error, match=message) as caught:
        do(logits, index)
    assert "\n" not in str(caught.value)
