"""What every metric has to survive: the list, one test a line, over all of `ls_lightning.metrics`."""

import copy
import inspect
import pickle
import weakref

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from ls_lightning import metrics

K = 4
FOUND = [cls for cls in vars(metrics).values() if inspect.isclass(cls) and issubclass(cls, Metric)]
METRICS = [cls for cls in FOUND if not any(issubclass(other, cls) and other is not cls for other in FOUND)]
every = pytest.mark.parametrize("cls", METRICS)


def make(cls, **options):
    return cls(**{"num_classes": K, **options})


def example(n=64, k=K, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * 2
    target = (logits + 2 * torch.randn(n, k, generator=generator, dtype=torch.float64)).argmax(1)
    return logits.to(dtype), target


def value(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def same(given_, wanted, atol=0.0):
    assert_close(given_, wanted, rtol=0, atol=atol, equal_nan=True)


def undefined(found):
    return bool(found.isnan().all())  # a curve without samples has no point


def test_all_metrics_are_found():
    assert {"CalibrationError", "ClasswiseCalibrationError", "SmoothCalibrationError"} <= {c.__name__ for c in METRICS}
    assert metrics.SumMetric not in METRICS


# samples that are no numbers, and classes that are masked


@every
@pytest.mark.parametrize("row", [[torch.nan, 0, 0, 0], [0, torch.inf, 0, 0], [-torch.inf] * K])
def test_a_sample_that_is_no_number(cls, row):
    logits, target = example()
    broken = torch.cat([logits, torch.tensor([row], dtype=torch.float32)]), torch.cat([target, torch.tensor([1])])
    with pytest.raises(ValueError, match=r"1( of 65)? samples cannot be measured: logits must not be NaN or \+inf"):
        value(make(cls), broken)
    omitting = make(cls, nan_policy="omit")
    same(value(omitting, broken), value(make(cls), (logits, target)))
    assert omitting.num_omitted == 1


@every
def test_a_sample_that_is_ignored_may_be_anything(cls):
    logits, target = example()
    broken = torch.cat([logits, torch.full((1, K), torch.nan)]), torch.cat([target, torch.tensor([-100])])
    same(value(make(cls), broken), value(make(cls), (logits, target)))


@every
def test_masked_classes(cls):
    logits, target = example()
    logits[:, 3], target = -torch.inf, target.clamp(max=2)
    assert value(make(cls), (logits, target)).isfinite().all()


# few samples, or none


@every
def test_without_an_update(cls):
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert undefined(make(cls).compute())


@every
def test_empty_batches(cls):
    batch, empty = example(), (torch.zeros(0, K), torch.zeros(0).long())
    same(value(make(cls), empty, batch, empty), value(make(cls), batch))
    assert undefined(value(make(cls), empty))


@every
def test_everything_ignored(cls):
    logits, target = example()
    assert undefined(value(make(cls), (logits, torch.full_like(target, -100))))
    same(
        value(make(cls, ignore_index=2), (logits, target)), value(make(cls), (logits[target != 2], target[target != 2]))
    )


@every
def test_one_sample(cls):
    assert value(make(cls), (torch.tensor([[3.0, 1.0, 0.0, 0.0]]), torch.tensor([0]))).isfinite().all()


@every
def test_all_confidences_equal(cls):
    _, target = example()
    assert value(make(cls), (torch.zeros(64, K), target)).isfinite().all()


@every
def test_all_sure_and_a_class_absent(cls):
    target = torch.arange(60) % 3
    logits = 200 * torch.nn.functional.one_hot(target, K).float()
    right = value(make(cls), (logits, target))
    assert right.isfinite().all()
    probs = logits.softmax(1)
    assert (probs.amax(1) == 1).all()
    same(value(make(cls, input="probs"), (probs, target)), right)


# targets


@every
@pytest.mark.parametrize("wrong", [-1, K, 10**10])
def test_targets_out_of_range(cls, wrong):
    logits, target = example()
    target[5] = wrong
    with pytest.raises(ValueError, match=r"1( of 64)? targets are out of range: they must be classes from 0 to K-1"):
        value(make(cls), (logits, target))


@every
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16, torch.uint8, torch.int32])
def test_dtypes_of_binary_targets(cls, dtype):
    logits, target = example()
    logits, target = logits[:, 0], target > 1
    options = {"task": "binary", "num_classes": None}
    same(value(make(cls, **options), (logits, target.to(dtype))), value(make(cls, **options), (logits, target.long())))


@every
def test_class_indices_are_integers(cls):
    logits, target = example()
    with pytest.raises(TypeError, match=r"class indices, got torch.float32: pass target.long\(\)"):
        make(cls).update(logits, target.float())
    with pytest.raises(TypeError, match=r"logits must be floating point, got torch.int64"):
        make(cls).update(logits.long(), target)


# shapes


@every
@pytest.mark.parametrize(
    ("logits", "target"), [((6, K), (5,)), ((6, K), (6, K)), ((6,), (6,)), ((6, 1), (6,)), ((6, K, 2), (6, 3))]
)
def test_wrong_shapes_are_both_printed(cls, logits, target):
    with pytest.raises(ValueError) as caught:
        make(cls).update(torch.zeros(logits), torch.zeros(target).long())
    assert f"logits {logits} and target {target}" in str(caught.value)


@every
def test_one_class_is_refused(cls):
    with pytest.raises(ValueError, match="num_classes of task='multiclass' must be at least 2, got 1"):
        make(cls, num_classes=1)


@every
def test_memory_layouts(cls):
    logits, target = example(2 * 3 * 5)
    dense, places = logits.view(2, 3, 5, K).movedim(-1, 1), target.view(2, 3, 5)
    wanted = value(make(cls), (logits, target))
    same(value(make(cls), (dense, places)), wanted)
    same(value(make(cls), (dense.contiguous(), places)), wanted)
    same(value(make(cls), (dense.contiguous(memory_format=torch.channels_last), places)), wanted)
    same(value(make(cls), (torch.stack([logits, logits], -1)[..., 0], torch.stack([target, target], -1)[:, 0])), wanted)


# probabilities


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_that_saturates(cls, dtype):
    logits, target = example()
    probs = (5 * logits).softmax(1).to(dtype)
    assert (probs == 1).any()
    found = value(make(cls, input="probs"), (probs, target))
    same(found, value(make(cls, input="probs"), (probs.double(), target)))


@every
def test_probabilities_a_little_out_of_range(cls):
    probs, target = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.5, 0.25, 0]]), torch.tensor([0, 2])
    off = probs.double()
    off[0, 0], off[0, 1] = 1.0000001, -1e-9
    same(value(make(cls, input="probs"), (off, target)), value(make(cls, input="probs"), (probs, target)), atol=1e-9)


@every
@pytest.mark.parametrize("row", [[0.5, 0.6, 0.1, 0.1], [0.1] * K, [1.2, -0.2, 0, 0]])
def test_rows_that_are_no_probabilities(cls, row):
    with pytest.raises(ValueError, match=r"samples cannot be measured: .*input='probs', rows must lie in"):
        value(make(cls, input="probs"), (torch.tensor([row]), torch.tensor([0])))


@every
def test_logits_given_as_probabilities_raise_and_the_kind_is_never_guessed(cls):
    logits, target = example()
    with pytest.raises(ValueError, match="samples cannot be measured"):
        value(make(cls, input="probs"), (logits, target))
    inside = logits.double().softmax(1)  # as logits these lie in [0, 1] and sum to 1
    as_logits = value(make(cls), (inside, target))
    same(as_logits, value(make(cls, input="probs"), (inside.softmax(1), target)), atol=1e-6)


# arguments


@every
@pytest.mark.parametrize(
    ("num_bins", "error", "message"),
    [
        (0, ValueError, "at least 1, got 0"),
        (15.0, TypeError, "an int, got 15.0"),
        (True, TypeError, "an int, got True"),
    ],
)
def test_numbers_of_bins(cls, num_bins, error, message):
    taken = [p for c in cls.__mro__ if "__init__" in vars(c) for p in inspect.signature(c.__init__).parameters]
    if "num_bins" not in taken:
        with pytest.raises((TypeError, ValueError), match="num_bins"):
            make(cls, num_bins=num_bins)
        return
    with pytest.raises(error, match=f"num_bins must be {message}"):
        make(cls, num_bins=num_bins)


@every
@pytest.mark.parametrize("wrong", [{"task": "ordinal"}, {"input": "scores"}, {"nan_policy": "ignore"}])
def test_unknown_options(cls, wrong):
    ((name, given_),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} must be one of .*, got '{given_}'"):
        make(cls, **wrong)


# the same bits


@every
def test_deterministic_algorithms(cls):
    wanted = value(make(cls), example())
    torch.use_deterministic_algorithms(True)
    try:
        same(value(make(cls), example()), wanted)
    finally:
        torch.use_deterministic_algorithms(False)


@every
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_any_split_and_order(cls, data):
    n = data.draw(st.integers(1, 40))
    logits, target = example(n, seed=data.draw(st.integers(0, 1000)))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=5)))
    parts = [order[low:high] for low, high in zip([0, *cuts], [*cuts, n], strict=True)]
    same(value(make(cls), *((logits[rows], target[rows]) for rows in parts)), value(make(cls), (logits, target)))


# state


@every
@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.to(torch.bfloat16),
        lambda m: m.half(),
        lambda m: m.set_dtype(torch.bfloat16),
        lambda m: torch.nn.ModuleList([m]).bfloat16()[0],
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: m.clone(),
    ],
)
def test_casts_and_copies(cls, cast):
    first, second = example(), example(seed=1)
    metric = make(cls)
    metric.update(*first)
    same(value(cast(metric), second), value(make(cls), first, second))


@every
def test_reset(cls):
    metric = make(cls)
    value(metric, example())
    metric.reset()
    same(value(metric, example(seed=1)), value(make(cls), example(seed=1)))


@every
def test_state_dict_round_trip(cls):
    metric, other = make(cls), make(cls)
    metric.update(*example())
    assert metric.state_dict() == {}
    metric.persistent(True)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    other.update(*example(seed=1))
    same(other.compute(), value(make(cls), example(), example(seed=1)))


@every
def test_no_graph_and_none_of_the_callers_buffers_are_kept(cls):
    logits, target = example()
    wanted = value(make(cls), (logits, target))
    metric = make(cls)
    attached = (logits.requires_grad_() * 1).clone()
    kept = weakref.ref(attached), weakref.ref(target)
    metric.update(attached, target)
    with torch.no_grad():
        attached.fill_(0)
    target.fill_(0)
    assert not metric.compute().requires_grad
    same(metric.compute(), wanted)
    del attached, target
    assert [ref() for ref in kept] == [None, None]


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.metrics = torch.nn.ModuleDict({cls.__name__: make(cls) for cls in METRICS})
        self.seen = []

    def validation_step(self, batch, batch_idx):
        self.seen.append((batch[0].dtype, *(m.to("cpu") for m in batch)))
        for metric in self.metrics.values():
            metric.update(*batch)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_trainer_of_low_precision(precision):
    net = Net()
    data = DataLoader(TensorDataset(*example(50)), 16)
    trainer = L.Trainer(
        precision=precision, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.validate(net, data, verbose=False)
    assert {dtype for dtype, *_ in net.seen} == {torch.bfloat16 if precision == "bf16-true" else torch.float16}
    batches = [batch for _, *batch in net.seen]
    for cls in METRICS:
        same(net.metrics[cls.__name__].compute(), value(make(cls), *batches))
