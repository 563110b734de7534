"""The loop in C is the loss: beside float64, over layouts, dtypes, options, threads and neighbours."""

from functools import partial
from unittest import mock

import pytest
import torch
from clear_loss import LAYOUTS, clear, value_and_gradient
from peak_bytes import peak_bytes
from torch.testing import assert_close

from ls_lightning.functional import fused_express, fused_quick, fused_rows, smoothed_cross_entropy, smoothed_kl_div
from ls_lightning.functional.native import loss as native_loss

pytestmark = pytest.mark.skipif(native_loss.loop() is None, reason="needs a C compiler")
LOSSES = [
    smoothed_cross_entropy,
    partial(smoothed_cross_entropy, spread="others"),
    smoothed_kl_div,
    partial(smoothed_kl_div, spread="all"),
]
TOLERANCE = {
    torch.float32: {"rtol": 2e-6, "atol": 2e-7},
    torch.bfloat16: {"rtol": 2**-8, "atol": 2e-7},
    torch.float16: {"rtol": 2**-11, "atol": 2e-7},
}


def draw(shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(shape).to(dtype), torch.randint(shape[1], (shape[0], *shape[2:]))


def by_the_loop(loss, *args, **options):
    """The loss and its gradient, which no other way had a part in."""
    with (
        mock.patch.object(fused_rows, "_piece", side_effect=AssertionError),
        mock.patch.object(fused_express, "run_loop", wraps=native_loss.run_loop) as express,
        mock.patch.object(fused_rows, "run_loop", wraps=native_loss.run_loop) as rows,
        mock.patch.object(fused_quick, "run_form", wraps=native_loss.run_form) as quick,
    ):
        found = value_and_gradient(loss, *args, **options)
    assert express.called or rows.called or quick.called
    return found


def agree(loss, logits, target, eps, **options):
    value, gradient = by_the_loop(loss, logits, target, eps, **options)
    with clear():
        exact, slope = value_and_gradient(loss, logits.double(), target, eps, **options)
    assert_close(value.double(), exact, rtol=2e-6, atol=1e-6, equal_nan=True)
    assert gradient.dtype == logits.dtype
    assert_close(gradient.double(), slope, equal_nan=True, **TOLERANCE[logits.dtype])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_classes", [2, 33, 130])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layouts(layout, num_classes, dtype):
    torch.manual_seed(0)
    logits = (LAYOUTS[layout](num_classes) * 3).to(dtype)
    target = torch.randint(num_classes, (logits.shape[0], *logits.shape[2:]))
    for loss in LOSSES:
        agree(loss, logits, target, 0.2)
        agree(loss, logits, target, 0.2, reduction="none")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(40, 5), (40, 70), (6, 5, 3, 7)])
def test_what_differs_from_row_to_row(loss, shape):
    logits, target = draw(shape)
    logits.select(1, 1).masked_fill_(target != 1, -torch.inf)
    logits[0], target[0] = torch.nan, -100
    logits[1, 2:] = -torch.inf  # with "others" nobody is left to take eps of the one of them, or of both
    target[1].fill_(0)
    weight, eps = torch.rand(shape[1]), torch.rand(target.shape) / 2
    for reduction in ("mean", "sum", "none", "batchmean"):
        agree(loss, logits, target, 0.2, reduction=reduction)
        agree(loss, logits, target, eps, reduction=reduction, weight=weight)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan, -1e36, 1e36])
def test_what_is_not_finite_in_long_rows(loss, value):
    logits, target = draw((30, 70))
    logits[::3, 1] = logits[::5, 69] = value
    logits[1], target[:12] = value, torch.tensor([-100, 0, 1, 69]).repeat(3)
    agree(loss, logits, target, 0.2, reduction="none")


@pytest.mark.parametrize("shape", [(50_000, 10), (700, 1000), (2, 21, 120, 120)])
def test_any_number_of_threads_gives_the_same_bits(shape):
    logits, target = draw(shape)
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(by_the_loop(smoothed_cross_entropy, logits, target))
    finally:
        torch.set_num_threads(threads)
    assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("num_classes", [3, 63, 64, 101])
def test_a_row_does_not_depend_on_its_place(num_classes):
    logits, target = draw((37, num_classes))
    together = by_the_loop(smoothed_cross_entropy, logits, target, reduction="sum")[1]
    for row in (0, 20, 36):
        moved = torch.empty(num_classes + 1)[1:].copy_(logits[row]).unsqueeze(0)
        alone = by_the_loop(smoothed_cross_entropy, moved, target[row : row + 1], reduction="sum")[1]
        assert_close(alone[0], together[row], rtol=0, atol=0)


def test_exponentials_are_right_to_the_last_digits():
    gap = torch.linspace(0, 86, 4001)
    logits = torch.stack([torch.zeros_like(gap), -gap], 1)
    gradient = by_the_loop(smoothed_cross_entropy, logits, torch.zeros(4001, dtype=torch.long), 0, reduction="sum")[1]
    assert_close(gradient[:, 1].double(), torch.sigmoid(-gap.double()), rtol=4e-7, atol=0)


@pytest.mark.parametrize("shape", [(6, 4), (6, 70), (2, 4, 3)])
@pytest.mark.parametrize("wrong", [-1, 70, 2**40])
def test_a_class_that_is_none_is_named_before_anything_is_written(shape, wrong):
    logits, target = draw(shape)
    target.view(-1)[-1] = wrong
    target.view(-1)[0] = -100
    for reduction in ("mean", "none"):
        leaf = logits.clone().requires_grad_()
        with pytest.raises(ValueError, match=f"class index {wrong} is out of range"):
            smoothed_cross_entropy(leaf, target, reduction=reduction)


def test_memory_is_that_of_the_gradient():
    for shape in ((128, 10), (8192, 10), (256, 1000)):
        logits, target = draw(shape)
        leaf = logits.requires_grad_()
        smoothed_cross_entropy(leaf, target).backward()
        leaf.grad = None
        most = peak_bytes(lambda leaf=leaf, target=target: smoothed_cross_entropy(leaf, target).backward())
        assert most <= 1.02 * 4 * logits.numel()


def test_views_that_only_say_negative_are_read_as_such():
    logits, target = draw((6, 4))
    turned = torch.complex(logits, -logits).conj().imag
    assert turned.is_neg()
    assert_close(smoothed_cross_entropy(turned, target), smoothed_cross_entropy(logits, target))


def test_a_tensor_that_outlived_its_transform():
    logits, target = draw((6, 4))
    kept = []
    torch.func.grad(lambda z, y: (kept.append((z, y)), z.sum())[1])(logits, target)
    expected = value_and_gradient(smoothed_cross_entropy, logits, target)
    assert_close(smoothed_cross_entropy(*kept[0]), expected[0])
    assert_close(value_and_gradient(smoothed_cross_entropy, *kept[0]), expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_stack_of_models(dtype):
    logits, target = draw((3, 7, 20), dtype)
    target = torch.randint(20, (3, 7))
    found = torch.func.vmap(torch.func.grad(smoothed_cross_entropy))(logits, target)
    exact = [value_and_gradient(smoothed_cross_entropy, *one)[1] for one in zip(logits.double(), target, strict=True)]
    assert_close(found.double(), torch.stack(exact), **TOLERANCE[dtype])
