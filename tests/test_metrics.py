import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

from ls_lightning import functional as calibration
from ls_lightning.metrics import (
    AURC,
    Accuracy,
    BrierComponent,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    MeanEntropy,
    NegativeLogLikelihood,
    OverconfidenceError,
    OverconfidencePart,
    UnderconfidenceError,
    UnderconfidencePart,
    base,
    default_metrics,
    full_metrics,
)

CONF = Path(__file__).parent.parent / "conf" / "metrics"
DEFAULT = ["acc", "nll", "brier", "ece", "mce", "gap", "overconfidence", "aurc"]
FULL = [
    *DEFAULT,
    *("rmsce", "underconfidence", "entropy", "ece_debiased", "rmsce_debiased", "over_part", "under_part"),
    *("reliability", "resolution", "uncertainty"),
]
CLASSES = [
    Accuracy,
    BrierComponent,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    MeanEntropy,
    NegativeLogLikelihood,
    OverconfidenceError,
    OverconfidencePart,
    UnderconfidenceError,
    UnderconfidencePart,
]


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 4, generator=generator) * 2, torch.randint(0, 4, (n,), generator=generator))
        for n in (7, 32, 1, 25)
    ]


@pytest.fixture
def whole(batches):
    logits, target = zip(*batches, strict=True)
    return torch.cat(logits), torch.cat(target)


def expected(logits, target, **options):
    binning = {k: v for k, v in options.items() if k in ("num_bins", "closed")}
    rest = {k: v for k, v in options.items() if k not in binning}
    plain = {k: v for k, v in rest.items() if k != "confidence"}
    return {
        "acc": calibration.accuracy(logits, target, **plain),
        "nll": calibration.negative_log_likelihood(logits, target, **plain),
        "brier": calibration.brier_score(logits, target, **plain),
        "ece": calibration.calibration_error(logits, target, **options),
        "mce": calibration.calibration_error(logits, target, norm="max", **options),
        "gap": calibration.calibration_gap(logits, target, **rest),
        "overconfidence": calibration.overconfidence_error(logits, target, **options),
        "aurc": AURC(**plain)(logits, target),
        "rmsce": calibration.calibration_error(logits, target, norm="l2", **options),
        "underconfidence": calibration.underconfidence_error(logits, target, **options),
    }


def same_bits(given, wanted):
    for name, value in wanted.items():
        assert_close(given[name], value, rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_bins": 7, "closed": "left"},
        {"task": "binary", "confidence": "positive"},
        {"task": "multilabel"},
        {"ignore_index": 2},
        {"input": "probs"},
    ],
)
def test_batches_give_the_value_of_the_whole(options, batches, whole):
    def prepare(logits, target):
        if options.get("task") == "binary":
            return logits[:, 0], (target == 0).long()
        if options.get("task") == "multilabel":
            return logits, torch.nn.functional.one_hot(target, 4)
        return (logits.softmax(-1) if options.get("input") == "probs" else logits), target

    metrics = full_metrics(**options)
    for batch in batches:
        metrics.update(*prepare(*batch))
    given = metrics.compute()
    assert list(given) == FULL
    same_bits(given, expected(*prepare(*whole), **options))
    assert all(value.dtype == torch.float64 and value.shape == () for value in given.values())


def test_entropy_of_uniform_logits():
    assert MeanEntropy()(torch.zeros(3, 8), torch.tensor([0, 1, 2])).item() == pytest.approx(math.log(8), abs=1e-9)


def test_the_names_and_their_order():
    assert list(default_metrics("binary")) == DEFAULT
    assert list(full_metrics("multiclass", 10)) == FULL
    assert list(default_metrics().clone(prefix="val/")) == [f"val/{name}" for name in DEFAULT]


def test_a_collection_sums_each_batch_once(batches, monkeypatch):
    calls = []
    real = base.add_to_both
    monkeypatch.setattr(base, "add_to_both", lambda *args: calls.append(1) or real(*args))
    metrics = full_metrics()
    for batch in batches:
        metrics.update(*batch)
    metrics.compute()
    assert len(calls) == len(batches)
    assert list(metrics.compute_groups.values()) == [FULL]
    metrics.reset()
    metrics.update(*batches[0])
    assert len(calls) == len(batches) + 1
    assert metrics["entropy"].num_samples == 7


def test_torchmetrics_finds_the_shared_state_itself(batches, whole):
    metrics = MetricCollection([cls() for cls in CLASSES])
    for batch in batches:
        metrics.update(*batch)
    names = [cls.__name__ for cls in CLASSES if cls is not MeanEntropy]
    assert sorted(map(sorted, metrics.compute_groups.values())) == [names, ["MeanEntropy"]]
    assert_close(metrics.compute()["CalibrationGap"], calibration.calibration_gap(*whole), rtol=0, atol=0)


@pytest.mark.parametrize(
    "other",
    [
        {"closed": "left"},
        {"num_bins": 14},
        {"confidence": "positive"},
        {"ignore_index": -1},
        {"task": "multilabel"},
    ],
)
def test_what_is_read_differently_never_shares_a_state(other):
    """The first batch gives both the same sums, and torchmetrics merges what is equal after one batch."""
    base = {"task": "binary"}
    metrics = MetricCollection({"one": CalibrationError(**base), "other": CalibrationError(**{**base, **other})})
    ones = torch.full((4, 1), 40.0), torch.ones(4, 1)
    metrics.update(*ones)
    assert len(metrics.compute_groups) == 2


def test_a_foreign_metric_may_join(batches, whole):
    metrics = default_metrics(num_classes=4)
    metrics.add_metrics({"f1": MulticlassF1Score(4)})
    for batch in batches:
        metrics.update(*batch)
    given = metrics.compute()
    same_bits({k: v for k, v in given.items() if k != "f1"}, {k: expected(*whole)[k] for k in DEFAULT})
    assert given["f1"] == MulticlassF1Score(4)(*whole)


def test_forward_gives_the_batch_and_keeps_the_whole(batches, whole):
    metrics = default_metrics()
    for logits, target in batches:
        same_bits(metrics(logits, target), {k: expected(logits, target)[k] for k in DEFAULT})
    same_bits(metrics.compute(), {k: expected(*whole)[k] for k in DEFAULT})


def test_bins_and_number_of_samples(batches, whole):
    metrics = default_metrics(num_bins=5, ignore_index=3)
    for batch in batches:
        metrics.update(*batch)
    assert metrics["acc"].num_samples == int((whole[1] != 3).sum())
    given = metrics["brier"].reliability_bins()
    wanted = calibration.reliability_bins(*whole, num_bins=5, ignore_index=3)
    assert_close(tuple(given), tuple(wanted), rtol=0, atol=0, equal_nan=True)
    assert int(given.counts.sum()) == metrics["acc"].num_samples


# several ranks


def ranks(metric, other, log=None):
    """Make the metric believe in two ranks, of which `other` is the second."""

    def gather(tensor, group=None):
        if log is not None:
            log.append(tensor.shape)
        return [tensor, other.sums]

    metric.dist_sync_fn = gather
    metric.distributed_available_fn = lambda: True
    return metric


@pytest.mark.parametrize("first", [0, 2])
def test_ranks_add_up(batches, whole, first):
    """Also where one rank has seen nothing: its state takes part."""
    mine, other, collectives = NegativeLogLikelihood(), NegativeLogLikelihood(), []
    for batch in batches[:first]:
        mine.update(*batch)
    for batch in batches[first:]:
        other.update(*batch)
    ranks(mine, other, collectives)
    local = mine.sums.clone()
    wanted = calibration.negative_log_likelihood(*whole)
    if first == 0:
        with pytest.warns(UserWarning, match="before the ``update``"):
            assert_close(mine.compute(), wanted, rtol=0, atol=0)
    else:
        assert_close(mine.compute(), wanted, rtol=0, atol=0)
    assert len(collectives) == 1
    assert mine.num_samples == len(whole[1])
    assert mine.reliability_bins().counts.sum() == len(whole[1])
    assert torch.equal(mine.sums, local)
    mine.update(*batches[0])
    assert mine.num_samples == len(whole[1]) + len(batches[0][1])


def test_each_member_of_a_collection_sends_only_what_it_reads(batches):
    metrics, sent = default_metrics(), []
    for batch in batches:
        metrics.update(*batch)
    members = dict(metrics.items(copy_state=False))
    for member in members.values():
        ranks(member, member, sent)
    values = metrics.compute()
    assert sent == [members[name].sums.shape for name in DEFAULT]
    assert values["acc"] == metrics["acc"].measure(metrics["acc"].sums)
    assert metrics["aurc"].num_samples == 2 * sum(len(target) for _, target in batches)
    assert metrics["ece"](*batches[0]) >= 0  # forward reduces both states


def test_bad_samples_of_another_rank_raise_here_too(batches):
    mine, other = Accuracy(), Accuracy()
    mine.update(*batches[0])
    other.update(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="2 of 9 samples cannot be measured"):
        ranks(mine, other).compute()


# state


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.to(torch.bfloat16),
        lambda m: m.set_dtype(torch.bfloat16),
        lambda m: m.set_dtype(torch.float64),
        lambda m: m.half(),
        lambda m: m.type(torch.float16),
        lambda m: m.to("cpu", torch.float16),
        lambda m: torch.nn.ModuleList([m]).bfloat16()[0],
        lambda m: torch.nn.ModuleList([m]).type(torch.bfloat16)[0],
        lambda m: torch.nn.ModuleList([m])._apply(lambda t: t.to(torch.bfloat16))[0],
    ],
)
def test_no_cast_touches_the_sums(cast, batches, whole):
    metric = CalibrationError()
    for batch in batches:
        metric.update(*batch)
    before, value = metric.sums.clone(), metric.compute()
    metric = cast(metric)
    assert torch.equal(metric.sums, before)
    assert metric.sums.dtype == torch.int64
    assert_close(metric.compute(), value, rtol=0, atol=0)
    metric.update(*batches[0])
    metric.reset()
    metric.update(*whole)
    assert_close(metric.compute(), value, rtol=0, atol=0)


def test_device_moves_still_happen():
    metric = Accuracy().to("meta")
    assert metric.sums.device.type == "meta"
    assert metric.device.type == "meta"


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_go_on_from_where_they_were(cls, copier, batches):
    metric = cls(num_bins=9)
    metric.update(*batches[0])
    other = copier(metric)
    for each in (metric, other):
        each.update(*batches[1])
    assert_close(other.compute(), metric.compute(), rtol=0, atol=0)
    metric.update(*batches[2])
    assert other.num_samples == 39


def test_a_collection_survives_pickling(batches, whole):
    metrics = default_metrics()
    metrics.update(*batches[0])
    metrics = pickle.loads(pickle.dumps(metrics))
    for batch in batches[1:]:
        metrics.update(*batch)
    same_bits(metrics.compute(), {k: expected(*whole)[k] for k in DEFAULT})


def test_reset_forgets(batches):
    metric = CalibrationError()
    metric.update(*batches[0])
    metric.compute()
    metric.reset()
    metric.update(*batches[1])
    assert_close(metric.compute(), calibration.calibration_error(*batches[1]), rtol=0, atol=0)


def test_state_dict_is_empty_unless_asked_for(batches):
    metric = CalibrationError()
    metric.update(*batches[0])
    assert metric.state_dict() == {}
    metric.persistent(True)
    other = CalibrationError()
    other.load_state_dict(metric.state_dict())
    assert torch.equal(other.sums, metric.sums)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        CalibrationError(closed="left").load_state_dict(metric.state_dict())


def test_no_graph_is_kept(batches):
    logits, target = batches[0]
    metric = NegativeLogLikelihood()
    assert not metric(logits.clone().requires_grad_(), target).requires_grad
    assert not metric.compute().requires_grad


def test_earlier_values_do_not_change(batches):
    metric = CalibrationError()
    metric.update(*batches[0])
    sums, value = metric.sums, metric.compute()
    kept = sums.clone(), value.clone()
    metric.update(*batches[1])
    assert torch.equal(sums, kept[0])
    assert torch.equal(value, kept[1])


# without samples, and with bad ones


@pytest.mark.parametrize("cls", CLASSES)
def test_computing_without_samples_warns_and_is_nan(cls):
    metric = cls()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert math.isnan(metric.compute())
    metric.reset()
    metric.update(torch.zeros(2, 3), torch.tensor([-100, -100]))
    assert math.isnan(metric.compute())
    assert metric.num_samples == 0


@pytest.mark.parametrize("cls", CLASSES)
def test_bad_samples_raise_when_computed_and_a_reset_heals(cls):
    metric = cls()
    metric.update(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="1 of 2 samples cannot be measured"):
        metric.compute()
    metric.reset()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([2]))
    with pytest.raises(ValueError, match="1 of 1 targets are out of range"):
        metric.compute()
    metric.reset()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert math.isfinite(metric.compute())


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 0}, "num_bins must be at least 1, got 0"),
        ({"task": "ordinal"}, "task must be one of"),
        ({"num_classes": 1}, "num_classes of task='multiclass' must be at least 2"),
        ({"bins": 3}, "Unexpected keyword arguments: `bins`"),
    ],
)
def test_wrong_arguments(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_wrong_norm():
    with pytest.raises(ValueError, match="norm must be one of 'l1', 'l2', 'max', got 'linf'"):
        CalibrationError(norm="linf")


def test_num_classes_is_checked_with_both_shapes():
    with pytest.raises(ValueError, match=r"num_classes=5, but there are logits \(2, 3\) and target \(2,\)"):
        Accuracy(num_classes=5).update(torch.zeros(2, 3), torch.tensor([0, 1]))


# configuration


@pytest.mark.parametrize(("name", "names"), [("default", DEFAULT), ("full", FULL)])
def test_configs_build_what_they_say(name, names):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    config.num_bins, config.closed = 7, "left"
    metrics = instantiate(config)(task="multiclass", num_classes=4)
    assert list(metrics) == names
    binned = [metric for name, metric in metrics.items() if name != "aurc"]
    assert all(m.spec.num_bins == 7 and m.spec.closed == "left" for m in binned)
    metrics.update(torch.zeros(2, 4), torch.tensor([0, 1]))
    assert metrics.compute()["acc"] == 0.5
