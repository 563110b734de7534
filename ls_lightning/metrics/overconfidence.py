"""On which side calibration errs: parts of the ECE, and the errors that weigh them by confidence."""

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.metrics.base import CalibrationMetric


class OverconfidencePart(CalibrationMetric):
    r"""The part of the ECE in bins that claim too much. Arguments as :class:`CalibrationMetric`.

    .. math:: \sum_b \frac{n_b}{N} \max(c_b - a_b, 0)

    With :class:`UnderconfidencePart` it adds up to the ECE; minus that it is the gap.

    Example:
        >>> import torch
        >>> metric = OverconfidencePart(task="binary", input="probs")
        >>> round(metric(torch.tensor([0.9, 0.9]), torch.tensor([1, 0])).item(), 4)
        0.4
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.overconfidence_part(sums)


class UnderconfidencePart(CalibrationMetric):
    r"""The part of the ECE in bins that claim too little. Arguments as :class:`CalibrationMetric`.

    .. math:: \sum_b \frac{n_b}{N} \max(a_b - c_b, 0)

    Example:
        >>> import torch
        >>> metric = UnderconfidencePart(task="binary", input="probs")
        >>> round(metric(torch.tensor([0.6, 0.6]), torch.tensor([1, 1])).item(), 4)
        0.4
    """

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.underconfidence_part(sums)


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
