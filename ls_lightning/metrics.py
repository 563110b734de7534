"""Metrics that say whether smoothing helped: one integer state, read in several ways.

All classes take the same arguments and accumulate the same sums, so that a `MetricCollection` of them
computes one softmax a batch. Values are bit-identical for any batch size, batch order and number of ranks.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.functional.measures import Norm, ReliabilityBins, check_norm
from ls_lightning.functional.outputs import Closed, Confidence, Scores, Spec, Task
from ls_lightning.functional.sums import add_sums, calibration_sums, empty_sums


class CalibrationMetric(Metric):
    """The shared state of all metrics here; subclasses say in `measure` how its sums are read.

    Args:
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K, or the number of labels; None takes it from the logits.
        num_bins: bins of equal width over [0, 1], at least 1; 15 is usual.
        closed: `"right"`: bins (a, b]; `"left"`: [a, b), as torchmetrics and netcal.
        input: `"logits"` or `"probs"`, which is never guessed.
        ignore_index: targets of this value are not counted.
        confidence: `"top"`, or `"positive"` (binary, multilabel): P(y=1) against y.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an argument is not one of these. `compute` raises a ValueError if a sample was
            NaN or a target out of range.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False

    def __init__(
        self,
        *,
        task: Task = "multiclass",
        num_classes: int | None = None,
        num_bins: int = 15,
        closed: Closed = "right",
        input: Scores = "logits",
        ignore_index: int | None = -100,
        confidence: Confidence = "top",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence)
        # torchmetrics lets metrics share a state of equal name and, after one batch, equal value: what is
        # read differently must not have an equal name.
        self._state = "_".join(["sums", *(str(v) for k, v in asdict(self.spec).items() if k != "num_classes")])
        self.add_state(self._state, empty_sums(num_bins), dist_reduce_fx="sum")

    @override
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(N, K, d1, ...)` multiclass, `(N,)` or `(N, 1)` binary, `(N, L, ...)` multilabel.
            target: class indices `(N, d1, ...)`, or 0 and 1.
        """
        setattr(self, self._state, add_sums(self.sums, calibration_sums(logits, target, self.spec)))

    @override
    def compute(self) -> Tensor:
        """Return the value over all batches and ranks, 0-d float64; NaN if nothing was counted."""
        value = self.measure(self.sums)
        return value.float().to(self.device) if self.device.type == "mps" else value.to(self.device)

    def measure(self, sums: Tensor) -> Tensor:
        """Read the metric off the sums of :func:`~ls_lightning.functional.sums.calibration_sums`."""
        raise NotImplementedError

    @property
    def sums(self) -> Tensor:
        """This rank's sums, int64 `(num_bins + 1, 7, 2)`."""
        sums: Tensor = getattr(self, self._state)
        return sums

    def total_sums(self) -> Tensor:
        """Return the sums over all ranks; every rank has to call it."""
        if self._is_synced:
            return self.sums
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self.sums

    @property
    def num_samples(self) -> int:
        """The number of samples counted, over all ranks; every rank has to ask."""
        return measures.num_samples(self.total_sums())

    def reliability_bins(self) -> ReliabilityBins:
        """Return count, mean confidence and accuracy of each bin, over all ranks; every rank has to ask."""
        return measures.reliability_bins(self.total_sums())

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        # set_dtype, or a Trainer in bf16-true, would cast the integers, and a cached value.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, exclude_state)


class CalibrationError(CalibrationMetric):
    r"""ECE (`norm="l1"`), RMSCE (`"l2"`) or MCE (`"max"`): how far confidence is from accuracy, over bins.

    .. math:: \sum_b \frac{n_b}{N} |c_b - a_b|

    and its root-mean-square and maximum forms, over non-empty bins. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> metric = CalibrationError(num_bins=2, input="probs")
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 1, 1]))
        >>> round(metric.compute().item(), 4), metric.num_samples
        (0.1333, 3)

    Source: Guo et al. 2017, arXiv:1706.04599.
    """

    def __init__(self, *, norm: Norm = "l1", **kwargs: Any) -> None:
        check_norm(norm)
        super().__init__(**kwargs)
        self.norm = norm

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.calibration_error(sums, self.norm)


class CalibrationGap(CalibrationMetric):
    """Mean confidence minus accuracy: positive is overconfident. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> CalibrationGap()(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])).item()
        -0.25
    """

    higher_is_better = None

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.calibration_gap(sums)


class OverconfidenceError(CalibrationMetric):
    r"""Excess of confidence over accuracy, weighted by confidence. Arguments as :class:`CalibrationMetric`.

    .. math:: \sum_b \frac{n_b}{N}\, c_b \max(c_b - a_b, 0)

    Example:
        >>> import torch
        >>> metric = OverconfidenceError(task="binary", input="probs")
        >>> round(metric(torch.tensor([0.9, 0.9]), torch.tensor([1, 0])).item(), 4)
        0.36

    Source: Thulasidasan et al. 2019, arXiv:1905.11001.
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.overconfidence_error(sums)


class UnderconfidenceError(CalibrationMetric):
    r"""Excess of accuracy over confidence, weighted by confidence. Arguments as :class:`CalibrationMetric`.

    .. math:: \sum_b \frac{n_b}{N}\, c_b \max(a_b - c_b, 0)

    Example:
        >>> import torch
        >>> metric = UnderconfidenceError(task="binary", input="probs")
        >>> round(metric(torch.tensor([0.6, 0.6]), torch.tensor([1, 1])).item(), 4)
        0.24
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.underconfidence_error(sums)


class Accuracy(CalibrationMetric):
    """Share of samples whose most probable class is the target. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> Accuracy()(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0])).item()
        0.5
    """

    higher_is_better = True

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.accuracy(sums)


class NegativeLogLikelihood(CalibrationMetric):
    """Mean negative log-probability of the hard label. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> round(NegativeLogLikelihood()(torch.zeros(3, 4), torch.tensor([0, 1, 3])).item(), 4)
        1.3863
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.negative_log_likelihood(sums)


class BrierScore(CalibrationMetric):
    r"""Mean of :math:`\sum_k (p_k - [k = y])^2`; for binary and multilabel of :math:`(p - y)^2`.

    Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> BrierScore()(torch.zeros(2, 2), torch.tensor([0, 1])).item()
        0.5
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.brier_score(sums)


class MeanEntropy(CalibrationMetric):
    """Mean entropy of the predicted probabilities, in nats. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> round(MeanEntropy()(torch.zeros(2, 10), torch.tensor([0, 1])).item(), 4)
        2.3026
    """

    higher_is_better = None

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.mean_entropy(sums)


def default_metrics(
    task: Task = "multiclass",
    num_classes: int | None = None,
    *,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
) -> MetricCollection:
    """Collect `acc`, `nll`, `brier`, `ece`, `mce`, `gap` and `overconfidence`, on one shared state.

    Args, Raises: as :class:`CalibrationMetric`. Any member knows `num_samples` and `reliability_bins()`.

    Example:
        >>> import torch
        >>> metrics = default_metrics(num_classes=2)
        >>> metrics.update(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> {name: round(value.item(), 2) for name, value in metrics.compute().items()}  # doctest: +ELLIPSIS
        {'acc': 0.75, 'nll': 0.69, 'brier': 0.5, 'ece': 0.25, 'mce': 0.25, 'gap': -0.25, ...}
        >>> metrics["ece"].num_samples
        4
    """
    shared: dict[str, Any] = asdict(Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence))
    return _sharing(
        acc=Accuracy(**shared),
        nll=NegativeLogLikelihood(**shared),
        brier=BrierScore(**shared),
        ece=CalibrationError(**shared),
        mce=CalibrationError(norm="max", **shared),
        gap=CalibrationGap(**shared),
        overconfidence=OverconfidenceError(**shared),
    )


def full_metrics(
    task: Task = "multiclass",
    num_classes: int | None = None,
    *,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
) -> MetricCollection:
    """Collect those of :func:`default_metrics`, then `rmsce`, `underconfidence` and `entropy`.

    Args, Raises: as :class:`CalibrationMetric`.

    Example:
        >>> list(full_metrics("binary"))[-3:]
        ['rmsce', 'underconfidence', 'entropy']
    """
    shared: dict[str, Any] = asdict(Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence))
    return _sharing(
        **dict(default_metrics(**shared).items()),
        rmsce=CalibrationError(norm="l2", **shared),
        underconfidence=UnderconfidenceError(**shared),
        entropy=MeanEntropy(**shared),
    )


def _sharing(**members: Metric) -> MetricCollection:
    """Make one compute group; said rather than found out, the first batch is summed once as well."""
    ordered = MetricCollection([])
    for name, metric in members.items():  # a dict's names would be sorted
        ordered.add_metrics({name: metric})
    return MetricCollection(ordered, compute_groups=[list(members)])
