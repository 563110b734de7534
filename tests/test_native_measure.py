"""The compiled pass over logits gives what torch's operations give."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ls_lightning.functional.joint import add_to_both
from ls_lightning.functional.native import measure
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.rows import read_logits
from ls_lightning.functional.sketch import empty_sketch, sketch
from ls_lightning.functional.sums import calibration_sums, empty_sums

pytestmark = pytest.mark.skipif(measure.library() is None, reason="no compiler here")

INF, NAN = torch.inf, torch.nan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CLASSES = [2, 3, 10, 17, 63, 64, 67, 130]


def torch_only():
    return mock.patch.object(measure, "library", return_value=None)


def both(logits, target, spec):
    return add_to_both(empty_sums(spec.num_bins), empty_sketch(Ranking()), logits, target, spec)


def same(found, wanted):
    """Whole numbers are equal, and sums of rounded numbers but for the rounding of each."""
    (sums, cells), (wanted_sums, wanted_cells) = found, wanted
    counted = [0, 1, 6]
    assert torch.equal(sums[:-1, counted], wanted_sums[:-1, counted])
    assert torch.equal(sums[-1, [0, 1, 2, 3, 7]], wanted_sums[-1, [0, 1, 2, 3, 7]])
    assert_close(*(s[..., 0].double() + s[..., 1] * 2.0**-32 for s in (sums, wanted_sums)), rtol=1e-15, atol=1e-9)
    assert torch.equal(cells[:, :2], wanted_cells[:, :2])
    assert int((cells[:, 2] - wanted_cells[:, 2]).abs().max()) <= 2


@st.composite
def batches(draw):
    task = draw(st.sampled_from(["multiclass", "multiclass", "binary", "multilabel"]))
    shape = (draw(st.integers(0, 70)), draw(st.sampled_from(CLASSES)), *draw(st.sampled_from([(), (3,), (2, 2)])))
    shape = shape[:1] if task == "binary" else shape
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.01, 3.0, 300.0]))
    if draw(st.booleans()):
        logits = logits.round()  # ties
    for special in draw(st.lists(st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 6e4, -6e4]), max_size=4)):
        logits[torch.rand(shape, generator=generator) < draw(st.sampled_from([0.001, 0.05, 0.9]))] = special
    targets = shape if task != "multiclass" else (shape[0], *shape[2:])
    most = 2 if task != "multiclass" else shape[1]
    low, high = draw(st.sampled_from([(0, most), (0, most), (-2, most + 2)]))
    target = torch.randint(low, high, targets, generator=generator)
    if task != "multiclass" and draw(st.booleans()):
        target = target.to(draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])))
    logits = logits.to(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["plain", "transposed", "strided"]))
    if layout == "transposed":
        logits = logits.transpose(0, -1).contiguous().transpose(0, -1)
    elif layout == "strided":
        logits = torch.stack([logits, logits], -1)[..., 0]
    spec = Spec(
        task=task,
        num_bins=draw(st.sampled_from([1, 10, 15, 300])),
        closed=draw(st.sampled_from(["left", "right"])),
        ignore_index=draw(st.sampled_from([-100, None, 1])),
        confidence="top" if task == "multiclass" else draw(st.sampled_from(["top", "positive"])),
        nan_policy=draw(st.sampled_from(["raise", "omit"])),
        entropy=draw(st.booleans()),
    )
    return logits, target, spec


@settings(deadline=None, max_examples=300)
@given(batches())
def test_both_ways_agree(batch):
    found = both(*batch)
    with torch_only():
        wanted = both(*batch)
    same(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 10, 63, 64, 1001])
def test_what_is_read_of_a_row(k, dtype):
    rows = (torch.randn(200, k, generator=torch.Generator().manual_seed(k)) * 4).to(dtype)
    rows[0], rows[1, k // 2], rows[2, 0], rows[3, 1:] = 1.5, -INF, 700, -INF
    label = torch.arange(200) % k
    found = read_logits(rows, label, entropy=True)
    with torch_only():
        wanted = read_logits(rows, label, entropy=True)
    for name, one in found._asdict().items():
        atol = {"nll": 1e-14, "log_odds": 1e-14, "entropy": 1e-11}.get(name, 0)  # logarithms may be near 0
        assert_close(one, getattr(wanted, name), rtol=2e-14, atol=atol)


@pytest.mark.parametrize("k", [2, 7, 10, 63, 64, 1001])
def test_a_row_has_the_same_bits_in_any_company(k):
    rows, label = torch.randn(150, k) * 4, torch.arange(150) % k
    whole = read_logits(rows, label, entropy=True)
    for start, end in ((0, 1), (3, 7), (64, 150)):
        part = torch.empty(1 + (end - start) * k)[1:].view(-1, k).copy_(rows[start:end])  # somewhere else in memory
        read = read_logits(part, label[start:end], entropy=True)
        assert all(torch.equal(a[start:end], b) for a, b in zip(whole, read, strict=True))


def test_one_pass_adds_what_two_add():
    logits, target = torch.randn(300, 10) * 3, torch.randint(-1, 10, (300,))
    sums, cells = both(logits, target, Spec())
    assert torch.equal(sums, calibration_sums(logits, target, Spec()))
    assert torch.equal(cells, sketch(logits, target, Ranking()))


@pytest.mark.parametrize("confidence", ["top", "positive"])
@pytest.mark.parametrize("z", [INF, -INF, 0.0, -0.0, 1e300, -1e300, NAN])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.5, -100.0])
def test_binary_logits_of_any_size(z, y, confidence):
    batch = torch.tensor([z], dtype=torch.float64), torch.tensor([y]), Spec(task="binary", confidence=confidence)
    found = both(*batch)
    with torch_only():
        same(found, both(*batch))


def test_a_label_that_is_no_class_is_not_looked_up():
    with pytest.raises(IndexError, match="classes from 0 to 2"):
        read_logits(torch.zeros(2, 3), torch.tensor([0, 3]))
