import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_sync import NoSync
from reference_values import GRADIENTS, VALUES, case
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional.smoothing import (
    smooth_targets,
    smoothed_binary_cross_entropy_with_logits,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)

FUNCTIONS = {
    "ce": smoothed_cross_entropy,
    "kl": smoothed_kl_div,
    "bce": smoothed_binary_cross_entropy_with_logits,
    "soft_ce": soft_cross_entropy,
    "none": smoothed_cross_entropy,
}
CLASS_LOSSES = [
    pytest.param(smoothed_cross_entropy, {}, id="ce"),
    pytest.param(smoothed_cross_entropy, {"spread": "others"}, id="ce-others"),
    pytest.param(smoothed_kl_div, {}, id="kl"),
    pytest.param(smoothed_kl_div, {"spread": "all"}, id="kl-all"),
    pytest.param(soft_cross_entropy, {}, id="soft_ce"),
    pytest.param(soft_cross_entropy, {"normalized": True}, id="soft_ce-normalized"),
]
SHAPES = [(3, 4), (5, 2), (2, 5, 3), (2, 3, 2, 4)]
EXACT = {"rtol": 0, "atol": 1e-12}


def draw(shape, seed=0, dtype=torch.float64):
    """Logits, class indices and distributions."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(3).to(dtype)
    index = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    soft = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(1)
    return logits, index, soft


def as_float64(options):
    return {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in options.items()}


def by_hand(name, z, target, eps, *, weight=None, mode="sample", ignore=-100, spread="all", normalized=False):
    """The definition, one position at a time in Python floats: (loss, denominator share) of each."""
    rows = z.movedim(1, -1).reshape(-1, z.shape[1]).tolist()
    num = z.shape[1]
    if target.is_floating_point():
        targets = target.movedim(1, -1).reshape(-1, num).tolist()
    else:
        targets = [[float(k == y) if y != ignore else None for k in range(num)] for y in target.flatten().tolist()]
    weight = [1.0] * num if weight is None else weight.tolist()
    losses, shares = [], []
    for row, t in zip(rows, targets, strict=True):
        if t[0] is None:
            losses.append(0.0)
            shares.append(0.0)
            continue
        top = max(row)
        lse = top + math.log(sum(math.exp(v - top) for v in row))
        lp = [v - lse for v in row]
        if spread == "all":
            q = [(1 - eps) * t[k] + eps / num for k in range(num)]
        else:
            q = [(1 - eps) * t[k] + eps * (1 - t[k]) / (num - 1) for k in range(num)]
        each = [-q[k] * lp[k] + (q[k] * math.log(q[k]) if name == "kl" and q[k] > 0 else 0) for k in range(num)]
        mean_weight = sum(a * b for a, b in zip(t, weight, strict=True))
        if mode == "sample":
            loss = mean_weight * sum(each)
        else:
            loss = sum(a * b for a, b in zip(each, weight, strict=True))
        losses.append(loss / (1 - eps) if name == "soft_ce" and not normalized else loss)
        shares.append(1.0 if mode == "torch" and target.is_floating_point() else mean_weight)
    return losses, shares


# Values


@pytest.mark.parametrize(("name", "options", "data", "values"), VALUES)
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_reference_values(name, options, data, values, input):
    logits, target = case(data)
    if input == "log_probs":
        logits = F.logsigmoid(logits) if name == "bce" else logits.log_softmax(1)
    for reduction, expected in values.items():
        got = FUNCTIONS[name](logits, target, reduction=reduction, input=input, **as_float64(options))
        assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "options", "data", "reduction", "expected"), GRADIENTS)
def test_reference_gradients(name, options, data, reduction, expected):
    logits, target = case(data, requires_grad=True)
    FUNCTIONS[name](logits, target, reduction=reduction, **options).backward()
    assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_gradient_of_kl_with_respect_to_log_probs_is_minus_q():
    logits, target = case("A")
    log_probs = logits.log_softmax(1).requires_grad_()
    smoothed_kl_div(log_probs, target, reduction="sum", input="log_probs").backward()
    q = torch.full((2, 5), 0.025, dtype=torch.float64)
    q[[0, 1], [0, 2]] = 0.9
    assert_close(log_probs.grad, -q, **EXACT)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
def test_definition(loss, options, shape, soft, mode):
    logits, index, distribution = draw(shape)
    index.flatten()[::3] = -100
    target = distribution if soft else index
    weight = torch.linspace(0.2, 3, shape[1], dtype=torch.float64)
    weighting = {} if mode is None else {"weight": weight, "weight_mode": mode}
    name = {smoothed_kl_div: "kl", soft_cross_entropy: "soft_ce"}.get(loss, "ce")
    spread = options.get("spread", "others" if name == "kl" else "all")
    losses, shares = by_hand(
        name,
        logits,
        target,
        0.15,
        weight=weighting.get("weight"),
        mode=mode or "sample",
        spread=spread,
        normalized=options.get("normalized", False),
    )
    expected = {
        "none": torch.tensor(losses, dtype=torch.float64).view(index.shape),
        "sum": torch.tensor(math.fsum(losses), dtype=torch.float64),
        "mean": torch.tensor(math.fsum(losses) / math.fsum(shares), dtype=torch.float64),
        "batchmean": torch.tensor(math.fsum(losses) / shape[0], dtype=torch.float64),
    }
    for reduction, value in expected.items():
        got = loss(logits, target, 0.15, reduction=reduction, **options, **weighting)
        assert_close(got, value, **EXACT)


# Judged by torch


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target_kind", ["index", "ignored", "ignored class 0", "soft"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_cross_entropy(shape, eps, weighted, target_kind, reduction):
    logits, target, soft = draw(shape)
    ignore = {"ignored class 0": 0, "ignored": -7}.get(target_kind, -100)
    if target_kind == "ignored":
        target.flatten()[::2] = -7
    if target_kind == "soft":
        target = soft
    weight = torch.linspace(0.2, 3, shape[1], dtype=torch.float64) if weighted else None
    ours, judge = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    options = {"weight": weight, "ignore_index": ignore, "reduction": reduction}
    got = smoothed_cross_entropy(ours, target, eps, weight_mode="torch", **options)
    expected = F.cross_entropy(judge, target, label_smoothing=eps, **options)
    assert_close(got, expected, **EXACT)
    got.sum().backward()
    expected.sum().backward()
    assert_close(ours.grad, judge.grad, **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_nll_loss(shape, weighted, reduction):
    logits, target, _ = draw(shape)
    target.flatten()[::2] = -100
    weight = torch.linspace(0.2, 3, shape[1], dtype=torch.float64) if weighted else None
    log_probs = logits.log_softmax(1)
    expected = F.nll_loss(log_probs, target, weight, reduction=reduction)
    for mode in ("sample", "torch"):
        got = smoothed_cross_entropy(
            log_probs, target, 0.0, weight=weight, weight_mode=mode, reduction=reduction, input="log_probs"
        )
        assert_close(got, expected, **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", ["all", "others"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_torch_kl_div(shape, spread, soft, input):
    logits, target, distribution = draw(shape)
    target = distribution if soft else target
    one_hot = distribution if soft else F.one_hot(target, shape[1]).movedim(-1, 1).double()
    away = 1 / shape[1] if spread == "all" else (1 - one_hot) / (shape[1] - 1)
    pointwise = F.kl_div(logits.log_softmax(1), 0.8 * one_hot + 0.2 * away, reduction="none")
    expected = {"none": pointwise.sum(1), "sum": pointwise.sum(), "batchmean": pointwise.sum() / shape[0]}
    expected["mean"] = pointwise.sum(1).mean()
    values = logits if input == "logits" else logits.log_softmax(1)
    for reduction, value in expected.items():
        got = smoothed_kl_div(values, target, 0.2, spread=spread, reduction=reduction, input=input)
        assert_close(got, value, **EXACT)


def test_weights_move_the_optimum_in_torch_mode_only():
    weight = torch.tensor([1.0, 9.0, 1.0], dtype=torch.float64)
    target = torch.tensor([0])
    q = smooth_targets(target, 0.3, 3).double()
    at_q = q.log().requires_grad_()
    smoothed_cross_entropy(at_q, target, 0.3, weight=weight, weight_mode="sample").backward()
    assert_close(at_q.grad, torch.zeros_like(q), rtol=0, atol=1e-7)
    smoothed_cross_entropy(at_q, target, 0.3, weight=weight, weight_mode="torch").backward()
    assert at_q.grad.abs().max() > 0.1


# Smoothed targets


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", ["all", "others"])
def test_smooth_targets(shape, spread):
    _, index, soft = draw(shape)
    one_hot = F.one_hot(index, shape[1]).movedim(-1, 1).double()
    for target, dense in ((index, one_hot), (soft, soft)):
        got = smooth_targets(target, 0.3, shape[1], spread=spread)
        away = torch.full_like(dense, 1 / shape[1]) if spread == "all" else (1 - dense) / (shape[1] - 1)
        assert_close(got.double(), 0.7 * dense + 0.3 * away, rtol=0, atol=1e-7)
        assert got.dtype == (torch.float64 if target is soft else torch.float32)
        assert_close(got.sum(1), torch.ones_like(got.sum(1)))
    assert_close(smooth_targets(index, 0.0, shape[1]).double(), one_hot, rtol=0, atol=0)


def test_smooth_targets_dtypes():
    index, soft = torch.tensor([1, 0]), torch.full((2, 4), 0.25)
    assert smooth_targets(index.int(), 0.1, 4).dtype == torch.float32
    assert smooth_targets(index, torch.tensor(0.1, dtype=torch.float64), 4).dtype == torch.float64
    assert smooth_targets(soft.bfloat16(), 0.1, 4).dtype == torch.float32
    assert smooth_targets(index, torch.tensor(0.1, dtype=torch.float16), 4).dtype == torch.float32


def test_loss_is_cross_entropy_with_the_smoothed_target():
    logits, index, _ = draw((6, 5, 2))
    for spread in ("all", "others"):
        eps = torch.tensor(0.2, dtype=torch.float64)
        expected = F.cross_entropy(logits, smooth_targets(index, eps, 5, spread=spread))
        assert_close(smoothed_cross_entropy(logits, index, eps, spread=spread), expected, **EXACT)


# eps in all its forms


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_eps_forms_agree(loss, options, shape):
    logits, index, _ = draw(shape)
    batch, num, *rest = shape
    expected = loss(logits, index, 0.25, reduction="none", **options)
    forms = [(), (1, num), (batch, 1), (batch, *(1,) * (1 + len(rest))), (batch, 1, *rest)]
    forms += [(num,)] if rest or batch != num else []
    forms += [tuple(index.shape)] if rest or batch != num else []
    for form in forms:
        eps = torch.full(form, 0.25, dtype=torch.float64)
        assert_close(loss(logits, index, eps, reduction="none", **options), expected, **EXACT)
    # Exact in every dtype, so that a narrow one changes nothing.
    assert_close(loss(logits, index, torch.tensor(0.25).half(), reduction="none", **options), expected, **EXACT)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_eps_per_class(loss, options, shape):
    logits, index, soft = draw(shape)
    eps = torch.linspace(0, 0.6, shape[1], dtype=torch.float64)
    for target in (index, soft):
        levels = eps[index] if target is index else torch.einsum("nk...,k->n...", soft, eps)
        got = loss(logits, target, eps[None], reduction="none", **options)
        flat_z = logits.movedim(1, -1).reshape(-1, 1, shape[1])
        flat_t = target.reshape(-1, 1) if target is index else soft.movedim(1, -1).reshape(-1, 1, shape[1])
        each = [
            loss(z, t, level, reduction="sum", **options)
            for z, t, level in zip(flat_z, flat_t, levels.flatten().tolist(), strict=True)
        ]
        assert_close(got.flatten(), torch.stack(each), **EXACT)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_eps_per_sample(loss, options):
    logits, index, _ = draw((4, 3, 2))
    eps = torch.linspace(0, 0.6, 8, dtype=torch.float64).view(4, 2)
    got = loss(logits, index, eps, reduction="none", **options)
    for n in range(4):
        for d in range(2):
            alone = loss(logits[n : n + 1, :, d], index[n : n + 1, d], float(eps[n, d]), **options)
            assert_close(got[n, d], alone, **EXACT)
    row = eps[:, :1]
    expected = loss(logits, index, row.expand(4, 2), reduction="none", **options)
    assert_close(loss(logits, index, row, reduction="none", **options), expected, **EXACT)
    flat = loss(logits[:, :, 0], index[:, 0], eps[:, 0], reduction="none", **options)
    assert_close(flat, loss(logits[:, :, 0], index[:, 0], eps[:, :1], reduction="none", **options), **EXACT)


def test_smooth_targets_per_class_and_per_sample():
    _, index, _ = draw((4, 3))
    per_class = torch.tensor([0.0, 0.3, 0.6], dtype=torch.float64)
    per_sample = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    for eps, levels in ((per_class, per_class[index]), (per_sample, per_sample)):
        expected = torch.stack([smooth_targets(index[n : n + 1], float(levels[n]), 3)[0] for n in range(4)])
        assert_close(smooth_targets(index, eps, 3).float(), expected)


def test_eps_that_fits_classes_and_samples_is_refused():
    logits, index, _ = draw((4, 4))
    eps = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"fits both .*\(4, 4\).*pass \(1, 4\).*\(4, 1\)"):
        smoothed_cross_entropy(logits, index, eps)
    with pytest.raises(ValueError, match="fits both"):
        smooth_targets(index, eps, 4)
    by_class = smoothed_cross_entropy(logits, index, eps[None], reduction="none")
    by_sample = smoothed_cross_entropy(logits, index, eps[:, None], reduction="none")
    assert_close(by_class, smoothed_cross_entropy(logits, index, eps[index][:, None], reduction="none"), **EXACT)
    assert not torch.allclose(by_class, by_sample)
    dense_z, dense_y, _ = draw((4, 4, 5))
    got = smoothed_cross_entropy(dense_z, dense_y, eps)
    assert_close(got, smoothed_cross_entropy(dense_z, dense_y, eps[None]), **EXACT)


# Identities

LEVELS = st.floats(0, 0.95)
SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 5), st.integers(2, 7))
identity = settings(max_examples=60, deadline=None)


@identity
@given(SEEDS, SIZES, LEVELS)
def test_smoothing_adds_eps_times_the_margin_to_the_mean(seed, size, eps):
    z, y, _ = draw(size, seed)
    margin = z.gather(1, y[:, None])[:, 0] - z.mean(1)
    expected = F.cross_entropy(z, y, reduction="none") + eps * margin
    assert_close(smoothed_cross_entropy(z, y, eps, reduction="none"), expected, rtol=1e-10, atol=1e-10)


@identity
@given(SEEDS, SIZES, LEVELS, st.booleans())
def test_kl_is_cross_entropy_minus_entropy(seed, size, eps, soft):
    z, index, distribution = draw(size, seed)
    target = distribution if soft else index
    q = smooth_targets(target, torch.tensor(eps, dtype=torch.float64), size[1], spread="others")
    expected = smoothed_cross_entropy(z, target, eps, spread="others", reduction="none")
    expected = expected - torch.special.entr(q).sum(1)
    got = smoothed_kl_div(z, target, eps, reduction="none")
    assert_close(got, expected, rtol=0, atol=1e-10)
    assert (got > -1e-10).all()


@identity
@given(SEEDS, SIZES, st.floats(0.01, 0.95), st.sampled_from(["all", "others"]))
def test_kl_has_its_minimum_0_at_the_smoothed_target(seed, size, eps, spread):
    _, y, _ = draw(size, seed)
    q = smooth_targets(y, torch.tensor(eps, dtype=torch.float64), size[1], spread=spread)
    at_q = q.log().requires_grad_()
    loss = smoothed_kl_div(at_q, y, eps, spread=spread)
    loss.backward()
    assert_close(loss.detach(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(at_q.grad, torch.zeros_like(q), rtol=0, atol=1e-10)


@identity
@given(SEEDS, SIZES, LEVELS)
def test_kl_and_cross_entropy_have_the_same_gradient(seed, size, eps):
    z, y, _ = draw(size, seed)
    grads = []
    for loss in (smoothed_cross_entropy, smoothed_kl_div):
        leaf = z.clone().requires_grad_()
        loss(leaf, y, eps, spread="others").backward()
        grads.append(leaf.grad)
    assert_close(*grads, rtol=0, atol=1e-10)


@identity
@given(SEEDS, SIZES, st.floats(0, 1), st.booleans())
def test_others_is_all_with_a_larger_eps(seed, size, share, soft):
    z, index, distribution = draw(size, seed)
    target = distribution if soft else index
    k = size[1]
    eps = share * 0.99 * (k - 1) / k
    for loss in (smoothed_cross_entropy, smoothed_kl_div):
        others = loss(z, target, eps, spread="others", reduction="none")
        everywhere = loss(z, target, eps * k / (k - 1), spread="all", reduction="none")
        assert_close(others, everywhere, rtol=1e-10, atol=1e-10)


@identity
@given(SEEDS, SIZES, LEVELS)
def test_soft_cross_entropy_is_rescaled_smoothing(seed, size, eps):
    z, y, _ = draw(size, seed)
    smoothed = smoothed_cross_entropy(z, y, eps)
    assert_close(soft_cross_entropy(z, y, eps) * (1 - eps), smoothed, rtol=1e-10, atol=1e-10)
    assert_close(soft_cross_entropy(z, y, eps, normalized=True), smoothed, rtol=1e-10, atol=1e-10)
    ce_plus_uniform = F.cross_entropy(z, y) - z.log_softmax(1).mean()
    assert_close(soft_cross_entropy(z, y), ce_plus_uniform, rtol=1e-10, atol=1e-10)
    assert_close(soft_cross_entropy(z, y), 2 * smoothed_cross_entropy(z, y, 0.5), rtol=1e-10, atol=1e-10)


@identity
@given(SEEDS, SIZES, LEVELS, LEVELS)
def test_smoothing_twice(seed, size, first, second):
    z, y, _ = draw(size, seed)
    once = smooth_targets(y, torch.tensor(1 - (1 - first) * (1 - second), dtype=torch.float64), size[1])
    twice = smooth_targets(smooth_targets(y, torch.tensor(first, dtype=torch.float64), size[1]), second, size[1])
    assert_close(twice, once, rtol=0, atol=1e-10)
    expected = F.cross_entropy(z, once)
    got = smoothed_cross_entropy(z, smooth_targets(y, torch.tensor(first, dtype=torch.float64), size[1]), second)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)


@identity
@given(SEEDS, SIZES, LEVELS, st.floats(0, 1), st.sampled_from(["all", "others"]))
def test_smoothing_commutes_with_mixup(seed, size, eps, lam, spread):
    z, first, _ = draw(size, seed)
    second = draw(size, seed + 1)[1]
    level = torch.tensor(eps, dtype=torch.float64)
    smoothed = [smooth_targets(y, level, size[1], spread=spread) for y in (first, second)]
    hard = [F.one_hot(y, size[1]).double() for y in (first, second)]
    mixed = lam * hard[0] + (1 - lam) * hard[1]
    assert_close(
        smooth_targets(mixed, eps, size[1], spread=spread),
        lam * smoothed[0] + (1 - lam) * smoothed[1],
        rtol=0,
        atol=1e-10,
    )
    expected = sum(
        part * smoothed_cross_entropy(z, y, eps, spread=spread) for part, y in ((lam, first), (1 - lam, second))
    )
    got = smoothed_cross_entropy(z, mixed, eps, spread=spread)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)


@identity
@given(SEEDS, st.integers(1, 6), LEVELS)
def test_binary_is_two_classes_with_logits_0_and_z(seed, batch, eps):
    z, y, _ = draw((batch, 2), seed)
    z = z[:, 0]
    two = torch.stack([torch.zeros_like(z), z], 1)
    got = smoothed_binary_cross_entropy_with_logits(z, y, eps, reduction="none")
    assert_close(got, smoothed_cross_entropy(two, y, eps, reduction="none"), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("num", "floor"), [(10, 0.500), (1000, 1.015)])
def test_floor_of_smoothing(num, floor):
    y = torch.tensor([0])
    p = torch.full((1, num), 0.1 / num, dtype=torch.float64)
    p[0, 0] = 1 - 0.1 + 0.1 / num
    loss = smoothed_cross_entropy(p.log(), y, 0.1)
    assert_close(loss, torch.special.entr(p).sum(), **EXACT)
    assert round(float(loss), 3) == floor


# Gradients


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_gradcheck(loss, options, mode, soft, reduction):
    logits, index, distribution = draw((2, 3, 2))
    index[0, 0] = -100
    target = distribution.requires_grad_() if soft else index
    weight = None if mode is None else torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    eps = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64, requires_grad=True)

    def function(logits, target, eps):
        return loss(
            logits,
            target,
            eps[None],
            weight=weight,
            weight_mode=mode or "sample",
            reduction=reduction,
            **options,
        )

    assert torch.autograd.gradcheck(function, (logits.requires_grad_(), target, eps))


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_gradcheck_log_probs_and_masked_classes(loss, options):
    logits, index, _ = draw((3, 4))
    log_probs = logits.log_softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda lp: loss(lp, index, input="log_probs", **options), (log_probs,))
    masked = torch.zeros(3, 4, dtype=torch.bool).scatter(1, (index[:, None] + 1) % 4, True)

    def function(z):
        return loss(z.masked_fill(masked, -torch.inf), index, **options)

    assert torch.autograd.gradcheck(function, (logits.requires_grad_(),))


# Masked classes


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_masked_class_is_as_if_it_were_not_there(loss, options, mode, soft, input):
    _, index, distribution = draw((5, 3))
    kept = torch.tensor([0, 2, 5])
    logits = torch.full((5, 6), -torch.inf, dtype=torch.float64)
    logits[:, kept] = draw((5, 3))[0]
    wide_target = kept[index]
    target = index
    if soft:
        target, wide_target = distribution, torch.zeros(5, 6, dtype=torch.float64)
        wide_target[:, kept] = distribution
    if input == "log_probs":
        logits = logits.log_softmax(1)
    weight = torch.linspace(0.5, 3, 6, dtype=torch.float64)
    wide = {} if mode is None else {"weight": weight, "weight_mode": mode}
    narrow = {} if mode is None else {"weight": weight[kept], "weight_mode": mode}
    leaf = logits.clone().requires_grad_()
    short = logits[:, kept].clone().requires_grad_()
    got = loss(leaf, wide_target, 0.3, input=input, **options, **wide)
    expected = loss(short, target, 0.3, input=input, **options, **narrow)
    assert_close(got, expected, **EXACT)
    got.backward()
    expected.backward()
    assert_close(leaf.grad[:, kept], short.grad, **EXACT)
    assert (leaf.grad[:, [1, 3, 4]] == 0).all()


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_only_the_true_class_is_left(loss, options):
    logits = torch.tensor([[-torch.inf, 2.0, -torch.inf]], requires_grad=True)
    value = loss(logits, torch.tensor([1]), 0.3, **options)
    value.backward()
    assert_close(value.detach(), torch.tensor(0.0))
    assert_close(logits.grad, torch.zeros(1, 3))


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_masked_true_class_is_inf_as_in_torch(loss, options, eps):
    logits = torch.tensor([[0.5, -torch.inf, 1.0], [1.0, 2.0, 3.0]], requires_grad=True)
    target = torch.tensor([1, 0])
    values = loss(logits, target, eps, reduction="none", **options)
    assert values[0] == torch.inf
    assert values[1].isfinite()
    values.sum().backward()
    assert logits.grad.isfinite().all()
    plain = logits.detach().clone().requires_grad_()
    F.cross_entropy(plain, target, reduction="sum").backward()
    if eps == 0:
        assert_close(logits.grad, plain.grad)
    soft = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert loss(logits, soft, eps, reduction="none", **options)[0] == torch.inf


@pytest.mark.parametrize("mode", ["sample", "torch"])
def test_weight_0_does_not_count_even_if_masked(mode):
    logits = torch.tensor([[0.5, -torch.inf, 1.0], [1.0, 2.0, 3.0]], requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 2.0])
    loss = smoothed_cross_entropy(logits, torch.tensor([1, 0]), 0.0, weight=weight, weight_mode=mode)
    loss.backward()
    assert_close(loss.detach(), F.cross_entropy(logits[1:].detach(), torch.tensor([0])))
    assert (logits.grad[0] == 0).all()


# Nothing to learn from


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("mode", [None, "sample", "torch"])
@pytest.mark.parametrize("fill", [0.7, math.nan, math.inf, -math.inf])
def test_all_ignored_is_0_with_zero_gradient(loss, options, reduction, mode, fill):
    logits = torch.full((3, 4, 2), fill, requires_grad=True)
    weight = {} if mode is None else {"weight": torch.arange(1.0, 5), "weight_mode": mode}
    value = loss(logits, torch.full((3, 2), -100), 0.1, reduction=reduction, **options, **weight)
    assert (value == 0).all()
    value.sum().backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@pytest.mark.parametrize("soft", [False, True])
def test_empty_batch_is_0(loss, options, reduction, soft):
    logits = torch.zeros(0, 4, requires_grad=True)
    target = torch.zeros(0, 4) if soft else torch.zeros(0, dtype=torch.long)
    value = loss(logits, target, 0.1, reduction=reduction, **options)
    value.backward()
    assert value == 0
    assert logits.grad.shape == (0, 4)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_all_weights_0_is_0(loss, options):
    logits, index, _ = draw((3, 4))
    logits.requires_grad_()
    for mode in ("sample", "torch"):
        weight = torch.ones(4, dtype=torch.float64).scatter(0, index, 0)
        value = loss(logits, index, 0.1, weight=weight, weight_mode=mode, **options)
        assert value == 0
        value.backward()
        assert (logits.grad == 0).all()


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_ignored_samples_cannot_be_seen(loss, options):
    logits, index, _ = draw((6, 4))
    index[[1, 4]] = -100
    logits[1], logits[4] = torch.nan, torch.inf
    kept = index != -100
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, index, 0.2, **options)
    assert_close(value, loss(logits[kept], index[kept], 0.2, **options), **EXACT)
    value.backward()
    assert (leaf.grad[~kept] == 0).all()
    assert leaf.grad.isfinite().all()
    total = loss(logits, index, 0.2, reduction="sum", **options)
    assert_close(loss(logits, index, 0.2, reduction="batchmean", **options), total / 6, **EXACT)


# Precision, layouts, dtypes


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float16, 18), (torch.float32, 104), (torch.bfloat16, 300)])
def test_large_gap_is_finite(loss, options, dtype, gap):
    logits = torch.tensor([[float(gap), 0.0, 0.0]], dtype=dtype, requires_grad=True)
    value = loss(logits, torch.tensor([1]), 0.1, **options)
    expected = loss(logits.detach().double(), torch.tensor([1]), 0.1, **options)
    assert_close(value.double(), expected, rtol=1e-6, atol=0)
    value.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] > 0.4


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_half_precision_is_computed_in_float32(loss, options, dtype, autocast, soft):
    logits, index, distribution = draw((64, 1000), dtype=dtype)
    target = distribution.to(dtype) if soft else index
    weight = torch.linspace(0.5, 2, 1000).to(dtype)
    exact = logits.double().requires_grad_()
    arguments = {"weight": weight.double(), **options}
    expected = loss(exact, target.double() if soft else target, 0.1, **arguments)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        value = loss(logits, target, 0.1, **{**arguments, "weight": weight})
    assert value.dtype == torch.float32
    assert_close(value.double(), expected, rtol=1e-5, atol=0)
    value.backward()
    expected.backward()
    assert logits.grad.dtype == dtype
    assert_close(logits.grad, exact.grad.to(dtype), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_float64_stays_float64_under_autocast(loss, options):
    logits, index, _ = draw((4, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(logits, index, 0.1, **options)
    assert_close(got, loss(logits, index, 0.1, **options), rtol=0, atol=0)


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
def test_non_contiguous(loss, options):
    logits, index, soft = draw((4, 3, 5))
    turned, turned_index = logits.transpose(1, 2).contiguous().transpose(1, 2), index.t().contiguous().t()
    assert not turned.is_contiguous()
    eps = torch.rand(5, 4, dtype=torch.float64).t() * 0.5
    expected = loss(logits, index, eps.contiguous(), **options)
    assert_close(loss(turned, turned_index, eps, **options), expected, **EXACT)
    soft_turned = soft.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(loss(turned, soft_turned, **options), loss(logits, soft, **options), **EXACT)
    expanded = index[:, :1].expand(4, 5)
    assert_close(loss(turned, expanded, **options), loss(logits, expanded.clone(), **options), **EXACT)


def test_index_dtypes():
    logits, index, _ = draw((6, 4))
    index[2] = 255
    expected = smoothed_cross_entropy(logits, index, ignore_index=255)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert_close(smoothed_cross_entropy(logits, index.to(dtype), ignore_index=255), expected, **EXACT)
    narrow = torch.tensor([156], dtype=torch.uint8)  # -100 as a uint8
    with pytest.raises(ValueError, match="class index 156"):
        smoothed_cross_entropy(logits[:1], narrow)


def test_half_targets_meet_double_logits():
    logits, _, soft = draw((4, 5))
    assert_close(
        smoothed_cross_entropy(logits, soft.float()),
        smoothed_cross_entropy(logits, soft.float().double()),
        **EXACT,
    )


def test_no_sync_sees_a_sync():
    x = torch.arange(3.0)
    for bad in (lambda: x[0].item(), lambda: x[x > 0], lambda: bool(x[0] > 0), lambda: x.nonzero()):
        with pytest.raises(AssertionError, match="waits"), NoSync():
            bad()


@pytest.mark.parametrize(("loss", "options"), CLASS_LOSSES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("form", ["float", (), (1, 4), (3, 1)])
@pytest.mark.parametrize("mode", ["sample", "torch"])
def test_no_host_sync(loss, options, soft, form, mode):
    logits, index, distribution = draw((3, 4))
    logits.requires_grad_()
    index[0] = -100
    eps = 0.1 if form == "float" else torch.full(form, 0.1)
    weight = torch.arange(1.0, 5)
    with NoSync():
        target = distribution if soft else index
        loss(logits, target, eps, weight=weight, weight_mode=mode, **options).backward()
        smooth_targets(index.clamp(min=0), eps, 4)


def test_vmap_gives_per_sample_gradients():
    logits, index, _ = draw((5, 4))
    grads = torch.func.vmap(torch.func.grad(lambda z, y: smoothed_cross_entropy(z[None], y[None])))(logits, index)
    leaf = logits.clone().requires_grad_()
    smoothed_cross_entropy(leaf, index, reduction="sum").backward()
    assert_close(grads, leaf.grad, **EXACT)


# Refusals

Z, Y = torch.zeros(2, 5), torch.tensor([0, 4])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Z, Y, -0.1), {}, ValueError, r"eps must be in \[0, 1\), got -0.1"),
        ((Z, Y, 1.0), {}, ValueError, r"eps must be in \[0, 1\), got 1.0"),
        ((Z, Y, math.nan), {}, ValueError, r"eps must be in \[0, 1\), got nan"),
        ((Z, Y, "0.1"), {}, TypeError, "got str '0.1'"),
        ((Z, Y, None), {}, TypeError, "got NoneType None"),
        ((Z, Y, torch.tensor(1)), {}, TypeError, "floating-point tensor, got a tensor of torch.int64"),
        ((Z, Y, torch.zeros(3)), {}, ValueError, r"eps of shape \(3,\) does not fit logits \(2, 5\)"),
        ((Z, Y, torch.zeros(2, 5)), {}, ValueError, r"eps of shape \(2, 5\) does not fit"),
        ((torch.zeros(5), Y), {}, ValueError, r"logits \(5,\) and target \(2,\)"),
        ((torch.zeros(2, 1), Y), {}, ValueError, r"K >= 2, got logits \(2, 1\) and target \(2,\).*bce"),
        (
            (Z, Y[:, None]),
            {},
            ValueError,
            r"shape \(2,\) or .*\(2, 5\), got logits \(2, 5\) and target \(2, 1\)",
        ),
        ((Z, torch.zeros(3, dtype=torch.long)), {}, ValueError, r"got logits \(2, 5\) and target \(3,\)"),
        ((Z, torch.zeros(2, 4)), {}, ValueError, r"got logits \(2, 5\) and target \(2, 4\)"),
        (
            (Z, Y.float()),
            {},
            TypeError,
            r"integers, got torch.float32 with logits \(2, 5\) and target \(2,\)",
        ),
        ((Z, Y.bool()), {}, TypeError, "integers, got torch.bool"),
        ((Z, Z.long()), {}, TypeError, r"floating point, got torch.int64 .*\(2, 5\) and target \(2, 5\)"),
        ((Z.long(), Y), {}, TypeError, r"logits must be floating point, got torch.int64 of shape \(2, 5\)"),
        ((Z, Y + 1), {}, ValueError, r"class index 5 is out of range .*5 classes are 0 to 4"),
        ((Z, Y - 1), {}, ValueError, "class index -1 is out of range"),
        ((Z, Z), {"ignore_index": 3}, ValueError, "ignore_index=3 names a class index"),
        ((Z, Y), {"weight": torch.ones(4)}, ValueError, r"weight must be \(5,\) .*\(2, 5\), got \(4,\)"),
        ((Z, Y), {"reduction": "avg"}, ValueError, "reduction must be one of 'mean', 'sum', .* got 'avg'"),
        ((Z, Y), {"input": "probs"}, ValueError, "input must be one of 'logits', 'log_probs', got 'probs'"),
        ((Z, Y), {"weight_mode": "class"}, ValueError, "weight_mode must be one of"),
    ],
)
@pytest.mark.parametrize("loss", [smoothed_cross_entropy, smoothed_kl_div, soft_cross_entropy])
def test_refusals(loss, arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        loss(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [smoothed_cross_entropy, smoothed_kl_div])
def test_unknown_spread_is_refused(loss):
    with pytest.raises(ValueError, match="spread must be one of 'all', 'others', got 'none'"):
        loss(Z, Y, spread="none")


def test_per_class_eps_does_not_hide_a_negative_class():
    for name in ("weight", "eps"):
        with pytest.raises(ValueError, match="class index -1"):
            smoothed_cross_entropy(Z, Y - 1, **{name: torch.full((5,), 0.1)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Y, 0.1, 1), "num_classes must be at least 2, got 1"),
        ((Y, 1.5, 5), r"eps must be in \[0, 1\)"),
        ((Y, 0.1, 4), "class index 4 is out of range"),
        ((torch.tensor([-100]), 0.1, 4), "class index -100 is out of range"),
        ((torch.zeros(2, 3), 0.1, 4), r"\(N, 4, d1, ...\), got torch.float32 of shape \(2, 3\)"),
        ((torch.zeros(2), 0.1, 2), r"got torch.float32 of shape \(2,\)"),
        ((torch.tensor(1), 0.1, 2), r"of shape \(\)"),
    ],
)
def test_smooth_targets_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        smooth_targets(*arguments)
