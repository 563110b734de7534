import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_sync import NoSync
from peak_bytes import peak_bytes
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional import linear_chunks, linear_ops, prior_smoothing, smoothed_cross_entropy
from ls_lightning.functional import linear_smoothed_cross_entropy as fused
from ls_lightning.losses import LinearSmoothedCrossEntropy

EXACT = {"rtol": 0, "atol": 1e-12}
REDUCTIONS = ["mean", "sum", "none", "batchmean"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Of 4 samples, so that few samples are several chunks and the last is not full."""
    monkeypatch.setattr(linear_chunks, "chunk_rows", lambda num_classes, device: 4)


def draw(samples=(10,), hidden=5, classes=7, seed=0, dtype=torch.float64):
    """Input, weight, bias, and class indices."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((*samples, hidden), (classes, hidden), (classes,))
    layer = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return *(tensor.requires_grad_() for tensor in layer), torch.randint(classes, samples, generator=generator)


def gradients(loss, *leaves):
    return torch.autograd.grad((loss * torch.linspace(1, 2, loss.numel()).view(loss.shape)).sum(), leaves)


def agree(got, expected, *leaves, **tolerance):
    assert_close(got, expected, **(tolerance or EXACT))
    for one, other in zip(gradients(got, *leaves), gradients(expected, *leaves), strict=True):
        assert_close(one, other, **(tolerance or EXACT))


def clear(input, weight, target, eps=0.1, bias=None, class_weight=None, **options):
    """Our own loss of all the logits."""
    logits = F.linear(input, weight, bias).movedim(-1, 1)
    function = prior_smoothing if "prior" in options else smoothed_cross_entropy
    return function(logits, target, eps, weight=class_weight, **options)


# Values and gradients


@pytest.mark.parametrize("samples", [(10,), (8,), (2, 3, 2)])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch(samples, eps, weighted, ignored, reduction):
    input, weight, bias, target = draw(samples)
    if ignored:
        target.flatten()[::3] = -100
        target.flatten()[-1] = 2
    class_weight = torch.linspace(0, 3, 7, dtype=torch.float64) if weighted else None
    options = {"reduction": reduction}
    got = fused(input, weight, target, eps, bias=bias, class_weight=class_weight, weight_mode="torch", **options)
    logits = F.linear(input, weight, bias).movedim(-1, 1)
    expected = F.cross_entropy(logits, target, class_weight, label_smoothing=eps, **options)
    agree(got, expected, input, weight, bias)


@pytest.mark.parametrize("weight_mode", [None, "sample", "torch"])
@pytest.mark.parametrize("spread", ["all", "others", "prior"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_our_own_loss_of_all_the_logits(weight_mode, spread, reduction, masked):
    input, weight, bias, target = draw((2, 5))
    target[0, 3] = 6
    if masked:
        bias = bias.detach().masked_fill(torch.arange(7) == 1, -torch.inf)
        target[target == 1] = 2
    target[1, 1] = -3
    options = {"prior": torch.linspace(0, 4, 7, dtype=torch.float64)} if spread == "prior" else {"spread": spread}
    if weight_mode is not None:
        options |= {"class_weight": torch.linspace(0, 2, 7, dtype=torch.float64), "weight_mode": weight_mode}
    options |= {"bias": bias, "reduction": reduction, "ignore_index": -3}
    leaves = (input, weight) if masked else (input, weight, bias)
    agree(fused(input, weight, target, 0.2, **options), clear(input, weight, target, 0.2, **options), *leaves)


@pytest.mark.parametrize("form", [(), (7,), (1, 7), (2, 1), (2, 5), (2, 1, 5)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_forms_of_eps(form, reduction):
    input, weight, bias, target = draw((2, 5))
    eps = torch.rand(form, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.9
    options = {"bias": bias, "reduction": reduction}
    agree(
        fused(input, weight, target, eps, **options), clear(input, weight, target, eps, **options), input, weight, bias
    )


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(0, 11),
    classes=st.integers(2, 9),
    hidden=st.integers(1, 4),
    eps=st.floats(0, 0.99),
    offset=st.floats(-1e4, 1e4),
    reduction=st.sampled_from(REDUCTIONS),
    seed=st.integers(0, 1000),
)
def test_any_size(samples, classes, hidden, eps, offset, reduction, seed):
    input, weight, bias, target = draw((samples,), hidden, classes, seed)
    target[:: seed % 3 + 1] = -100
    options = {"bias": bias + offset, "reduction": reduction}
    got, expected = fused(input, weight, target, eps, **options), clear(input, weight, target, eps, **options)
    agree(got, expected, input, weight, bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(reduction):
    *leaves, target = draw((6,), 3, 5)
    target[1] = -100

    def loss(input, weight, bias):
        return fused(input, weight, target, 0.1, bias=bias, reduction=reduction)

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


# What does not count


def test_ignored_samples_may_be_nan():
    input, weight, bias, target = draw()
    target[[0, 5, 9]] = -100
    counts = target != -100
    broken = input.detach().masked_fill(~counts.unsqueeze(1), torch.nan).requires_grad_()
    got = gradients(fused(broken, weight, target, bias=bias), broken, weight, bias)
    expected = gradients(fused(input, weight, target, bias=bias), input, weight, bias)
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, **EXACT)
    alone = fused(input[counts], weight, target[counts], bias=bias)
    assert_close(fused(broken, weight, target, bias=bias), alone, **EXACT)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("samples", [(5,), (0,), (2, 0)])
def test_nothing_counts(reduction, samples):
    input, weight, bias, target = draw(samples)
    target[:] = -100
    loss = fused(input, weight, target, bias=bias, reduction=reduction)
    assert_close(loss, torch.zeros(samples if reduction == "none" else (), dtype=torch.float64))
    for gradient in gradients(loss, input, weight, bias):
        assert_close(gradient, torch.zeros_like(gradient))


def test_a_masked_true_class_is_inf():
    input, weight, bias, target = draw()
    bias = bias.detach().masked_fill(torch.arange(7) == target[3], -torch.inf)
    losses = fused(input, weight, target, bias=bias, reduction="none")
    assert (losses == torch.inf).tolist() == (target == target[3]).tolist()


# How it is used


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_two_backward_passes(reduction):
    input, weight, bias, target = draw()
    loss = (3 * fused(input, weight, target, bias=bias, reduction=reduction)).sum()
    first = torch.autograd.grad(loss, (input, weight, bias), retain_graph=True)
    loss.backward(retain_graph=True)
    for leaf, gradient in zip((input, weight, bias), first, strict=True):
        assert_close(leaf.grad, gradient, rtol=0, atol=0)
    weight.grad.zero_()  # in place: what is kept for the next pass must not be this tensor
    loss.backward()
    assert_close(weight.grad, first[1], rtol=0, atol=0)
    assert_close(input.grad, 2 * first[0], **EXACT)


@pytest.mark.parametrize("frozen", [0, 1, 2, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_no_gradient_of_what_is_frozen(frozen, reduction, monkeypatch):
    *leaves, target = draw()
    for k in (frozen,) if isinstance(frozen, int) else frozen:
        leaves[k].requires_grad_(False)
    asked, whole = [], linear_ops.losses_in_chunks
    monkeypatch.setattr(
        linear_ops, "losses_in_chunks", lambda problem, needs: asked.append(needs) or whole(problem, needs)
    )
    input, weight, bias = leaves
    loss = fused(input, weight, target, bias=bias, reduction=reduction)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    assert loss.requires_grad == bool(wanted)
    if wanted:
        agree(loss, clear(input, weight, target, bias=bias, reduction=reduction), *wanted)
    assert list(asked[-1]) == [leaf.requires_grad for leaf in leaves]
    with torch.no_grad():
        fused(input, weight, target, bias=bias, reduction=reduction)
    assert not any(asked[-1])


@pytest.mark.parametrize("name", ["eps", "prior", "class_weight"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_learned_option(name, reduction):
    input, weight, bias, target = draw()
    leaf = torch.full((7,), 0.3, dtype=torch.float64, requires_grad=True)
    options = {"eps": 0.1, "bias": bias, "reduction": reduction, name: leaf[None] if name == "eps" else leaf}
    agree(fused(input, weight, target, **options), clear(input, weight, target, **options), input, weight, bias, leaf)


def test_function_transforms():
    input, weight, bias, target = draw()
    expected = gradients(fused(input, weight, target, bias=bias), input, weight)
    found = torch.func.grad(lambda *layer: fused(*layer, target, bias=bias), argnums=(0, 1))(input, weight)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, **EXACT)
    models = torch.stack([weight, 2 * weight])
    found = torch.func.vmap(lambda weight: fused(input, weight, target, bias=bias))(models)
    assert_close(found, torch.stack([fused(input, weight, target, bias=bias) for weight in models]), **EXACT)
    with forward_ad.dual_level():
        dual = fused(input, forward_ad.make_dual(weight, torch.ones_like(weight)), target, bias=bias)
        assert_close(forward_ad.unpack_dual(dual).tangent, expected[1].sum(), **EXACT)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_whole_with_another_eps_each_step(reduction):
    input, weight, bias, target = draw()
    module = LinearSmoothedCrossEntropy(reduction=reduction)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for eps in (0.1, 0.0, 0.3):
        module.set_eps(eps)
        agree(compiled(input, weight, target, bias), module(input, weight, target, bias), input, weight, bias)
    assert counter.frame_count == 1
    torch._dynamo.reset()


# Narrow dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow(dtype, reduction, autocast):
    """At least as near to float64 as the logits in this dtype, with room for another rounding."""
    leaves = draw((200,), 32, 50, dtype=torch.float32 if autocast else dtype)
    input, weight, bias, target = leaves
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves[:3]]
    expected = clear(*exact[:2], target, bias=exact[2], reduction=reduction)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        got = fused(input, weight, target, bias=bias, reduction=reduction)
        judge = clear(input, weight, target, bias=bias, reduction=reduction)
    assert got.dtype == torch.float32
    rounding = torch.finfo(dtype).eps / 8 * expected.norm()  # of which a mean of the judge's may be free by chance
    assert (got - expected).norm() <= 1.5 * (judge - expected).norm() + rounding
    for ours, theirs, right in zip(
        gradients(got, *leaves[:3]), gradients(judge, *leaves[:3]), gradients(expected, *exact), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert (ours - right).norm() <= 1.2 * (theirs - right).norm() + 1e-6


def test_the_gradient_of_a_weight_is_summed_in_float32(monkeypatch):
    """500 chunks with the same small part: a sum in bfloat16 stops growing at 256 of them."""
    monkeypatch.setattr(linear_chunks, "chunk_rows", lambda num_classes, device: 1)
    input, weight = torch.ones(500, 1), torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused(input, weight, torch.zeros(500, dtype=torch.long), 0.0, reduction="sum").backward()
    assert_close(weight.grad, torch.tensor([[-250.0], [250.0]]))


# Memory and the device


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_memory(reduction, monkeypatch):
    """A chunk of logits and the gradients, which are there twice while they are scaled; not the logits."""
    monkeypatch.setattr(linear_chunks, "chunk_rows", lambda num_classes, device: 64)
    *leaves, target = draw((2048,), 16, 2000, dtype=torch.float32)
    input, weight, bias = leaves
    chunk, gradient, all_logits = 64 * 2000 * 4, sum(leaf.numel() * 4 for leaf in leaves), 2048 * 2000 * 4
    bound = chunk + 2 * gradient + 4 * 2048 * 16 + 1.5e6
    assert bound < all_logits / 5
    ours = peak_bytes(lambda: fused(input, weight, target, bias=bias, reduction=reduction).sum().backward())
    theirs = peak_bytes(lambda: F.cross_entropy(F.linear(input, weight, bias), target, label_smoothing=0.1).backward())
    assert chunk + gradient < ours < bound
    assert theirs > 2 * all_logits


def test_nothing_waits_for_the_device():
    *leaves, target = draw()
    input, weight, bias = leaves
    label = (torch.rand(10), torch.rand(10), torch.rand(7))
    problem = linear_chunks.Problem(*(leaf.detach().float() for leaf in leaves), target, *label, torch.float32)
    options = {"bias": bias, "class_weight": torch.rand(7), "ignore_index": 2}
    with NoSync():
        linear_chunks.losses_in_chunks(problem, (True, True, True))
        for reduction in REDUCTIONS:
            fused(input, weight, target, torch.tensor(0.1), reduction=reduction, **options).sum().backward()


# Mistakes


MISTAKES = [
    ({"weight": torch.zeros(7, 4)}, ValueError, r"got input \(10, 5\) and weight \(7, 4\)"),
    ({"weight": torch.zeros(1, 5), "bias": None}, ValueError, r"K >= 2, got input \(10, 5\) and weight \(1, 5\)"),
    ({"input": torch.zeros(5)}, ValueError, r"got input \(5,\) and weight \(7, 5\)"),
    ({"target": torch.zeros(9, dtype=torch.long)}, ValueError, r"of shape \(10,\) for input \(10, 5\), got \(9,\)"),
    ({"target": torch.zeros(10, 7)}, ValueError, r"smoothed_cross_entropy\(F.linear\(input, weight\), target\)"),
    ({"target": torch.zeros(10)}, TypeError, r"class indices must be integers"),
    ({"target": torch.full((10,), 7)}, ValueError, "class index 7 is out of range"),
    ({"bias": torch.zeros(5)}, ValueError, r"bias must be \(7,\) for weight \(7, 5\), got \(5,\)"),
    ({"class_weight": torch.zeros(5)}, ValueError, r"class_weight must be \(7,\)"),
    ({"prior": torch.zeros(7, 7)}, ValueError, r"prior must be \(7,\)"),
    ({"prior": torch.ones(7), "spread": "others"}, ValueError, "a prior says itself"),
    ({"input": torch.zeros(10, 5).half()}, TypeError, "one dtype, got torch.float16 and torch.float32"),
    ({"input": torch.zeros(10, 5).long()}, TypeError, "input must be floating point, got torch.int64"),
    ({"eps": 1.0}, ValueError, r"eps must be in \[0, 1\), got 1.0"),
    ({"eps": math.nan}, ValueError, r"eps must be in \[0, 1\), got nan"),
    ({"eps": torch.zeros(3)}, ValueError, r"eps of shape \(3,\) does not fit"),
    ({"reduction": "avg"}, ValueError, "reduction must be one of"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), MISTAKES)
def test_mistakes_are_one_line(wrong, error, words):
    input, weight, bias, target = draw(dtype=torch.float32)
    given = {"input": input, "weight": weight, "target": target, "eps": 0.1, "bias": bias, **wrong}
    with pytest.raises(error, match=words) as caught:
        fused(**given)
    assert "\n" not in str(caught.value)


# The module


def test_module():
    input, weight, bias, target = draw((3, 4))
    options = {"class_weight": [1.0, 2, 3, 4, 5, 6, 7], "weight_mode": "torch", "reduction": "sum", "spread": "others"}
    module = LinearSmoothedCrossEntropy(0.25, ignore_index=2, **options)
    options["class_weight"] = torch.tensor(options["class_weight"])
    agree(
        module(input, weight, target, bias),
        clear(input, weight, target, 0.25, bias, ignore_index=2, **options),
        *(input, weight, bias),
    )
    module.set_eps(0.5)
    expected = fused(input, weight, target, 0.5)
    assert_close(module(input, weight, target, class_weight=None, **USUAL), expected, **EXACT)
    assert list(module.state_dict()) == ["class_weight"]
    assert "eps=0.5" in repr(module)
    with pytest.raises(ValueError, match="spread must be one of"):
        LinearSmoothedCrossEntropy(spread="some")


USUAL = {"weight_mode": "sample", "reduction": "mean", "spread": "all", "ignore_index": -100}


def test_a_tied_weight_learns_as_with_the_layer():
    """The embedding is the last layer, too: its gradient has two parts."""
    target = torch.randint(30, (8,), generator=torch.Generator().manual_seed(0))
    found = []
    for fuse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(30, 4).double()
        hidden = table(target).tanh()
        loss = fused(hidden, table.weight, target) if fuse else clear(hidden, table.weight, target)
        loss.backward()
        found.append(table.weight.grad)
    assert_close(*found, **EXACT)
