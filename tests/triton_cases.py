"""Cases of `test_triton_loss.py`: with TRITON_INTERPRET=1 Triton interprets its kernels on a CPU, else they need a GPU.

The losses as their users call them, by the kernel, are compared with the clear formulation in float64.
"""

import math
import os
from functools import partial
from unittest import mock

import pytest
import torch
from clear_loss import clear, value_and_gradient
from no_sync import NoSync
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning import functional
from ls_lightning.functional import prior_smoothing, smoothed_cross_entropy, smoothed_kl_div, triton_rows
from ls_lightning.functional.fused_rows import SmoothedTarget
from ls_lightning.functional.rows import read_logits

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of nan and inf
if os.environ.get("TRITON_INTERPRET") != "1":
    torch.set_default_device("cuda")

LOSSES = {
    "ce": smoothed_cross_entropy,
    "ce-others": partial(smoothed_cross_entropy, spread="others"),
    "kl": smoothed_kl_div,
    "kl-all": partial(smoothed_kl_div, spread="all"),
    "prior": partial(prior_smoothing, prior=torch.tensor([3.0, 1, 0, 2, 5, 1, 1, 2, 1, 4, 2])),
}
K = 11
LAYOUTS = {
    "rows": torch.randn(6, K),
    "pixels": torch.randn(2, K, 3, 2),
    "channels last": torch.randn(2, K, 3, 2).to(memory_format=torch.channels_last),
    "transposed": torch.randn(K, 6).t(),
}
EXACT = {"rtol": 1e-11, "atol": 1e-13}
WAYS = {"registers": {"WHOLE": 2**14}, "blocks": {"WHOLE": 0, "_BLOCK": 8, "_NEIGHBOURS": 2}}


@pytest.fixture(params=WAYS)
def way(request):
    """Rows that fit into the registers of a program, or a few classes after the other."""
    with mock.patch.multiple(triton_rows, **WAYS[request.param]):
        yield


@pytest.fixture(autouse=True)
def passes(monkeypatch):
    """As on a GPU, at whose values nobody looks, the kernel in place of torch's operations; lists its calls."""
    calls, own = [], triton_rows._launch

    def launch(logits, target, dtype, scale, gradient, *rest):
        calls.append(gradient is not None)
        own(logits, target, dtype, scale, gradient, *rest)

    monkeypatch.setattr(triton_rows, "_launch", launch)
    monkeypatch.setattr(triton_rows, "takes", lambda logits: True)
    monkeypatch.setattr(functional.smoothing, "quick_loss", lambda *args: None)  # which is for a CPU
    for module in vars(functional).values():
        if hasattr(module, "may_read"):
            monkeypatch.setattr(module, "may_read", lambda values: False)
    return calls


def draw(logits, masked=False):
    torch.manual_seed(1)
    target = torch.randint(logits.shape[1], (logits.shape[0], *logits.shape[2:]))
    if masked:
        gone = torch.rand(logits.shape) < 0.4
        logits = logits.clone().masked_fill(gone.scatter(1, target.unsqueeze(1), False), -math.inf)
    return logits.double() * 3, target


def agree(passes, loss, logits, *args, tolerance=EXACT, upstream=None, **options):
    got = value_and_gradient(loss, logits, *args, upstream=upstream, **options)
    assert passes
    with clear():
        expected = value_and_gradient(loss, logits.double(), *args, upstream=upstream, **options)
    assert_close(got[0], expected[0], equal_nan=True, check_dtype=False, **tolerance)
    assert_close(got[1], expected[1].to(logits.dtype), equal_nan=True, **tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.usefixtures("way")
def test_options(passes, loss):
    logits, target = draw(LAYOUTS["rows"], masked=True)
    target[3] = -100
    logits[3] = math.nan
    options = {"weight": torch.rand(K), "weight_mode": "torch"}
    agree(passes, LOSSES[loss], logits, target, torch.rand(6, 1).double() * 0.8, **options)
    agree(passes, LOSSES[loss], logits, target, torch.tensor(0.3), weight=torch.rand(K), reduction="sum")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("way")
def test_layouts(passes, layout):
    logits, target = draw(LAYOUTS[layout])
    upstream = torch.rand(target.shape).double()
    agree(passes, smoothed_kl_div, logits, target, torch.linspace(0, 0.9, K), reduction="none", upstream=upstream)


@pytest.mark.parametrize("num_classes", [2, 64])
@pytest.mark.usefixtures("way")
def test_numbers_of_classes(passes, num_classes):
    logits, target = draw(torch.randn(5, num_classes))
    agree(passes, smoothed_cross_entropy, logits, target, 0.1, upstream=torch.tensor(3.0).double())


@pytest.mark.parametrize(
    "logits",
    [torch.randn(5, 70)[:, 3:67], torch.randn(64, 53).t()[2:17:3], torch.randn(1, 64).expand(5, 64)],
    ids=["some columns", "every third column", "expanded"],
)
@pytest.mark.usefixtures("way")
def test_strides(logits):
    label, wide = torch.arange(len(logits)), logits.double().requires_grad_()
    expected = F.cross_entropy(wide, label, label_smoothing=0.1, reduction="none")
    expected.sum().backward()
    gradient = torch.empty(len(logits), 201)[:, 1:65]
    rows = (logits.unsqueeze(2), plain(label.view(-1, 1, 1), num_classes=64), torch.float32, 1.0)
    losses = triton_rows.smoothed_rows(*rows, gradient.unsqueeze(2), False)
    assert_close(losses.flatten(), expected.detach().float())
    assert_close(gradient, wide.grad.float())


@pytest.mark.usefixtures("way")
def test_the_gradient_takes_the_place_of_the_logits(passes):
    logits, target = draw(LAYOUTS["rows"])
    leaf = logits.clone().requires_grad_()
    consumed = leaf * 1
    smoothed_cross_entropy(consumed, target, 0.2, consume_logits=True).backward()
    assert passes == [False, True]
    expected = torch.autograd.functional.jacobian(lambda z: F.cross_entropy(z, target, label_smoothing=0.2), logits)
    assert_close(leaf.grad, expected, **EXACT)
    assert_close(consumed.detach(), expected, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torch_notices_where_consumed_logits_are_needed(dtype):
    logits, target = torch.randn(6, K, dtype=dtype, requires_grad=True), torch.randint(K, (6,))
    seen = logits.exp()  # whose derivative is its result
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        smoothed_cross_entropy(seen, target, consume_logits=True).backward()


@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    [(torch.float32, True, []), (torch.bfloat16, True, [True]), (torch.float16, False, [True])],
)
@pytest.mark.parametrize("upstream", [1.0, 0.3])
def test_the_gradient_is_made_in_the_forward_pass(passes, dtype, forward, backward, upstream):
    logits, target = draw(torch.randn(6, K))
    leaf = logits.to(dtype).requires_grad_()
    loss = smoothed_cross_entropy(leaf, target, 0.1)
    assert passes == [forward]
    loss.backward(torch.tensor(upstream))
    assert passes == [forward, *backward]
    wide = leaf.detach().double().requires_grad_()
    F.cross_entropy(wide, target, label_smoothing=0.1).backward(torch.tensor(upstream).double())
    assert_close(leaf.grad, wide.grad.to(dtype), rtol=8e-3 if dtype == torch.bfloat16 else 1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "kl", "prior"])
@pytest.mark.usefixtures("way")
def test_nonsense(passes, loss):
    logits, target = draw(torch.randn(7, K))
    logits[0, 2] = math.nan
    logits[1, 0] = math.inf
    logits[2, 1:5] = -math.inf
    logits[3] = -math.inf
    logits[4, target[4]] = -math.inf  # gives inf
    logits[5] = torch.arange(K)
    logits[5, torch.arange(K) != target[5]] = -math.inf  # the true class alone is left
    logits[6] = 1e4 + torch.arange(K) * 1e-3
    agree(passes, LOSSES[loss], logits, target, 0.3, reduction="none")


@pytest.mark.usefixtures("way")
def test_a_class_of_weight_0_does_not_count(passes):
    logits, target = draw(torch.randn(4, K))
    logits[2, target[2]] = -math.inf
    weight = torch.rand(K).double()
    weight[target[2]] = 0
    for mode in "torch", "sample":
        agree(passes, smoothed_cross_entropy, logits, target, 0.3, weight=weight, weight_mode=mode)


@pytest.mark.parametrize("wrong", [-1, K])
def test_a_class_that_is_not_there_gives_nan(wrong):
    logits, label = torch.randn(2, K, 1), torch.tensor([3, wrong]).view(2, 1, 1)
    gradient = torch.empty_like(logits)
    losses = triton_rows.smoothed_rows(logits, plain(label), torch.float32, 1.0, gradient, False)
    assert losses.isnan().flatten().tolist() == [False, True]
    assert gradient.isnan().all(1).flatten().tolist() == [False, True]


def plain(label, eps=0.1, num_classes=K):
    return SmoothedTarget(label, None, eps, False, None, None, 1.0, False, num_classes)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, {"rtol": 1e-5, "atol": 1e-7}),
        (torch.bfloat16, {"rtol": 8e-3, "atol": 1e-6}),
        (torch.float16, {"rtol": 1e-3, "atol": 1e-6}),
    ],
)
@pytest.mark.usefixtures("way")
def test_narrow_dtypes_are_rounded_once(passes, dtype, tolerance):
    logits, target = draw(torch.randn(6, K))
    agree(passes, smoothed_cross_entropy, logits.to(dtype), target, 0.1, tolerance=tolerance)
    # As a gradient scaler has it: a loss of 2**16 times a gradient that float16 could not hold.
    scaled = torch.tensor(2.0**16)
    agree(passes, smoothed_cross_entropy, logits.to(dtype) * 4, target, 0.1, upstream=scaled, tolerance=tolerance)


def test_as_many_classes_as_there_may_be(passes):
    logits, target = draw(torch.randn(1, 262144))
    agree(passes, smoothed_cross_entropy, logits.float(), target, 0.1, tolerance={"rtol": 5e-6, "atol": 1e-9})


@pytest.mark.parametrize("strides", [(2**30 + 16, 1), (1, 2**30 + 16)], ids=["rows", "classes"])
def test_places_beyond_32_bits(strides):
    try:
        memory = torch.empty(2**31 + 2**10, dtype=torch.bfloat16)  # of which a few pages are touched
    except RuntimeError:
        pytest.skip("needs 4 GB of address space")
    logits = memory.as_strided((3, 3), strides).copy_(torch.randn(3, 3))
    label, wide = torch.tensor([1, 2, 0]), logits.double().requires_grad_()
    F.cross_entropy(wide, label, label_smoothing=0.1, reduction="sum").backward()
    place, smoothed = logits.unsqueeze(2), plain(label.view(3, 1, 1), num_classes=3)
    triton_rows.smoothed_rows(place, smoothed, torch.float32, 1.0, place, True)
    assert_close(logits, wide.grad.bfloat16())


@pytest.mark.usefixtures("way")
def test_statistics_of_rows():
    logits, target = draw(torch.randn(6, K), masked=True)
    logits[0, 3] = logits[0, 9] = logits[0].amax() + 1  # of two that are the largest, the first counts
    target[0] = 9
    logits[1] = torch.arange(K)
    target[1] = K - 1
    logits[2] = -math.inf
    target[2] = 0
    valid = torch.arange(6) < 5
    logits[3, 1:], target[3] = -math.inf, 0  # none is left besides
    logits[4, 2] = 800  # nor as many as float64 has room for
    found, gradient = torch.full((4, 6), 7.0), torch.empty(6, K, 1)
    smoothed = plain(target.view(6, 1, 1))._replace(valid=valid.view(6, 1, 1))
    triton_rows.smoothed_rows(logits.unsqueeze(2), smoothed, torch.float64, 1.0, gradient, True, found)
    row = read_logits(logits, target)
    expected = torch.stack([row.nll, row.log_odds, row.squares, row.correct.double()]).float()
    expected[:, 5] = torch.tensor([0, 0, 0, -1])
    assert found[0, 2].isnan()
    read = torch.tensor([0, 1, 3, 5])
    assert_close(found[:, read], expected[:, read], rtol=3e-7, atol=0)
    assert found[:3, 4].tolist() == pytest.approx([float(row.nll[4]), -math.inf, 1])
    assert (gradient[5] == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("way")
def test_statistics_of_layouts(passes, layout, dtype):
    logits, target = draw(LAYOUTS[layout])
    logits, found = (logits * 3).to(dtype), torch.full((4, target.numel()), 7.0)
    smoothed_cross_entropy(logits.requires_grad_() * 1, target, torch.tensor(0.1), statistics=found).backward()
    assert passes
    row = read_logits(logits.detach().movedim(1, -1).flatten(0, -2), target.flatten())
    assert_close(found.double(), torch.stack([row.nll, row.log_odds, row.squares, row.correct]), rtol=1e-6, atol=1e-6)


def test_a_factor_of_1_leaves_the_gradient_alone():
    logits, label = torch.randn(5, K, 1), torch.randint(K, (5, 1, 1))
    gradient, scale = torch.full_like(logits, 7), torch.rand(5, 1, 1)
    rest = (logits, plain(label), torch.float32, scale)
    triton_rows.multiply_rows(gradient, torch.tensor(1.0), *rest)
    assert (gradient == 7).all()
    triton_rows.multiply_rows(gradient, torch.tensor(0.25), *rest)
    expected = torch.empty_like(logits)
    triton_rows.smoothed_rows(*rest[:3], scale * 0.25, expected, True)
    assert_close(gradient, expected)
    values = torch.randn(3, 1000)
    values[0, 0] = math.nan
    kept = values.clone()
    for factor in 1.0, 0.25:
        triton_rows.multiply(values, torch.tensor(factor))
        assert_close(values, kept * factor, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("upstream", [1.0, 0.25])
def test_nobody_waits_for_the_device(upstream):
    logits, target = torch.randn(5, K, requires_grad=True), torch.randint(K, (5,))
    statistics = torch.empty(4, 5)
    with NoSync():
        smoothed_cross_entropy(logits * 1, target, torch.tensor(0.1), statistics=statistics).mul(upstream).backward()
    expected = torch.autograd.grad(F.cross_entropy(logits, target, label_smoothing=0.1) * upstream, logits)[0]
    assert_close(logits.grad, expected)
