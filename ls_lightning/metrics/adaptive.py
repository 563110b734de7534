"""Calibration over groups of equal size, on the state of the selective metrics."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional.adaptive import adaptive_bounds, adaptive_error
from ls_lightning.functional.levels import Levels
from ls_lightning.functional.measures import Norm, check_norm
from ls_lightning.functional.outputs import Confidence, NanPolicy, Scores, Spec, Task
from ls_lightning.functional.ranking import Ranking
from ls_lightning.metrics.ranking import Mode, RankingMetric


class AdaptiveCalibrationError(RankingMetric):
    r"""ECE over groups of equal size, by increasing confidence, instead of bins of equal width.

    .. math:: \sum_b \frac{n_b}{N} |c_b - a_b|

    Equal confidences that a cut divides are shared out in proportion, and so are cells of the sketch; `bounds()` says
    how much their order can change.

    Args:
        num_bins: groups, at least 1; 15 is usual. The N mod M least sure of them hold one sample more.
        norm: `"l1"`, `"l2"` or `"max"`.
        mode: `"sketch"`, a state of fixed size (0.4 MB; 0.8 MB for P(y=1)); or `"exact"`, 8 bytes a sample.
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K, or the number of labels; None takes it from the logits.
        input: `"logits"` or `"probs"`, which is never guessed.
        ignore_index: targets of this value are not counted.
        confidence: `"top"`, or `"positive"` (binary, multilabel): P(y=1) against y.
        nan_policy: what a sample with a NaN or +inf does: `"raise"` in `compute`, or `"omit"` it (`num_omitted`).
        kwargs: of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an argument is not one of these. `compute` raises a ValueError if a target was
            out of range, or a sample no number.

    Example:
        >>> import torch
        >>> metric = AdaptiveCalibrationError(num_bins=2, input="probs")
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]]), torch.tensor([0, 0, 1, 0]))
        >>> round(metric.compute().item(), 4)
        0.15

    Source: Nguyen and O'Connor 2015, arXiv:1508.05154; Nixon et al. 2019, arXiv:1904.01685.
    """

    def __init__(
        self,
        *,
        num_bins: int = 15,
        norm: Norm = "l1",
        mode: Mode = "sketch",
        task: Task = "multiclass",
        num_classes: int | None = None,
        input: Scores = "logits",
        ignore_index: int | None = -100,
        confidence: Confidence = "top",
        nan_policy: NanPolicy = "raise",
        **kwargs: Any,
    ) -> None:
        check_norm(norm)
        spec = Spec(task, num_classes, num_bins, "right", input, ignore_index, confidence, nan_policy)
        super().__init__(Ranking(spec), mode, **kwargs)
        self.num_bins = num_bins
        self.norm = norm

    @override
    def read(self, levels: Levels) -> Tensor:
        return adaptive_error(levels, self.num_bins, self.norm)

    @override
    def interval(self, levels: Levels) -> tuple[Tensor, Tensor]:
        return adaptive_bounds(levels, self.num_bins, self.norm)
