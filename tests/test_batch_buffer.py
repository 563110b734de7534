"""Small batches wait, and measure what they would have measured alone."""

import pytest
import torch

import ls_lightning.callbacks.batch_buffer as buffers
from ls_lightning.callbacks.batch_buffer import BatchBuffer
from ls_lightning.metrics import AURC, CalibrationError, default_metrics


@pytest.fixture
def handed():
    return []


@pytest.fixture
def buffer(handed, monkeypatch):
    monkeypatch.setattr(buffers, "_CPU", 100)
    return BatchBuffer(lambda logits, target: handed.append((logits.clone(), target.clone())))


def batch(n, k=5, first=0.0, dtype=torch.float32):
    return torch.arange(n * k, dtype=dtype).view(n, k) + first, torch.arange(n) % k


def test_the_first_of_a_shape_is_handed_on_at_once_and_others_wait(buffer, handed):
    for first in range(3):
        buffer.add(*batch(6, first=float(first)))
    assert [len(target) for _, target in handed] == [6]
    buffer.flush()
    assert [len(target) for _, target in handed] == [6, 12]
    expected = [torch.cat(parts) for parts in zip(batch(6, first=1.0), batch(6, first=2.0), strict=True)]
    assert all(map(torch.equal, handed[1], expected))
    buffer.flush()
    assert len(handed) == 2


def test_no_more_than_the_limit_waits(buffer, handed):
    for _ in range(12):
        buffer.add(*batch(6))  # 30 logits
    assert [len(target) for _, target in handed] == [6, 18, 18, 18]
    buffer.add(*batch(20))
    assert [len(target) for _, target in handed] == [6, 18, 18, 18, 12, 20]


def test_another_shape_or_dtype_ends_the_wait(buffer, handed):
    for given in (batch(2), batch(2), batch(2, k=4), batch(2, k=4), batch(2, k=4, dtype=torch.float64)):
        buffer.add(*given)
    assert [(len(logits), logits.shape[1], logits.dtype) for logits, _ in handed] == [
        *((2, k, torch.float32) for k in (5, 5, 4, 4)),
        (2, 4, torch.float64),
    ]


def test_what_does_not_fit_is_an_error_where_it_happens():
    metrics = default_metrics(num_classes=5)
    buffer = BatchBuffer(metrics.update)
    buffer.add(*batch(4))
    buffer.add(*batch(4))
    with pytest.raises(ValueError, match=r"\(4, 5\) and target \(3,\)"):
        buffer.add(batch(4)[0], torch.zeros(3, dtype=torch.int64))
    assert metrics["acc"].num_samples == 8


def test_the_owner_may_write_to_a_batch(buffer, handed):
    buffer.add(*batch(2))
    logits, target = batch(2)
    buffer.add(logits, target)
    logits.zero_(), target.zero_()
    buffer.flush()
    assert all(map(torch.equal, handed[1], batch(2)))


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_values_have_the_same_bits(size):
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(20000, 6, generator=generator), torch.randint(6, (20000,), generator=generator)
    if size == 1:
        logits, target = logits[:300], target[:300]
    whole, split = default_metrics(), default_metrics()
    whole.update(logits, target)
    buffer = BatchBuffer(split.update)
    for pair in zip(logits.split(size), target.split(size), strict=True):
        buffer.add(*pair)
    buffer.flush()
    for one, other in ((whole["ece"], split["ece"]), (whole["aurc"], split["aurc"])):
        assert torch.equal(one.sums, other.sums)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (900, 7)),
        ({}, (300, 70)),
        ({}, (60, 700)),
        ({"input": "probs"}, (900, 7)),
        ({"nan_policy": "omit", "ignore_index": 3}, (900, 7)),
        ({"task": "binary"}, (900,)),
        ({"task": "binary", "confidence": "positive"}, (900,)),
        ({"task": "multilabel", "input": "probs"}, (90, 10)),
    ],
)
def test_one_pass_sums_up_what_two_do(options, shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * 3
    target = torch.randint(2 if "task" in options else shape[1], shape if "task" in options else shape[:1])
    if options.get("input") == "probs":
        logits = logits.softmax(-1) if "task" not in options else logits.sigmoid()
    if "nan_policy" in options:
        logits[5, 2] = torch.nan
    metrics = default_metrics(**options)
    metrics.update(logits, target)
    ranked = {name: value for name, value in options.items() if name != "confidence"}
    for name, alone in (("ece", CalibrationError(**options)), ("aurc", AURC(**ranked))):
        alone.update(logits, target)
        assert torch.equal(metrics[name].sums, alone.sums)
        assert torch.equal(metrics[name].compute(), alone.compute())
