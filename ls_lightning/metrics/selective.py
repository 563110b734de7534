"""Selective classification: how well confidence tells right answers from wrong ones."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ls_lightning.functional import risk as risks
from ls_lightning.functional.levels import Levels, errors_first, errors_last
from ls_lightning.functional.outputs import NanPolicy, Scores, Spec, Task
from ls_lightning.functional.ranking import Ranking, Score
from ls_lightning.functional.risk import RiskCoverage, check_share
from ls_lightning.metrics.ranking import Mode, RankingMetric


class SelectiveMetric(RankingMetric):
    """The shared state of all metrics here: samples ranked by how sure the model is, computed from the logits.

    Args:
        mode: `"sketch"`, a state of fixed size (0.4 MB; 0.8 MB for `"max_logit"`) with certified `bounds()`; or
            `"exact"`, 8 bytes a sample. Either way values do not depend on batches, their order and ranks.
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K, or the number of labels; None takes it from the logits.
        score: `"msp"`, the maximum softmax probability; for multiclass logits also `"max_logit"` and `"pnorm"`.
        p: of `"pnorm"`, max z / ||z||_p; choose it on validation data.
        input: `"logits"` or `"probs"`, which is never guessed. Probabilities tie where they have rounded to 1.
        ignore_index: targets of this value are not counted.
        nan_policy: what a sample with a NaN or +inf does: `"raise"` in `compute`, or `"omit"` it (`num_omitted`).
        kwargs: of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an argument is not one of these. `compute` raises a ValueError if a target was
            out of range, or a sample no number.
    """

    def __init__(
        self,
        *,
        mode: Mode = "sketch",
        task: Task = "multiclass",
        num_classes: int | None = None,
        score: Score = "msp",
        p: float | None = None,
        input: Scores = "logits",
        ignore_index: int | None = -100,
        nan_policy: NanPolicy = "raise",
        **kwargs: Any,
    ) -> None:
        spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
        super().__init__(Ranking(spec, score, p), mode, **kwargs)

    @override
    def interval(self, levels: Levels) -> tuple[Tensor, Tensor]:
        one, other = self.read(errors_last(levels)), self.read(errors_first(levels))
        return torch.minimum(one, other), torch.maximum(one, other)

    def curve(self) -> RiskCoverage:
        """Return the risk-coverage curve with its bounds, over all ranks; every rank has to ask."""
        return risks.curve(self.total_levels())


class AURC(SelectiveMetric):
    r"""Area under the risk-coverage curve: the mean risk over all coverages. Arguments as :class:`SelectiveMetric`.

    .. math:: \frac{1}{N} \sum_{k=1}^N \frac{W(k)}{k}

    with W(k) errors among the k surest samples, the mean over all orders where they tie. That of `"msp"` changes with
    the temperature of the softmax if there are more than two classes.

    Example:
        >>> metric = AURC()
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 1, 0, 0]))
        >>> round(metric.compute().item(), 4)
        0.2708

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206.
    """

    @override
    def read(self, levels: Levels) -> Tensor:
        return risks.area(levels)


class EAURC(SelectiveMetric):
    r"""Excess AURC: less that of a perfect order at the same error rate e. Arguments as :class:`SelectiveMetric`.

    .. math:: \mathrm{AURC} - (e + (1 - e) \ln(1 - e))

    Example:
        >>> metric = EAURC()
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 1, 0, 0]))
        >>> round(metric.compute().item(), 4)
        0.2366

    Source: Geifman et al. 2019, arXiv:1805.08206.
    """

    @override
    def read(self, levels: Levels) -> Tensor:
        return risks.excess_area(levels)


class AUGRC(SelectiveMetric):
    r"""Area under the generalized risk-coverage curve. Arguments as :class:`SelectiveMetric`.

    .. math:: \frac{1}{N} \sum_{k=1}^N \frac{k}{N} \frac{W(k)}{k}

    Example:
        >>> metric = AUGRC()
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 1, 0, 0]))
        >>> metric.compute().item()
        0.1875

    Source: Traub et al. 2024, arXiv:2407.01032.
    """

    @override
    def read(self, levels: Levels) -> Tensor:
        return risks.generalized_area(levels)


class RiskAtCoverage(SelectiveMetric):
    """Error rate among the surest samples, a share `coverage` of all. Arguments as :class:`SelectiveMetric`, and

    Args:
        coverage: in (0, 1]; rounded up to whole samples.
        kwargs: of :class:`SelectiveMetric`.

    Example:
        >>> metric = RiskAtCoverage(coverage=0.5)
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 1, 0, 0]))
        >>> metric.compute().item()
        0.5

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """

    def __init__(self, *, coverage: float = 0.8, **kwargs: Any) -> None:
        check_share("coverage", coverage, above_zero=True)
        super().__init__(**kwargs)
        self.coverage = coverage

    @override
    def read(self, levels: Levels) -> Tensor:
        return risks.risk_at(levels, self.coverage)


class CoverageAtRisk(SelectiveMetric):
    """Largest share of samples that has an error rate of at most `risk`; 0 if none. Arguments as
    :class:`SelectiveMetric`, and

    Args:
        risk: in [0, 1].
        kwargs: of :class:`SelectiveMetric`.

    Example:
        >>> metric = CoverageAtRisk(risk=0.2)
        >>> metric.update(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 0, 0, 1]))
        >>> metric.compute().item()
        0.75

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """

    higher_is_better = True

    def __init__(self, *, risk: float = 0.05, **kwargs: Any) -> None:
        check_share("risk", risk)
        super().__init__(**kwargs)
        self.risk = risk

    @override
    def read(self, levels: Levels) -> Tensor:
        return risks.coverage_at(levels, self.risk)


class RiskCoverageCurve(SelectiveMetric):
    """The curve as one tensor `(4, J)`: coverage, risk, and its lower and upper bound. Arguments as
    :class:`SelectiveMetric`; all of them know it as `curve()`.

    Example:
        >>> metric = RiskCoverageCurve()
        >>> metric(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))[:2]
        tensor([[0.5000, 1.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """

    higher_is_better = None

    @override
    def read(self, levels: Levels) -> Tensor:
        return torch.stack(risks.curve(levels))

    @override
    def interval(self, levels: Levels) -> tuple[Tensor, Tensor]:
        found = risks.curve(levels)
        return found.lower, found.upper
