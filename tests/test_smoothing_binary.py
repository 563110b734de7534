import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional.smoothing import smoothed_binary_cross_entropy_with_logits as bce
from ls_lightning.functional.smoothing import smoothed_cross_entropy

SHAPES = [(5,), (4, 1), (4, 3), (2, 3, 4)]
EXACT = {"rtol": 0, "atol": 1e-12}
LOG_2 = math.log(2)


def draw(shape, seed=0, soft=False):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logits, target if soft else target.round()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [(), ("weight",), ("pos_weight",), ("weight", "pos_weight")])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_torch(shape, eps, soft, weighted, reduction, input):
    logits, target = draw(shape, soft=soft)
    options = {name: torch.linspace(0.2, 3, shape[-1], dtype=torch.float64) for name in weighted}
    ours, judge = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    values = ours if input == "logits" else F.logsigmoid(ours)
    got = bce(values, target, eps, reduction=reduction, input=input, **options)
    smooth = (1 - eps) * target + eps / 2
    expected = F.binary_cross_entropy_with_logits(judge, smooth, reduction=reduction, **options)
    assert_close(got, expected, rtol=0, atol=1e-11)
    got.sum().backward()
    expected.sum().backward()
    assert_close(ours.grad, judge.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_elements_cannot_be_seen(shape, weighted):
    logits, target = draw(shape)
    weight = torch.linspace(0.2, 3, logits.numel(), dtype=torch.float64).view(shape) if weighted else None
    ignored = torch.zeros(shape, dtype=torch.bool)
    ignored.flatten()[1::3] = True
    target[ignored] = -1
    logits[ignored] = torch.nan
    leaf = logits.clone().requires_grad_()
    options = {"weight": weight, "ignore_index": -1}
    got = bce(leaf, target, 0.1, **options)
    kept = None if weight is None else weight[~ignored]
    smooth = 0.9 * target[~ignored] + 0.05
    expected = F.binary_cross_entropy_with_logits(logits[~ignored], smooth, kept, reduction="sum")
    assert_close(got, expected / (~ignored).sum(), **EXACT)
    got.backward()
    assert (leaf.grad[ignored] == 0).all()
    assert leaf.grad.isfinite().all()
    assert_close(bce(logits, target, 0.1, reduction="batchmean", **options), expected / shape[0], **EXACT)
    none = bce(logits, target, 0.1, reduction="none", **options)
    assert (none[ignored] == 0).all()
    assert_close(none.sum(), expected, **EXACT)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("fill", [0.3, math.nan, math.inf])
def test_all_ignored_is_0_with_zero_gradient(reduction, fill):
    logits = torch.full((3, 2), fill, requires_grad=True)
    value = bce(logits, torch.full((3, 2), -100), reduction=reduction)
    assert (value == 0).all()
    value.sum().backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_empty_batch_is_0(reduction):
    logits = torch.zeros(0, 3, requires_grad=True)
    value = bce(logits, torch.zeros(0, 3), reduction=reduction)
    value.backward()
    assert value == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_eps_forms_agree(shape):
    logits, target = draw(shape)
    expected = bce(logits, target, 0.25, reduction="none")
    ones = (1,) * (len(shape) - 2)
    forms = [(), shape, (shape[0], 1)]
    forms += [(shape[1],), (1, shape[1]), (shape[0], 1, *ones)] if len(shape) > 1 else []
    for form in forms:
        eps = torch.full(form, 0.25, dtype=torch.float64)
        assert_close(bce(logits, target, eps, reduction="none"), expected, **EXACT)


def test_eps_per_label_per_sample_and_per_element():
    logits, target = draw((4, 3, 2))
    for form in ((3,), (1, 3), (4, 1), (4, 1, 2), (4, 3, 2)):
        eps = torch.linspace(0, 0.8, math.prod(form), dtype=torch.float64).view(form)
        aligned = eps if eps.ndim == 3 else eps.view(*(1,) * (2 - eps.ndim), *form, 1)
        smooth = (1 - aligned) * target + aligned / 2
        expected = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        assert_close(bce(logits, target, eps, reduction="none"), expected, **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.floats(-800, 800), st.floats(0, 1), st.floats(0, 0.95))
def test_turning_the_outcomes_round_changes_nothing(z, y, eps):
    logit, target = torch.tensor([z], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    assert_close(bce(logit, target, eps), bce(-logit, 1 - target, eps), rtol=1e-10, atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(st.floats(-300, -1e-300), st.integers(0, 1), st.just(0.0) | st.floats(1e-6, 0.95))  # 1 - q to 1e-9
def test_log_probs_over_their_whole_range(lp, y, eps):
    value = torch.tensor([lp], dtype=torch.float64, requires_grad=True)
    loss = bce(value, torch.tensor([y]), eps, input="log_probs")
    log_1_minus_p = math.log(-math.expm1(lp)) if lp > -LOG_2 else math.log1p(-math.exp(lp))
    q = (1 - eps) * y + eps / 2
    assert_close(float(loss.detach()), -q * lp - (1 - q) * log_1_minus_p, rtol=1e-12, atol=1e-12)
    loss.backward()
    assert value.grad.isfinite().all()
    # d/dx log(1 - e^x) = -1 / (e^-x - 1)
    assert_close(float(value.grad), -q + (1 - q) / math.expm1(-lp), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_certain_outcomes(eps, input):
    certain = {"logits": [-math.inf, math.inf], "log_probs": [-math.inf, 0.0]}[input]
    values = torch.tensor(certain, requires_grad=True)
    right = bce(values, torch.tensor([0, 1]), eps, input=input, reduction="none")
    assert (right == 0).all()
    right.sum().backward()
    # With respect to log-probabilities the gradient is -q.
    assert_close(values.grad, torch.tensor([0.0, 0.0 if input == "logits" else -1.0]))
    wrong = bce(values, torch.tensor([1, 0]), eps, input=input, reduction="none")
    assert (wrong == torch.inf).all()
    two_classes = torch.tensor([[0.0, -math.inf]])
    assert (smoothed_cross_entropy(two_classes, torch.tensor([0]), eps) == 0).all()


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_weight_0_silences_an_infinite_loss(name):
    logits = torch.tensor([-math.inf, 0.5], requires_grad=True)
    loss = bce(logits, torch.tensor([1, 1]), 0.0, **{name: torch.tensor([0.0, 2.0])})
    loss.backward()
    expected = F.binary_cross_entropy_with_logits(torch.tensor(0.5), torch.tensor(1.0))  # 2 / 2 elements
    assert_close(loss.detach(), expected)
    assert logits.grad[0] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_half_precision_is_computed_in_float32(dtype, autocast, input):
    logits, target = draw((32, 50))
    values = (logits if input == "logits" else F.logsigmoid(logits)).to(dtype)
    exact = values.double().requires_grad_()
    expected = bce(exact, target, 0.1, input=input)
    values.requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        got = bce(values, target.to(dtype), 0.1, input=input)
    assert got.dtype == torch.float32
    assert_close(got.double(), expected, rtol=1e-5, atol=0)
    got.backward()
    expected.backward()
    assert values.grad.dtype == dtype
    assert_close(values.grad, exact.grad.to(dtype), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("gap", [18.0, 60000.0])
def test_large_half_logits_are_finite(gap):
    logits = torch.tensor([gap, -gap], dtype=torch.float16, requires_grad=True)
    loss = bce(logits, torch.tensor([0, 1]), 0.1)
    loss.backward()
    assert_close(loss.detach(), torch.tensor(0.95 * gap), rtol=1e-5, atol=0)
    assert_close(logits.grad, torch.tensor([0.475, -0.475], dtype=torch.float16), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_target_dtypes(dtype):
    logits, target = draw((4, 3))
    assert_close(bce(logits, target.to(dtype)), bce(logits, target), **EXACT)
    if dtype == torch.uint8:
        padded = target.to(dtype).masked_fill(torch.eye(4, 3, dtype=torch.bool), 255)
        assert_close(bce(logits, padded, ignore_index=255), bce(logits, padded.double(), ignore_index=255))


def test_non_contiguous():
    logits, target = draw((4, 3))
    assert_close(bce(logits.t(), target.t()), bce(logits, target), **EXACT)
    column = logits[:, :1].expand(4, 3)
    assert_close(bce(column, target), bce(column.clone(), target), **EXACT)


@pytest.mark.parametrize("input", ["logits", "log_probs"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_gradcheck(input, reduction):
    logits, target = draw((3, 2), soft=True)
    target[0, 0] = -100
    values = (logits if input == "logits" else F.logsigmoid(logits)).detach().requires_grad_()
    eps = torch.tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True)
    weight, pos_weight = torch.tensor([0.5, 2.0]).double(), torch.tensor([3.0, 0.2]).double()

    def function(values, eps):
        return bce(values, target, eps, weight=weight, pos_weight=pos_weight, reduction=reduction, input=input)

    assert torch.autograd.gradcheck(function, (values, eps))


Z, Y = torch.zeros(4, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Z, Y[:, 0]), {}, ValueError, r"same shape.*got logits \(4, 3\) and target \(4,\)"),
        ((Z[:, :1], Y[:, 0]), {}, ValueError, r"got logits \(4, 1\) and target \(4,\)"),
        ((torch.tensor(0.0), torch.tensor(1.0)), {}, ValueError, r"got logits \(\) and target \(\)"),
        ((Z.int(), Y), {}, TypeError, r"logits must be floating point, got torch.int32 of shape \(4, 3\)"),
        ((Z, Y, 1.0), {}, ValueError, r"eps must be in \[0, 1\), got 1.0"),
        ((Z, Y, math.nan), {}, ValueError, "got nan"),
        ((Z, Y, torch.zeros(4)), {}, ValueError, r"eps of shape \(4,\) does not fit logits \(4, 3\)"),
        ((Z, Y, torch.zeros(2, 2)), {}, ValueError, r"eps of shape \(2, 2\) does not fit"),
        (
            (Z, Y),
            {"weight": torch.ones(4)},
            ValueError,
            r"weight must broadcast over logits \(4, 3\), .*\(4,\)",
        ),
        ((Z, Y), {"weight": torch.ones(2, 4, 3)}, ValueError, r"weight must broadcast"),
        ((Z[:, :1], Y[:, :1]), {"pos_weight": torch.ones(3)}, ValueError, r"pos_weight must broadcast"),
        ((Z, Y), {"reduction": "avg"}, ValueError, "reduction must be one of"),
        ((Z, Y), {"input": "probs"}, ValueError, "input must be one of"),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        bce(*arguments, **options)
    assert "\n" not in str(caught.value)
