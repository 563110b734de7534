import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from ls_lightning.functional.smoothing import smooth_targets, smoothed_cross_entropy
from ls_lightning.losses import LOSSES

EPS = [0.1, 0.0, 0.05, 0.2, 0.3, 0.15, 0.4, 0.25, 0.35, 0.45]
SMOOTHING = ["ce", "kl", "bce", "soft_ce", "max_suppression", "confidence_penalty", "margin", "relaxation"]
OPTIONS = [
    {},
    {"weight": [0.5, 1.0, 2.0, 3.0], "reduction": "sum"},
    {"input": "log_probs", "reduction": "none"},
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batch(name):
    torch.manual_seed(0)
    logits = torch.randn(6, 4).log_softmax(1)
    index = torch.randint(4, (6,))
    return logits, torch.nn.functional.one_hot(index, 4).float() if name == "bce" else index


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("options", OPTIONS)
def test_changing_eps_does_not_recompile(name, options):
    per_class = (SMOOTHING.index(name) + OPTIONS.index(options)) % 2 == 1  # both for each loss and for each of options
    logits, target = batch(name)
    loss = LOSSES[name](torch.zeros(4) if per_class else 0.0, **options)
    counter = CompileCounter()
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for eps in EPS:
        loss.set_eps(eps)
        leaf, judge = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        value, expected = compiled(leaf, target), loss(judge, target)
        assert_close(value, expected)
        value.sum().backward()
        expected.sum().backward()
        assert_close(leaf.grad, judge.grad)
    assert counter.frame_count == 1


@pytest.mark.parametrize("mode", ["sample", "torch"])
def test_soft_targets_compile(mode):
    logits, _ = batch("ce")
    target = torch.rand(6, 4).softmax(1)
    for name in ("ce", "kl", "soft_ce", "max_suppression", "confidence_penalty", "margin"):
        loss = LOSSES[name](0.1, weight=[0.5, 1.0, 2.0, 3.0], weight_mode=mode)
        counter = CompileCounter()
        compiled = torch.compile(loss, backend=counter, fullgraph=True)
        for eps in EPS:
            loss.set_eps(eps)
            assert_close(compiled(logits, target), loss(logits, target))
        assert counter.frame_count == 1


def test_functions_compile_with_a_tensor_eps():
    logits, target = batch("ce")
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def function(logits, target, eps):
        soft = smooth_targets(target, eps, 4)
        return smoothed_cross_entropy(logits, target, eps) + smoothed_cross_entropy(logits, soft, eps)

    for eps in EPS:
        soft = smooth_targets(target, eps, 4)
        expected = smoothed_cross_entropy(logits, target, eps) + smoothed_cross_entropy(logits, soft, eps)
        assert_close(function(logits, target, torch.tensor(eps)), expected)
    assert counter.frame_count == 1


def test_function_compiles_with_a_number():
    logits, target = batch("ce")
    compiled = torch.compile(smoothed_cross_entropy, backend=CompileCounter(), fullgraph=True)
    for eps in (0.1, 0.3, 0.2):
        assert_close(compiled(logits, target, eps), smoothed_cross_entropy(logits, target, eps))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [*zip(SMOOTHING, [torch.float32, torch.bfloat16] * 4, strict=True), ("ce", torch.bfloat16)]
)
def test_inductor(name, dtype):
    logits, target = batch(name)
    loss = LOSSES[name](0.1)
    compiled = torch.compile(loss, fullgraph=True)
    for eps in (0.1, 0.3):
        loss.set_eps(eps)
        leaf, judge = (logits.detach().to(dtype, copy=True).requires_grad_() for _ in range(2))
        value, expected = compiled(leaf, target), loss(judge, target)
        assert_close(value, expected)
        value.backward()
        expected.backward()
        assert_close(leaf.grad, judge.grad)
