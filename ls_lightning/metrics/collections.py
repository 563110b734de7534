"""Metrics that belong together, on as few states as can be."""

from dataclasses import asdict
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from ls_lightning.functional.outputs import Closed, Confidence, NanPolicy, Scores, Spec, Task
from ls_lightning.metrics.base import SharedPass, SumMetric
from ls_lightning.metrics.calibration import CalibrationError, CalibrationGap
from ls_lightning.metrics.overconfidence import (
    OverconfidenceError,
    OverconfidencePart,
    UnderconfidenceError,
    UnderconfidencePart,
)
from ls_lightning.metrics.scores import Accuracy, BrierComponent, BrierScore, MeanEntropy, NegativeLogLikelihood
from ls_lightning.metrics.selective import AURC


def default_metrics(
    task: Task = "multiclass",
    num_classes: int | None = None,
    *,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> MetricCollection:
    """Collect `acc`, `nll`, `brier`, `ece`, `mce`, `gap`, `overconfidence` and `aurc`, in one pass over a batch.

    Args, Raises: as :class:`CalibrationMetric`. Any member but `aurc` knows `num_samples` and `reliability_bins()`.

    Example:
        >>> import torch
        >>> metrics = default_metrics(num_classes=2)
        >>> metrics.update(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> {name: round(value.item(), 2) for name, value in metrics.compute().items()}  # doctest: +ELLIPSIS
        {'acc': 0.75, 'nll': 0.69, 'brier': 0.5, 'ece': 0.25, 'mce': 0.25, 'gap': -0.25, ...}
        >>> metrics["ece"].num_samples
        4
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return _in_one_pass(_default_members(spec), spec)


def full_metrics(
    task: Task = "multiclass",
    num_classes: int | None = None,
    *,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> MetricCollection:
    """Collect those of :func:`default_metrics`, and all others that are read off the same state.

    `rmsce`, `underconfidence`, `entropy`; `ece_debiased`, `rmsce_debiased`; `over_part`, `under_part`, which add up to
    `ece`; `reliability`, `resolution`, `uncertainty` of the Brier score.

    Args, Raises: as :class:`CalibrationMetric`.

    Example:
        >>> list(full_metrics("binary"))[-3:]
        ['reliability', 'resolution', 'uncertainty']
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy, entropy=True)
    shared: dict[str, Any] = asdict(spec)
    members = {
        **_default_members(spec),
        "rmsce": CalibrationError(norm="l2", **shared),
        "underconfidence": UnderconfidenceError(**shared),
        "entropy": MeanEntropy(**shared),
        "ece_debiased": CalibrationError(debias=True, **shared),
        "rmsce_debiased": CalibrationError(norm="l2", debias=True, **shared),
        "over_part": OverconfidencePart(**shared),
        "under_part": UnderconfidencePart(**shared),
        "reliability": BrierComponent("reliability", **shared),
        "resolution": BrierComponent("resolution", **shared),
        "uncertainty": BrierComponent("uncertainty", **shared),
    }
    return _in_one_pass(members, spec)


def update_statistics(metrics: MetricCollection, statistics: Tensor) -> None:
    """Add a batch to all members by what a smoothing loss has left of it, in place of `metrics.update(logits, target)`.

    Args:
        metrics: as :func:`default_metrics` returns them, or others that all have `reads_statistics`.
        statistics: float32 `(4, S)`, as `smoothed_cross_entropy(..., statistics=)` writes them.

    Raises:
        ValueError: a member reads more than that, and nothing was added; or statistics of another shape or dtype.

    Example:
        >>> import torch
        >>> from ls_lightning.functional import smoothed_cross_entropy
        >>> metrics, statistics = default_metrics(), torch.empty(4, 2)
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> loss = smoothed_cross_entropy(logits, target, statistics=statistics)
        >>> update_statistics(metrics, statistics)
        >>> metrics.compute()["acc"].item()
        0.5
    """
    members: dict[str, SumMetric] = {}
    for name, metric in metrics.items(keep_base=True, copy_state=False):
        if not (isinstance(metric, SumMetric) and metric.reads_statistics):
            raise ValueError(f"{name!r} reads more than the statistics of a smoothing loss: update(logits, target).")
        members[name] = metric
    for group in metrics.compute_groups.values():
        members[group[0]].update_statistics(statistics)
    for metric in members.values():  # the rest as MetricCollection.update does it
        metric._computed = None
    metrics._state_is_copy = False
    metrics._compute_groups_create_state_ref()


def _default_members(spec: Spec) -> dict[str, SumMetric]:
    shared: dict[str, Any] = asdict(spec)
    read = {name: shared[name] for name in ("task", "num_classes", "input", "ignore_index", "nan_policy")}
    return {
        "acc": Accuracy(**shared),
        "nll": NegativeLogLikelihood(**shared),
        "brier": BrierScore(**shared),
        "ece": CalibrationError(**shared),
        "mce": CalibrationError(norm="max", **shared),
        "gap": CalibrationGap(**shared),
        "overconfidence": OverconfidenceError(**shared),
        "aurc": AURC(**read),
    }


def _in_one_pass(members: dict[str, SumMetric], spec: Spec) -> MetricCollection:
    """Let all members keep both states and say that they are one compute group, so that one of them is updated."""
    sums, sketch = members["acc"], members["aurc"]
    shared = SharedPass(sums._state, sketch._state, spec)
    empty = {metric._state: metric.sums for metric in (sums, sketch)}
    ordered = MetricCollection([])
    for name, metric in members.items():  # a dict's names would be sorted
        metric.share(shared, empty)
        ordered.add_metrics({name: metric})
    return MetricCollection(ordered, compute_groups=[list(members)])
