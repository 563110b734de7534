"""What the smoothing loss leaves of rows is right by every path of it, and as good to the metrics as the logits."""

from functools import partial
from unittest import mock

import pytest
import torch
from clear_loss import LAYOUTS, clear, value_and_gradient, without_loop
from hypothesis import given, settings
from hypothesis import strategies as st
from no_sync import NoSync
from torch.nn import functional as F
from torch.testing import assert_close
from torchmetrics import MetricCollection

from ls_lightning.functional import prior_smoothing, smoothed_cross_entropy, smoothed_kl_div
from ls_lightning.functional.from_statistics import add_statistics
from ls_lightning.functional.joint import add_to_both
from ls_lightning.functional.native import measure
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.sketch import empty_sketch, read_sketch
from ls_lightning.functional.sums import calibration_sums, empty_sums, read_sums
from ls_lightning.metrics import (
    AUGRC,
    AURC,
    Accuracy,
    AdaptiveCalibrationError,
    BrierScore,
    CalibrationError,
    ClasswiseCalibrationError,
    MeanEntropy,
    SmoothCalibrationError,
    default_metrics,
    full_metrics,
    update_statistics,
)

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(params=["C", "torch", "clear"])
def way(request, monkeypatch):
    """By the loop in C where there is one, by torch's operations, and by those that torch differentiates."""
    if request.param != "C":
        without_loop(monkeypatch)
    if request.param == "clear":
        with clear():
            yield
    else:
        yield


def draw(shape, scale=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * scale
    return logits.to(dtype), torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def statistics_of(logits, target, *args, loss=smoothed_cross_entropy, **options):
    """From a forward and backward pass, which are the same bits as without them."""
    found = torch.full((4, target.numel()), 7.0)
    got = value_and_gradient(loss, logits, target, *args, statistics=found, **options)
    assert_close(got, value_and_gradient(loss, logits, target, *args, **options), rtol=0, atol=0, equal_nan=True)
    return found


def exact(logits, target, ignore_index=-100):
    """The formulas in float64; the odds by the logits of the other classes."""
    rows = logits.double().movedim(1, -1).flatten(0, -2)
    label, at = target.flatten(), torch.arange(target.numel())
    ignored = label == ignore_index
    log_probs = rows.log_softmax(1)
    nll = -log_probs[at, label.masked_fill(ignored, 0)]
    top = rows.max(1)
    first = torch.stack(
        [(row == peak).nonzero()[0, 0] if peak == peak else at[0] for row, peak in zip(rows, top.values, strict=True)]
    )
    others = rows.clone()
    others[at, first] = -torch.inf
    log_odds = others.logsumexp(1) - top.values
    lines = torch.stack([nll, log_odds, log_probs.exp().square().sum(1), (first == label).double()])
    lines[:, ignored] = lines.new_tensor([[0], [0], [0], [-1]])
    return lines


def agree(logits, target, *args, ignore_index=-100, tolerance=1e-5, **options):
    found = statistics_of(logits, target, *args, ignore_index=ignore_index, **options)
    wanted = exact(logits, target, ignore_index)
    unread = wanted[0].isnan()
    assert torch.equal(found[0].isnan(), unread)
    assert_close(found[:, ~unread].double(), wanted[:, ~unread], rtol=tolerance, atol=tolerance / 5)


# of rows


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_classes", [2, 17, 130])
def test_layouts(layout, num_classes):
    torch.manual_seed(0)
    logits = LAYOUTS[layout](num_classes) * 3
    target = torch.randint(num_classes, (logits.shape[0], *logits.shape[2:]))
    target.view(-1)[3] = -100
    agree(logits, target, 0.1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(40, 5), (40, 70), (6, 5, 3, 7)])
def test_options(shape):
    logits, target = draw(shape)
    weight, eps = torch.rand(shape[1]), torch.rand(target.shape) / 2
    for reduction in ("mean", "sum", "none", "batchmean"):
        agree(logits, target, 0.1, reduction=reduction)
        agree(logits, target, eps, reduction=reduction, weight=weight, ignore_index=2)
    agree(logits, target, 0.1, weight=weight, weight_mode="torch")
    agree(logits, target, torch.tensor(0.1), loss=smoothed_kl_div, spread="others")
    agree(logits, target.int(), 0.0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(40, 5), (40, 70), (6, 5, 3, 7)])
def test_dtypes(dtype, shape):
    logits, target = draw(shape, dtype=dtype)
    agree(logits, target, 0.1)
    agree(logits.round(), target, 0.1)  # where the label is one of several largest, the first of them counts


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("num_classes", [5, 70])
def test_rows_that_are_masked_or_no_numbers(num_classes):
    logits, target = draw((12, num_classes))
    logits[0, 1] = torch.nan
    logits[1, num_classes - 1] = torch.inf
    logits[2] = -torch.inf
    logits[3, 1:3], target[3] = -torch.inf, 0
    logits[4, 0], target[4] = -torch.inf, 0  # of the label: infinite
    logits[5], target[5] = torch.nan, -100
    logits[6, 1:], target[6] = -torch.inf, 0  # none is left besides
    logits[7] = 0
    agree(logits, target, 0.1, reduction="none")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_odds_of_a_sure_model_keep_their_digits(num_classes):
    logits = torch.zeros(80, num_classes)
    logits[:, 1] = torch.arange(80.0)
    found, wanted = statistics_of(logits, torch.ones(80).long()), exact(logits, torch.ones(80).long())
    assert_close(found[1].double(), wanted[1], rtol=1e-6, atol=5e-6)
    assert_close(found[0].double(), wanted[1].exp().log1p(), rtol=2e-5, atol=1e-15)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(37, 3), (37, 63), (37, 101), (5, 6, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_batch(shape, dtype):
    logits, target = draw(shape, dtype=dtype)
    together = statistics_of(logits, target)
    for size in (1, 2, 10):
        pairs = zip(logits.split(size), target.split(size), strict=True)
        assert torch.equal(torch.cat([statistics_of(*pair) for pair in pairs], 1), together)


@pytest.mark.parametrize("shape", [(50_000, 10), (700, 1000), (2, 21, 120, 120)])
def test_any_number_of_threads_gives_the_same_bits(shape):
    logits, target = draw(shape)
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(statistics_of(logits, target))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_very_many_classes(scale):
    logits, target = draw((20, 131_072), scale)
    target[:10], logits[:10, 7] = 7, torch.arange(0, 60, 6.0)
    agree(logits, target, 0.1, tolerance=3e-5)


def test_consumed_logits_are_read_before():
    for shape in ((40, 5), (40, 70)):
        leaf, target = draw(shape)
        found, logits = torch.empty(4, 40), leaf.clone().requires_grad_() * 1
        wanted = exact(logits.detach(), target)
        smoothed_cross_entropy(logits, target, consume_logits=True, statistics=found).backward()
        assert_close(found.double(), wanted, **CLOSE)


def test_a_call_without_a_gradient():
    logits, target = draw((40, 5))
    found, _ = torch.empty(4, 40), logits.requires_grad_()
    with torch.no_grad():
        smoothed_cross_entropy(logits, target, statistics=found)
    assert_close(found.double(), exact(logits.detach(), target), **CLOSE)
    with torch.inference_mode():
        again = torch.empty(4, 40)
        smoothed_cross_entropy(logits, target, statistics=again)
        assert torch.equal(again, found)


def test_compiled_in_one_graph():
    logits, target = draw((40, 10))
    target[3] = -100

    def step(z, y):
        found = torch.empty(4, len(y))
        return smoothed_cross_entropy(z, y, statistics=found), found

    loss, found = torch.compile(step, fullgraph=True, backend="aot_eager")(logits.requires_grad_(), target)
    assert_close(loss, F.cross_entropy(logits, target, label_smoothing=0.1))
    assert_close(found.double(), exact(logits.detach(), target), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nobody_waits_for_a_device(dtype):
    logits, target = draw((40, 10), dtype=dtype)
    found, sums, cells = torch.empty(4, 40), empty_sums(15), empty_sketch(Ranking())
    with NoSync():
        smoothed_cross_entropy(logits, target, statistics=found)
        add_statistics(sums, cells, found, Spec())
    assert_close(found.double(), exact(logits, target), **CLOSE)
    assert torch.equal(sums[-1, 0], torch.tensor([40, 0]))
    assert int(cells[:, 0].sum()) == 40


REFUSED = {
    "shape": torch.empty(3, 6),
    "transposed": torch.empty(6, 4),
    "dtype": torch.empty(4, 6, dtype=torch.float64),
    "strides": torch.empty(6, 4).t(),
    "gradient": torch.empty(4, 6, requires_grad=True),
    "device": torch.empty(4, 6, device="meta"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_place_for_statistics(what):
    logits, target = draw((6, 5))
    with pytest.raises(ValueError, match=r"statistics must be contiguous float32 \(4, 6\) on cpu"):
        smoothed_cross_entropy(logits, target, statistics=REFUSED[what])


def test_what_has_no_statistics():
    (logits, target), found = draw((6, 5)), torch.empty(4, 6)
    with pytest.raises(ValueError, match="input='log_probs'"):
        smoothed_cross_entropy(logits.log_softmax(1), target, input="log_probs", statistics=found)
    with pytest.raises(ValueError, match="class indices"):
        smoothed_kl_div(logits, logits.softmax(1), statistics=found)
    with pytest.raises(ValueError, match=r"torch.func"):
        torch.func.grad(partial(smoothed_cross_entropy, statistics=found))(logits, target)
    with pytest.raises(TypeError, match="statistics"):
        prior_smoothing(logits, target, prior=torch.ones(5), statistics=found)


# by metrics


def both(spec):
    return empty_sums(spec.num_bins), empty_sketch(Ranking())


@pytest.fixture(params=["C", "torch"])
def addition(request, monkeypatch):
    """How statistics, and logits, are added."""
    if request.param == "torch":
        monkeypatch.setattr(measure, "library", lambda: None)


SPECS = [Spec(), Spec(num_bins=7, closed="left", nan_policy="omit"), Spec(num_classes=10, num_bins=300)]


@pytest.mark.usefixtures("addition")
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_sums_are_those_of_the_logits(spec, scale):
    logits, target = draw((3000, 10), scale)
    target[:2000] = logits[:2000].argmax(1)
    target[::9] = -100
    if spec.nan_policy == "omit":
        logits[:20, 3] = torch.nan
    found, wanted = both(spec), both(spec)
    add_statistics(*found, statistics_of(logits, target), spec)
    wanted = add_to_both(*wanted, logits, target, spec)
    assert torch.equal(found[0][-1, [0, 1, 2, 3, 7], 0], wanted[0][-1, [0, 1, 2, 3, 7], 0])  # counts
    (bins, totals), (wanted_bins, wanted_totals) = read_sums(found[0]), read_sums(wanted[0])
    for name in ("n", "hits", "correct", "p"):  # a confidence may be beside the edge of its bin
        one, other = getattr(bins, name), getattr(wanted_bins, name)
        assert_close(one.cumsum(0), other.cumsum(0), rtol=1e-6, atol=1.001)
    assert_close(bins.p.sum(), wanted_bins.p.sum(), rtol=1e-6, atol=1e-6)
    assert_close(totals.nll, wanted_totals.nll, rtol=1e-6, atol=1e-6)
    assert_close(totals.brier, wanted_totals.brier, rtol=1e-6, atol=1e-6)
    (levels, wanted_levels) = (read_sketch(each[1], "omit") for each in (found, wanted))
    assert torch.equal(levels.wrong.sum(), wanted_levels.wrong.sum())
    moved = (found[1][:-1, 0] - wanted[1][:-1, 0]).cumsum(0).abs()
    assert int(moved.max()) <= 3
    assert torch.equal(found[1][-1], wanted[1][-1])


@pytest.mark.parametrize("spec", SPECS)
def test_sums_by_the_loop_are_those_of_torch(spec):
    logits, target = draw((3000, 10), 20.0)
    logits[5], logits[6, 2], target[7], logits[8, 1:], target[9:12] = torch.nan, torch.inf, -100, -torch.inf, 1
    logits[9:12, 1] = -torch.inf
    statistics, found = statistics_of(logits, target, reduction="none"), []
    for loops in (measure.library, lambda: None):
        with mock.patch.object(measure, "library", loops):
            found.append(both(spec))
            add_statistics(*found[-1], statistics, spec)
    (sums, cells), (wanted, wanted_cells) = found
    assert torch.equal(sums[:-1, [0, 1, 6]], wanted[:-1, [0, 1, 6]])
    assert_close(*(s[..., 0].double() + s[..., 1] * 2.0**-32 for s in (sums, wanted)), rtol=1e-15, atol=1e-8)
    assert torch.equal(cells[:, :2], wanted_cells[:, :2])


@pytest.mark.usefixtures("addition")
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_any_split_gives_the_same_bits(sizes):
    spec = Spec(nan_policy="omit")
    logits, target = draw((sum(sizes), 4))
    logits[::5, 1], target[::7] = torch.nan, -100
    statistics = statistics_of(logits, target, reduction="none")
    whole, parts = both(spec), both(spec)
    add_statistics(*whole, statistics, spec)
    for part in statistics.split(sizes, dim=1):
        add_statistics(*parts, part, spec)
    assert_close(parts, whole, rtol=0, atol=0)


@pytest.mark.parametrize("make", [Accuracy, BrierScore, CalibrationError, AURC, AUGRC, AdaptiveCalibrationError])
def test_a_metric_alone(make):
    logits, target = draw((500, 6))
    metric, wanted = make(), make()
    assert metric.reads_statistics
    for rows in (slice(0, 100), slice(100, 500)):
        metric.update_statistics(statistics_of(logits[rows], target[rows]))
    wanted.update(logits, target)
    assert metric.update_called
    assert_close(metric.compute(), wanted.compute(), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("addition")
def test_a_collection_by_its_leader():
    logits, target = draw((500, 6))
    found, wanted = default_metrics(), default_metrics()
    leader = dict(found.items(copy_state=False))["acc"]
    assert leader.reads_statistics
    leader.update_statistics(statistics_of(logits, target))
    wanted.update(logits, target)
    found._compute_groups_create_state_ref()
    assert_close(found.compute(), wanted.compute(), rtol=1e-6, atol=1e-6)
    with torch.inference_mode():
        found.reset()
    assert leader.sums.is_inference()
    leader.update_statistics(statistics_of(logits, target))  # as training does after validation
    assert leader.num_samples == 500


@pytest.mark.parametrize(
    "make", [default_metrics, lambda: MetricCollection({"a": Accuracy(), "c": CalibrationError(), "s": AURC()})]
)
def test_a_collection(make):
    logits, target = draw((500, 6))
    found, wanted = make(), make()
    for rows in (slice(0, 100), slice(100, 400)):
        update_statistics(found, statistics_of(logits[rows], target[rows]))
        wanted.update(logits[rows], target[rows])
        assert_close(found.compute(), wanted.compute(), rtol=1e-6, atol=1e-6)
    found.update(logits[400:], target[400:])
    wanted.update(logits[400:], target[400:])
    assert_close(found.compute(), wanted.compute(), rtol=1e-6, atol=1e-6)
    found.add_metrics({"smooth": SmoothCalibrationError()})
    with pytest.raises(ValueError, match="'smooth' reads more than the statistics"):
        update_statistics(found, torch.zeros(4, 2))


def test_a_value_that_was_computed_before():
    logits, target = draw((500, 6))
    metric = Accuracy()
    metric.update(logits, target)
    before = metric.compute()
    metric.update_statistics(statistics_of(logits, logits.argmax(1)))
    assert_close(metric.compute(), (before + 1) / 2)


@pytest.mark.parametrize("policy", ["raise", "omit"])
def test_rows_that_cannot_be_read_are_counted_as_those_of_logits(policy):
    logits, target = draw((50, 6))
    logits[3, 2] = torch.nan
    metric = CalibrationError(nan_policy=policy)
    metric.update_statistics(statistics_of(logits, target, reduction="none"))
    assert torch.equal(metric.sums[-1, [0, 1, 7], 0], calibration_sums(logits, target, metric.spec)[-1, [0, 1, 7], 0])
    if policy == "omit":
        assert metric.num_omitted == 1
    else:
        with pytest.raises(ValueError, match="1 of 50 samples cannot be measured"):
            metric.compute()


UNREAD = [
    ClasswiseCalibrationError(num_classes=3),
    SmoothCalibrationError(),
    MeanEntropy(),
    CalibrationError(entropy=True),
    CalibrationError(input="probs"),
    CalibrationError(task="binary"),
    CalibrationError(task="multilabel", confidence="positive"),
    AURC(score="max_logit"),
    AURC(mode="exact"),
    AURC(task="binary"),
    dict(full_metrics().items(copy_state=False))["acc"],
]


@pytest.mark.parametrize("metric", UNREAD, ids=lambda metric: type(metric).__name__)
def test_metrics_that_read_more(metric):
    assert not metric.reads_statistics
    with pytest.raises(ValueError, match="reads more than the statistics"):
        metric.update_statistics(torch.zeros(4, 2))


@pytest.mark.parametrize("wrong", [torch.zeros(3, 2), torch.zeros(4), torch.zeros(4, 2, dtype=torch.float64)])
def test_statistics_of_another_shape(wrong):
    with pytest.raises(ValueError, match=r"statistics must be float32 \(4, S\)"):
        CalibrationError().update_statistics(wrong)
