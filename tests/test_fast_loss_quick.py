"""A small batch of a form that was seen before: the same bits as by the usual way, and every other call goes that."""

from unittest import mock

import pytest
import torch
from clear_loss import clear, value_and_gradient
from torch.testing import assert_close

from ls_lightning.functional import fused_quick, smoothed_cross_entropy, smoothed_kl_div, smoothing
from ls_lightning.functional.native import loss as native_loss

pytestmark = pytest.mark.skipif(native_loss.loop() is None, reason="needs a C compiler")

LOSSES = [smoothed_cross_entropy, smoothed_kl_div]
OPTIONS = [
    {},
    {"reduction": "sum"},
    {"reduction": "batchmean", "ignore_index": 1},
    {"spread": "others"},
    {"spread": "all", "ignore_index": 0},
]


@pytest.fixture(autouse=True)
def no_forms(monkeypatch):
    monkeypatch.setattr(fused_quick, "_FORMS", {})


def draw(shape=(12, 5), dtype=torch.float32):
    torch.manual_seed(0)
    return 3 * torch.randn(shape).to(dtype), torch.randint(shape[1], (shape[0], *shape[2:]))


def is_quick(loss, logits, *args, **options):
    with mock.patch.object(fused_quick, "run_form", wraps=native_loss.run_form) as run:
        loss(logits, *args, **options)
    return run.called


def usual_way():
    return mock.patch.object(smoothing, "quick_loss", return_value=None)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(12, 5), (3, 70), (2, 4, 3, 3), (1, 2)])
def test_the_same_bits(loss, options, dtype, shape):
    logits, target = draw(shape, dtype)
    for eps in (0.0, 0.3):  # the second of the same form
        assert is_quick(loss, logits.clone().requires_grad_(), target, eps, **options)
        for upstream in (torch.tensor(1.0), torch.tensor(-2.5), torch.tensor(0.0)):
            found = value_and_gradient(loss, logits, target, eps, upstream=upstream, **options)
            with usual_way():
                assert_close(
                    found, value_and_gradient(loss, logits, target, eps, upstream=upstream, **options), rtol=0, atol=0
                )


@pytest.mark.parametrize("loss", LOSSES)
def test_statistics_are_those_of_the_usual_way(loss):
    logits, target = draw()
    target[3] = -100
    logits[4, 2] = torch.nan
    logits.requires_grad_()
    found, usual = torch.empty(2, 4, 12)
    assert is_quick(loss, logits, target, 0.1, statistics=found)
    with usual_way():
        loss(logits, target, 0.1, statistics=usual)
    assert_close(found, usual, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_again_and_of_the_gradient(loss, dtype):
    logits, target = draw(dtype=dtype)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, 0.2)
    first, second = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)
    slope = torch.autograd.grad(loss(leaf, target, 0.2), leaf, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.float().square().sum(), leaf)[0]
    with clear():
        slope = torch.autograd.grad(loss(leaf, target, 0.2), leaf, create_graph=True)[0]
        expected = torch.autograd.grad(slope.float().square().sum(), leaf)[0]
    assert curvature.abs().max() > 0
    assert_close(curvature, expected)


def test_what_is_not_usual_goes_the_usual_way():
    logits, target = draw()
    leaf = logits.clone().requires_grad_()
    loss = smoothed_cross_entropy
    assert is_quick(loss, leaf, target, 0.1)
    others = {
        "nobody wants a gradient": (logits, target, 0.1),
        "a parameter": (torch.nn.Parameter(logits), target, 0.1),
        "float64": (leaf.double(), target, 0.1),
        "strided": (logits.t().contiguous().requires_grad_().t(), target, 0.1),
        "a strided target": (leaf, torch.stack([target, target], 1)[:, 0], 0.1),
        "int32": (leaf, target.int(), 0.1),
        "soft": (leaf, logits.softmax(1), 0.1),
        "eps is a tensor": (leaf, target, torch.tensor(0.1)),
        "large": (torch.zeros(2**10, 2**8, requires_grad=True), torch.zeros(2**10, dtype=torch.int64), 0.1),
    }
    quick = {name for name, args in others.items() for _ in range(2) if is_quick(loss, *args)}
    assert quick == set()
    assert not is_quick(loss, leaf, target, 0.1, reduction="none")
    assert not is_quick(loss, leaf, target, 0.1, weight=torch.ones(5))
    with torch.no_grad():
        assert not is_quick(loss, leaf, target, 0.1)
    assert is_quick(loss, leaf, target, 0.1)


def test_transforms_and_compilers_do_not_see_it():
    logits, target = draw()
    with usual_way():
        expected = torch.func.grad(smoothed_cross_entropy)(logits, target, 0.1)
        tangent = torch.func.jvp(lambda x: smoothed_cross_entropy(x, target, 0.1), (logits,), (logits,))[1]
    leaf = logits.clone().requires_grad_()
    assert is_quick(smoothed_cross_entropy, leaf, target, 0.1)
    assert_close(torch.func.grad(smoothed_cross_entropy)(leaf.detach(), target, 0.1), expected)
    assert_close(torch.func.jvp(lambda x: smoothed_cross_entropy(x, target, 0.1), (leaf,), (logits,))[1], tangent)
    compiled = torch.compile(smoothed_cross_entropy, backend="eager", fullgraph=True)
    assert_close(compiled(leaf, target, 0.1), smoothed_cross_entropy(leaf, target, 0.1))


def test_what_is_wrong_is_said_as_before():
    logits, target = draw()
    leaf = logits.requires_grad_()
    smoothed_cross_entropy(leaf, target, 0.1)
    wrong = [
        ((leaf, target.clamp(min=5), 0.1), {}),
        ((leaf, target, 1.0), {}),
        ((leaf, target, float("nan")), {}),
        ((leaf, target[1:], 0.1), {}),
        ((leaf, target, 0.1), {"reduction": "avg"}),
        ((leaf, target, 0.1), {"spread": "some"}),
        ((leaf, target, 0.1), {"weight_mode": "class"}),
        ((leaf, target, 0.1), {"statistics": torch.empty(12, 4)}),
    ]
    for args, options in wrong:
        with usual_way(), pytest.raises(ValueError, match=r".") as usual:
            smoothed_cross_entropy(*args, **options)
        for _ in range(2):
            with pytest.raises(ValueError, match=r".") as quick:
                smoothed_cross_entropy(*args, **options)
            assert str(quick.value) == str(usual.value)


def test_few_forms_are_kept():
    for rows in range(1, fused_quick._MOST + 20):
        logits = torch.zeros(rows, 3, requires_grad=True)
        smoothed_cross_entropy(logits, torch.zeros(rows, dtype=torch.int64), 0.1)
        assert len(fused_quick._FORMS) <= fused_quick._MOST
