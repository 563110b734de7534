"""Scores of the probabilities themselves."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.functional.brier import BrierDecomposition, brier_decomposition
from ls_lightning.functional.options import quoted
from ls_lightning.metrics.base import CalibrationMetric


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


class BrierComponent(CalibrationMetric):
    r"""One term of the Brier score's exact decomposition; :meth:`decomposition` gives all of them.

    .. math:: \mathrm{BS} = \mathrm{REL} - \mathrm{RES} + \mathrm{UNC} + \mathrm{WBV} - \mathrm{WBC}

    of the one probability that is binned: for multiclass that of the top label against whether it is right.

    Args:
        component: a field of :class:`~ls_lightning.functional.BrierDecomposition`: `"reliability"`,
            `"resolution"`, `"uncertainty"`, ...
        kwargs: as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> metric = BrierComponent("reliability", task="binary", input="probs")
        >>> round(metric(torch.tensor([0.9, 0.9]), torch.tensor([1, 0])).item(), 4)
        0.16

    Source: Murphy 1973; the terms within bins: Stephenson et al. 2008.
    """

    higher_is_better = None  # it depends on the component

    def __init__(self, component: str = "reliability", **kwargs: Any) -> None:
        if component not in BrierDecomposition._fields:
            raise ValueError(f"component must be one of {quoted(BrierDecomposition._fields)}, got {component!r}.")
        super().__init__(**kwargs)
        self.component = component

    @override
    def measure(self, sums: Tensor) -> Tensor:
        component: Tensor = getattr(brier_decomposition(sums), self.component)
        return component

    def decomposition(self) -> BrierDecomposition:
        """Return all terms, over all ranks; every rank has to ask."""
        return brier_decomposition(self.total_sums())


class MeanEntropy(CalibrationMetric):
    """Mean entropy of the predicted probabilities, in nats. Arguments as :class:`CalibrationMetric`.

    Example:
        >>> import torch
        >>> round(MeanEntropy()(torch.zeros(2, 10), torch.tensor([0, 1])).item(), 4)
        2.3026
    """

    higher_is_better = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "entropy": True})

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return measures.mean_entropy(sums)
