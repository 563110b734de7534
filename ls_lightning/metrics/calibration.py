"""Metrics that are read off the sums of :class:`~ls_lightning.metrics.base.CalibrationMetric`."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.functional.measures import Norm, check_norm
from ls_lightning.metrics.base import CalibrationMetric


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
