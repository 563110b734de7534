import copy
import math
import pickle

import pytest
import torch
from no_sync import NoSync
from test_selective import example
from torch.testing import assert_close
from torchmetrics import MetricCollection

from ls_lightning import functional
from ls_lightning.metrics import (
    AUGRC,
    AURC,
    EAURC,
    AdaptiveCalibrationError,
    CalibrationError,
    CoverageAtRisk,
    RiskAtCoverage,
    RiskCoverageCurve,
)

NUMBERS = [AURC, EAURC, AUGRC, RiskAtCoverage, CoverageAtRisk, AdaptiveCalibrationError]
CLASSES = [*NUMBERS, RiskCoverageCurve]
MODES = ["sketch", "exact"]
FUNCTIONS = {
    AURC: functional.aurc,
    EAURC: functional.eaurc,
    AUGRC: functional.augrc,
    RiskAtCoverage: lambda *args, **kwargs: functional.risk_at_coverage(*args, 0.8, **kwargs),
    CoverageAtRisk: lambda *args, **kwargs: functional.coverage_at_risk(*args, 0.05, **kwargs),
    RiskCoverageCurve: lambda *args, **kwargs: torch.stack(functional.risk_coverage_curve(*args, **kwargs)),
    AdaptiveCalibrationError: functional.adaptive_calibration_error,
}
every_class = pytest.mark.parametrize("cls", CLASSES)
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def batches():
    logits, target = example(n=65, k=4, seed=3)
    return list(zip(logits.split([7, 32, 1, 25]), target.split([7, 32, 1, 25]), strict=True))


@pytest.fixture
def whole(batches):
    logits, target = zip(*batches, strict=True)
    return torch.cat(logits), torch.cat(target)


def updated(metric, batches):
    for batch in batches:
        metric.update(*batch)
    return metric


def same_bits(given, wanted):
    assert_close(given, wanted, rtol=0, atol=0, equal_nan=True)


# values


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "options",
    [{}, {"task": "binary"}, {"task": "multilabel"}, {"ignore_index": 2}, {"input": "probs"}, {"nan_policy": "omit"}],
)
def test_exact_mode_is_the_function_of_the_whole(cls, options, batches, whole):
    def prepare(logits, target):
        if options.get("task") == "binary":
            return logits[:, 0], (target == 0).long()
        if options.get("task") == "multilabel":
            return logits, torch.nn.functional.one_hot(target, 4)
        return (logits.softmax(-1) if options.get("input") == "probs" else logits), target

    metric = updated(cls(mode="exact", **options), [prepare(*batch) for batch in batches])
    same_bits(metric.compute(), FUNCTIONS[cls](*prepare(*whole), **options))
    assert metric.num_samples == metric.total_levels().n.sum() <= 4 * 65


@pytest.mark.parametrize("options", [{"score": "max_logit"}, {"score": "pnorm", "p": 3.0}])
def test_other_scores(options, batches, whole):
    metric = updated(AURC(mode="exact", **options), batches)
    same_bits(metric.compute(), functional.aurc(*whole, **options))
    low, high = updated(AURC(**options), batches).bounds()
    assert low <= metric.compute() <= high


@pytest.mark.parametrize("cls", NUMBERS)
@pytest.mark.parametrize("options", [{}, {"task": "binary"}])
def test_the_sketch_lies_between_its_bounds(cls, options, batches, whole):
    def prepare(logits, target):
        return (logits[:, 0], (target == 0).long()) if options else (logits, target)

    metric = updated(cls(**options), [prepare(*batch) for batch in batches])
    value, (low, high) = metric.compute(), metric.bounds()
    assert low <= value <= high
    assert low - 1e-12 <= FUNCTIONS[cls](*prepare(*whole), **options) <= high + 1e-12
    same_bits(metric.bounds(metric.sums), (low, high))
    same_bits(metric.measure(metric.sums), value)
    assert value.dtype == low.dtype == torch.float64
    assert metric.num_samples == 65


def test_bounds_of_the_exact_mode_are_those_of_ties():
    metric = AURC(mode="exact")
    metric.update(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
    low, high = metric.bounds()
    assert low.item() == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert high.item() == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert metric.compute().item() == 0.5


@every_mode
@every_class
def test_neither_batches_nor_their_order_matter(cls, mode, batches, whole):
    one = updated(cls(mode=mode), [whole])
    same_bits(updated(cls(mode=mode), batches).compute(), one.compute())
    backwards = [(logits.flip(0), target.flip(0)) for logits, target in reversed(batches)]
    same_bits(updated(cls(mode=mode), backwards).compute(), one.compute())
    same_bits(one.bounds(), updated(cls(mode=mode), batches).bounds())


def test_the_curve(batches, whole):
    metric = updated(RiskCoverageCurve(mode="exact"), batches)
    curve = metric.curve()
    same_bits(torch.stack(curve), metric.compute())
    assert_close(curve.risk.mean(), updated(AURC(mode="exact"), batches).compute())
    points = updated(RiskCoverageCurve(), batches)
    same_bits(torch.stack(functional.risk_coverage_points(points.sums)), points.compute())
    same_bits(points.bounds(), (points.compute()[2], points.compute()[3]))


def test_options_of_the_classes(batches, whole):
    same_bits(
        updated(RiskAtCoverage(coverage=0.5, mode="exact"), batches).compute(),
        functional.risk_at_coverage(*whole, 0.5),
    )
    same_bits(
        updated(CoverageAtRisk(risk=0.3, mode="exact"), batches).compute(), functional.coverage_at_risk(*whole, 0.3)
    )
    same_bits(
        updated(AdaptiveCalibrationError(num_bins=4, norm="l2", mode="exact"), batches).compute(),
        functional.adaptive_calibration_error(*whole, num_bins=4, norm="l2"),
    )


# sharing


@every_mode
def test_all_of_them_share_one_state(mode, batches, whole):
    metrics = MetricCollection([cls(mode=mode) for cls in CLASSES])
    metrics.add_metrics({"at_half": RiskAtCoverage(coverage=0.5, mode=mode), "ece": CalibrationError()})
    updated(metrics, batches)
    assert sorted(map(len, metrics.compute_groups.values())) == [1, len(CLASSES) + 1]
    found = metrics.compute()
    for cls in CLASSES:
        same_bits(found[cls.__name__], updated(cls(mode=mode), batches).compute())


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "exact"},
        {"score": "max_logit"},
        {"score": "pnorm", "p": 2.0},
        {"ignore_index": 1},
        {"input": "probs"},
    ],
)
def test_what_is_read_differently_never_shares_a_state(other):
    metrics = MetricCollection({"one": AURC(), "other": AURC(**other)})
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert len(metrics.compute_groups) == 2


def test_one_p_does_not_share_with_another():
    metrics = MetricCollection({f"p{p:.0f}": AURC(score="pnorm", p=p) for p in (2.0, 3.0)})
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert len(metrics.compute_groups) == 2


def test_exact_mode_has_no_sums(batches):
    with pytest.raises(RuntimeError, match=r"AURC\(mode='exact'\) keeps a number for each sample and has no sums"):
        _ = updated(AURC(mode="exact"), batches).sums


# several ranks


def ranks(metric, *others):
    """Make the metric believe in several ranks."""

    def state(other):
        return other.sums if other.mode == "sketch" else other._keys()

    def gather(tensor, group=None):
        assert tensor.dtype == torch.int64
        return [tensor, *map(state, others)]

    metric.dist_sync_fn = gather
    metric.distributed_available_fn = lambda: True
    return metric


@pytest.mark.filterwarnings("ignore:.*before the ``update``")
@every_mode
@every_class
@pytest.mark.parametrize("first", [0, 2, 4])
def test_ranks_add_up(cls, mode, batches, whole, first):
    """Also where one of them has seen nothing."""
    mine = ranks(updated(cls(mode=mode), batches[:first]), updated(cls(mode=mode), batches[first:]), cls(mode=mode))
    alone = updated(cls(mode=mode), [whole])
    same_bits(mine.compute(), alone.compute())
    assert mine.num_samples == 65
    same_bits(mine.bounds(), alone.bounds())
    mine.update(*batches[0])
    assert mine.num_samples == 65 + 7


@every_mode
def test_bad_samples_of_another_rank_raise_here_too(mode, batches):
    other = updated(AURC(mode=mode), [(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))])
    with pytest.raises(ValueError, match="2 of 9 samples cannot be measured"):
        ranks(updated(AURC(mode=mode), batches[:1]), other).compute()


# state


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.to(torch.bfloat16),
        lambda m: m.set_dtype(torch.bfloat16),
        lambda m: m.half(),
        lambda m: torch.nn.ModuleList([m]).bfloat16()[0],
        lambda m: torch.nn.ModuleList([m])._apply(lambda t: t.to(torch.float16))[0],
    ],
)
@every_mode
def test_no_cast_touches_the_state(cast, mode, batches, whole):
    metric = updated(AURC(mode=mode), batches[:2])
    value = updated(AURC(mode=mode), [whole]).compute()
    metric = updated(cast(metric), batches[2:])
    same_bits(metric.compute(), value)
    metric.reset()
    same_bits(updated(metric, [whole]).compute(), value)


@every_mode
@every_class
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_go_on_from_where_they_were(cls, mode, copier, batches):
    metric = updated(cls(mode=mode), batches[:1])
    other = copier(metric)
    for each in (metric, other):
        each.update(*batches[1])
    same_bits(other.compute(), metric.compute())
    metric.update(*batches[2])
    assert other.num_samples == 39


@every_mode
@every_class
def test_forward_gives_the_batch_and_keeps_the_whole(cls, mode, batches, whole):
    metric = cls(mode=mode)
    for batch in batches:
        same_bits(metric(*batch), updated(cls(mode=mode), [batch]).compute())
    same_bits(metric.compute(), updated(cls(mode=mode), [whole]).compute())
    metric.reset()
    same_bits(updated(metric, batches[:1]).compute(), updated(cls(mode=mode), batches[:1]).compute())


@every_mode
@pytest.mark.parametrize("options", [{}, {"score": "pnorm", "p": 2.5}])
def test_state_dict_round_trip(mode, options, batches):
    metric = updated(AURC(mode=mode, **options), batches)
    assert metric.state_dict() == {}
    metric.persistent(True)
    other = AURC(mode=mode, **options)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    other._update_count = 1
    same_bits(other.compute(), metric.compute())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        AURC(mode=mode, score="max_logit").load_state_dict(metric.state_dict())


@every_mode
def test_neither_graphs_nor_buffers_are_kept(mode, batches):
    logits, target = (tensor.clone() for tensor in batches[1])
    metric = AURC(mode=mode)
    metric.update(logits.requires_grad_(), target)
    value = metric.compute()
    with torch.no_grad():
        logits.zero_()
        target.zero_()
    metric._computed = None
    same_bits(metric.compute(), value)
    assert not value.requires_grad


def test_the_sketch_does_not_grow_and_earlier_sums_do_not_change(batches):
    metric = AURC()
    sums = updated(metric, batches[:1]).sums
    kept, size = sums.clone(), sums.numel() * sums.element_size()
    updated(metric, batches)
    assert torch.equal(sums, kept)
    assert metric.sums.numel() * metric.sums.element_size() == size < 0.42e6


@every_mode
@every_class
def test_an_update_waits_for_nothing(cls, mode, batches):
    metric = cls(mode=mode)
    with NoSync():
        metric.update(*batches[0])


# without samples, and with bad ones


@every_mode
@pytest.mark.parametrize("cls", NUMBERS)
def test_computing_without_samples_warns_and_is_nan(cls, mode):
    metric = cls(mode=mode)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert math.isnan(metric.compute())
    metric.reset()
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    metric.update(torch.zeros(2, 3), torch.tensor([-100, -100]))
    assert math.isnan(metric.compute())
    assert metric.num_samples == 0


@pytest.mark.filterwarnings("ignore:.*before the ``update``")
@every_mode
def test_the_curve_of_nothing_is_empty(mode):
    assert RiskCoverageCurve(mode=mode).compute().shape == (4, 0)


@every_mode
@every_class
def test_bad_samples_raise_when_computed_and_a_reset_heals(cls, mode):
    metric = cls(mode=mode)
    metric.update(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="1 of 2 samples cannot be measured"):
        metric.compute()
    metric.reset()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([2]))
    with pytest.raises(ValueError, match="1 of 1 targets are out of range"):
        metric.compute()
    metric.reset()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert metric.compute().isfinite().all()


@every_mode
@every_class
def test_omitted_samples_are_counted(cls, mode, batches):
    metric = cls(mode=mode, nan_policy="omit")
    metric.update(*batches[0])
    metric.update(torch.full((3, 4), torch.nan), torch.tensor([0, 1, -100]))
    same_bits(metric.compute(), updated(cls(mode=mode), batches[:1]).compute())
    assert metric.num_omitted == 2
    assert metric.num_samples == 7
    assert updated(cls(mode=mode), batches).num_omitted == 0


@every_class
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode must be one of 'sketch', 'exact', got 'fast'"),
        ({"task": "ordinal"}, "task must be one of"),
        ({"num_classes": 1}, "num_classes of task='multiclass' must be at least 2"),
        ({"bins": 3}, "Unexpected keyword arguments: `bins`"),
    ],
)
def test_wrong_arguments(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_wrong_shares():
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\], got 0"):
        RiskAtCoverage(coverage=0)
    with pytest.raises(ValueError, match=r"risk must be in \[0, 1\], got nan"):
        CoverageAtRisk(risk=math.nan)
