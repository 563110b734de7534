"""The fast way is a good citizen of torch: derivatives of any order, transforms, compilers, memory, no waiting."""

from functools import partial

import pytest
import torch
from clear_loss import clear, counted, value_and_gradient, without_loop
from no_sync import NoSync
from peak_bytes import peak_bytes
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, hessian, stack_module_state, vmap
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from ls_lightning.functional import prior_smoothing, smoothed_cross_entropy, smoothed_kl_div
from ls_lightning.losses import SmoothedCrossEntropy, SmoothedKLDiv

LOSSES = [
    pytest.param(smoothed_cross_entropy, id="ce"),
    pytest.param(smoothed_kl_div, id="kl"),
    pytest.param(partial(prior_smoothing, prior=torch.tensor([3.0, 1, 0, 2])), id="prior"),
]
SHAPES = [(6, 4), (2, 4, 3)]


@pytest.fixture(params=["C", "torch"])
def way(request, monkeypatch):
    """By the loop in C, where it can be built, or by torch's operations."""
    if request.param == "torch":
        without_loop(monkeypatch)


def draw(shape, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype), torch.randint(shape[1], (shape[0], *shape[2:]))


# Derivatives


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_first_and_second_derivatives(loss, shape, reduction):
    logits, target = draw(shape)
    target.view(-1)[0] = -100
    logits.requires_grad_()
    weight = torch.tensor([0.5, 1, 2, 3], dtype=torch.float64)
    for mode in ("sample", "torch"):
        run = partial(loss, target=target, eps=0.2, weight=weight, weight_mode=mode, reduction=reduction)
        with counted() as passes:
            assert torch.autograd.gradcheck(run, (logits,))
        assert passes
        assert torch.autograd.gradgradcheck(run, (logits,))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_graph_can_be_gone_back_through_again(reduction, dtype):
    logits, target = draw((6, 4), dtype)
    value_and_gradient(smoothed_cross_entropy, logits, target)
    leaf = logits.requires_grad_()
    loss = smoothed_cross_entropy(leaf * 2, target, reduction=reduction).sum()
    passes = []
    for last in (False, False, True):
        leaf.grad = None
        loss.backward(torch.tensor(3.0, dtype=loss.dtype), retain_graph=not last)
        passes.append(leaf.grad.clone())
        leaf.grad.zero_()  # what an optimiser may do to a gradient reaches no later one
    with clear():
        leaf.grad = None
        (3 * smoothed_cross_entropy(leaf * 2, target, reduction=reduction).sum()).backward()
    for found in passes:
        assert_close(found, leaf.grad)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@pytest.mark.usefixtures("way")
def test_second_derivative_first_and_the_first_one_after():
    logits, target = draw((6, 4), torch.float32)
    leaf = logits.requires_grad_()
    loss = smoothed_cross_entropy(leaf, target)
    (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), leaf, retain_graph=True)
    (again,) = torch.autograd.grad(loss, leaf)
    with clear():
        clear_loss = smoothed_cross_entropy(leaf, target)
        (clear_slope,) = torch.autograd.grad(clear_loss, leaf, create_graph=True)
        assert_close(second, torch.autograd.grad(clear_slope.square().sum(), leaf)[0])
    assert_close(again, slope.detach())
    assert_close(again, clear_slope.detach())


@pytest.mark.parametrize("upstream", [0.0, 1.0, -2.5, 2.0**16])
def test_upstream_gradient(upstream):
    logits, target = draw((6, 4))
    factor = torch.tensor(upstream, dtype=torch.float64)
    _, found = value_and_gradient(smoothed_cross_entropy, logits, target, upstream=factor)
    assert_close(found, upstream * value_and_gradient(smoothed_cross_entropy, logits, target)[1])


def test_eps_and_weights_that_are_learnt():
    logits, target = draw((6, 4))
    eps = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *t: smoothed_kl_div(t[0], target, t[1], weight=t[2]), (logits, eps, weight))


@pytest.mark.usefixtures("way")
def test_checkpointed():
    logits, target = draw((6, 4), torch.float32)
    for reentrant in (False, True):
        leaf = logits.clone().requires_grad_()
        checkpoint(lambda z: smoothed_cross_entropy(2 * z, target), leaf, use_reentrant=reentrant).backward()
        expected = value_and_gradient(lambda z: smoothed_cross_entropy(2 * z, target), logits)[1]
        assert_close(leaf.grad, expected)


def test_forward_derivative():
    logits, target = draw((6, 4))
    tangent = torch.randn_like(logits)
    _, found = torch.func.jvp(lambda z: smoothed_cross_entropy(z, target), (logits,), (tangent,))
    assert_close(found, (value_and_gradient(smoothed_cross_entropy, logits, target)[1] * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, tangent)
        loss = smoothed_cross_entropy(dual, target)
        assert_close(torch.autograd.forward_ad.unpack_dual(loss).tangent, found)


# Stacks of models


@pytest.mark.parametrize("loss", LOSSES[:2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_stack_of_models_is_one_pass(loss, reduction):
    models, samples, classes = 3, 7, 5
    torch.manual_seed(0)
    logits = torch.randn(models, samples, classes, dtype=torch.float64)
    target = torch.randint(classes, (models, samples))
    target[0, 2] = -100
    eps = torch.rand(models, dtype=torch.float64) / 2
    run = partial(loss, reduction=reduction)
    each = [value_and_gradient(run, *one)[1] for one in zip(logits, target, eps, strict=True)]
    with counted() as passes:
        assert_close(vmap(grad(run))(logits, target, eps), torch.stack(each))
        assert len(passes) == 1
        leaf = logits.clone().requires_grad_()
        vmap(run)(leaf, target, eps).sum().backward()
        assert_close(leaf.grad, torch.stack(each))
        assert len(passes) == 2
        shared = vmap(grad(run), in_dims=(0, None, None))(logits, target[1], 0.1)
        assert len(passes) == 3
    assert_close(shared, torch.stack([value_and_gradient(run, z, target[1], 0.1)[1] for z in logits]))
    assert torch.autograd.gradgradcheck(lambda z: vmap(run)(z, target, eps), (leaf,))


def test_other_transforms():
    logits, target = draw((6, 4))
    stack, labels = torch.stack([logits, -logits]), torch.stack([target, target])
    second = vmap(hessian(smoothed_cross_entropy))(stack, labels)
    judge = [torch.autograd.functional.hessian(partial(smoothed_cross_entropy, target=target), z) for z in stack]
    assert_close(second, torch.stack(judge))
    outer = [stack.clone().requires_grad_() for _ in range(2)]
    vmap(grad(smoothed_cross_entropy))(outer[0], labels).square().sum().backward()
    with clear():
        for z in outer[1]:
            (slope,) = torch.autograd.grad(smoothed_cross_entropy(z, target), z, create_graph=True)
            slope.square().sum().backward()
    assert_close(outer[0].grad, outer[1].grad)


def test_masked_classes_and_nonsense_in_a_stack():
    logits, target = draw((6, 4))
    logits[0, 1], logits[1, 2] = -torch.inf, torch.nan
    target[1] = -100
    stack, labels = torch.stack([logits, logits + 1]), torch.stack([target, target])
    found = vmap(grad(smoothed_cross_entropy))(stack, labels)
    with clear():
        assert_close(found, vmap(grad(smoothed_cross_entropy))(stack, labels))
    assert found.isfinite().all()


def test_stacked_modules_train_as_each_alone():
    torch.manual_seed(0)
    models = [nn.Linear(3, 4).double() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randint(4, (5,))

    def loss(parameters, buffers, eps):
        return smoothed_cross_entropy(functional_call(models[0], (parameters, buffers), (x,)), y, eps)

    eps = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    found = vmap(grad(loss))(parameters, buffers, eps)
    for position, model in enumerate(models):
        smoothed_cross_entropy(model(x), y, eps[position]).backward()
        assert_close(found["weight"][position], model.weight.grad)


# Compilers and tracers


@pytest.mark.parametrize("loss", [SmoothedCrossEntropy, SmoothedKLDiv])
def test_one_graph_over_a_schedule(loss):
    torch._dynamo.reset()
    logits, target = draw((6, 4), torch.float32)
    module, counter = loss(0.1), CompileCounter()
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for eps in (0.1, 0.0, 0.3, 0.25):
        module.set_eps(eps)
        found = value_and_gradient(compiled, logits, target)
        assert_close(found, value_and_gradient(module, logits, target))
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_export():
    logits, target = draw((6, 4), torch.float32)
    program = torch.export.export(SmoothedCrossEntropy(0.1), (logits, target))
    assert_close(program.module()(-logits, target), smoothed_cross_entropy(-logits, target))


def test_a_trace_takes_no_value_for_a_constant():
    logits, target = draw((6, 4), torch.float32)
    traced = torch.jit.trace(smoothed_cross_entropy, (logits, target), check_trace=False)
    other = torch.full_like(logits, 2.0).masked_fill(torch.eye(6, 4, dtype=torch.bool), -torch.inf)
    target = (target + 1) % 4
    assert_close(traced(other, target), smoothed_cross_entropy(other, target), equal_nan=True)
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda z, y: torch.autograd.grad(smoothed_cross_entropy(z, y), z)[0] if z.requires_grad else None
    )
    leaf = logits.requires_grad_()
    made = graph(leaf, target)
    assert_close(made(other.requires_grad_(), target), value_and_gradient(smoothed_cross_entropy, other, target)[1])


def test_fake_tensors():
    with FakeTensorMode():
        logits = torch.empty(6, 4, requires_grad=True)
        loss = smoothed_cross_entropy(logits, torch.zeros(6, dtype=torch.long))
        loss.backward()
    assert loss.shape == ()
    assert logits.grad.shape == (6, 4)


# Living beside others


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_waits_for_a_device(loss, shape):
    logits, target = draw(shape, torch.float32)
    target.view(-1)[0] = -100
    logits.requires_grad_()
    with NoSync(), counted() as passes:
        for eps in (0.1, torch.tensor(0.1)):
            (3 * loss(logits, target, eps)).backward()
    assert passes == [True, True]


@pytest.mark.usefixtures("way")
def test_no_gradient_is_computed_that_nobody_wants():
    logits, target = draw((6, 4), torch.float32)
    with counted() as passes:
        smoothed_cross_entropy(logits, target)
        with torch.no_grad():
            smoothed_cross_entropy(logits.clone().requires_grad_(), target)
        with torch.inference_mode():
            smoothed_cross_entropy(logits, target)
    assert passes == [False, False, False]


def test_deterministic_mode():
    logits, target = draw((2, 4, 3))
    expected = value_and_gradient(smoothed_cross_entropy, logits, target)
    torch.use_deterministic_algorithms(True)
    try:
        assert_close(value_and_gradient(smoothed_cross_entropy, logits, target), expected, rtol=0, atol=0)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(512, 2000), (150_000, 7), (8, 21, 80, 80)])
def test_memory_is_that_of_one_gradient(shape):
    logits, target = draw(shape, torch.float32)
    leaf, size = logits.requires_grad_(), logits.numel() * 4
    smoothed_cross_entropy(leaf, target).backward()
    leaf.grad = None
    most = peak_bytes(lambda: smoothed_cross_entropy(leaf, target).backward())
    assert size <= most <= 1.01 * size + 2**20  # a piece and what there is of each of its rows


@pytest.mark.usefixtures("way")
def test_memory_is_none_if_the_logits_may_go():
    logits, target = draw((512, 2000), torch.float32)
    seen = logits.requires_grad_() * 1
    loss = smoothed_cross_entropy(seen, target, consume_logits=True)
    most = peak_bytes(lambda: torch.autograd.grad(loss, seen))
    assert most < 2**18


# Overwriting the logits


@pytest.mark.parametrize("loss", LOSSES[:2])
@pytest.mark.parametrize("shape", [(6, 4), (6, 20), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_consumed_logits(loss, shape, dtype, reduction):
    logits, target = draw(shape, dtype)
    run = partial(loss, reduction=reduction)
    expected = value_and_gradient(run, logits, target)
    if len(shape) == 2 and shape[1] == 4:
        logits[1, 2] = -torch.inf
        expected = value_and_gradient(run, logits, target)
    leaf = logits.requires_grad_()
    seen = leaf * 1
    before = seen.detach().clone()
    value = run(seen, target, consume_logits=True)
    assert_close(seen.detach(), before, rtol=0, atol=0)  # not before the backward pass
    value.backward(torch.ones_like(value))
    assert_close(value.detach(), expected[0])
    assert_close(leaf.grad, expected[1])
    assert_close(seen.detach(), leaf.grad)


def test_logits_are_left_alone_otherwise():
    for shape in ((6, 4), (6, 20), (2, 4, 3), (600, 1000)):
        logits, target = draw(shape, torch.float32)
        seen = logits.clone().requires_grad_() * 1
        smoothed_cross_entropy(seen, target).backward()
        assert_close(seen.detach(), logits, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_notices_where_consumed_logits_are_needed(dtype):
    logits, target = draw((6, 4), dtype)
    seen = logits.requires_grad_().exp()  # whose derivative is its result
    loss = smoothed_cross_entropy(seen, target, consume_logits=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    again = smoothed_cross_entropy(logits * 1, target, consume_logits=True)
    again.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        again.backward()
    with pytest.raises(ValueError, match=r"consume_logits=True overwrites .* a leaf of the graph"):
        smoothed_cross_entropy(logits, target, consume_logits=True)
    with pytest.raises(TypeError, match="consume_logits must be True or False, got 1"):
        SmoothedCrossEntropy(consume_logits=1)


@pytest.mark.usefixtures("way")
def test_logits_may_be_overwritten_after_the_loss():
    logits, target = draw((6, 4), torch.float32)
    expected = value_and_gradient(smoothed_cross_entropy, logits, target)[1]
    leaf = logits.requires_grad_()
    seen = leaf * 1
    loss = smoothed_cross_entropy(seen, target)
    seen.detach().zero_()
    loss.backward()
    assert_close(leaf.grad, expected)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(6, 4), (600, 40)])
def test_targets_may_be_overwritten_where_the_gradient_is_there_already(shape):
    logits, target = draw(shape, torch.float32)
    expected = value_and_gradient(smoothed_cross_entropy, logits, target)[1]
    leaf = logits.requires_grad_()
    loss = smoothed_cross_entropy(leaf, target)
    each = smoothed_cross_entropy(leaf, target, reduction="none")
    target.zero_()
    loss.backward(retain_graph=True)
    assert_close(leaf.grad, expected)
    for late in (lambda: loss.backward(), lambda: each.sum().backward()):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            late()


@pytest.mark.usefixtures("way")
def test_modules_take_a_step_as_torchs_loss():
    torch.manual_seed(0)
    x, y = torch.randn(32, 8), torch.randint(4, (32,))
    weights = []
    for loss in (SmoothedCrossEntropy(0.1), nn.CrossEntropyLoss(label_smoothing=0.1)):
        torch.manual_seed(1)
        model = nn.Linear(8, 4)
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(model(x), y)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
        weights.append(model.weight.detach())
    assert_close(*weights, rtol=1e-2, atol=1e-2)
    assert not torch.equal(weights[0], F.linear(x[:4], x[:8]))
