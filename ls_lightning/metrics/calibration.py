"""How far confidence is from accuracy."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.functional.measures import Norm, check_norm
from ls_lightning.metrics.base import CalibrationMetric


class CalibrationError(CalibrationMetric):
    r"""ECE (`norm="l1"`), RMSCE (`"l2"`) or MCE (`"max"`): how far confidence is from accuracy, over bins.

    .. math:: \sum_b \frac{n_b}{N} |c_b - a_b|

    and its root-mean-square and maximum forms, over non-empty bins.

    Args:
        norm: `"l1"`, `"l2"` or `"max"`.
        debias: subtract what the noise of the labels adds (`l1`, `l2`).
        kwargs: as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> metric = CalibrationError(num_bins=2, input="probs")
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 1, 1]))
        >>> round(metric.compute().item(), 4), metric.num_samples
        (0.1333, 3)

    Source: Guo et al. 2017, arXiv:1706.04599; debiased: Kumar et al. 2019, arXiv:1909.10155.
    """

    def __init__(self, *, norm: Norm = "l1", debias: bool = False, **kwargs: Any) -> None:
        check_norm(norm, debias)
        super().__init__(**kwargs)
        self.norm = norm
        self.debias = debias

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.calibration_error(sums, self.norm, self.debias)


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
