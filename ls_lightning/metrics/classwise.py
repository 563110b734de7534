"""Calibration of every class's probability."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional.classwise import (
    ClasswiseCalibration,
    classwise_sums,
    empty_classwise_sums,
    mean_error,
    read_classwise,
)
from ls_lightning.functional.outputs import Closed, NanPolicy, Scores, Spec, Task
from ls_lightning.metrics.base import SumMetric, state_name


class ClasswiseCalibrationError(SumMetric):
    r"""Mean over classes of the ECE of one class against all others; :meth:`per_class` has each of them.

    .. math:: \frac1K \sum_k \sum_b \frac{n_{kb}}{N} |c_{kb} - a_{kb}|

    The state is K times `num_bins` times 24 bytes, whatever the number of samples.

    Args:
        task: as :class:`CalibrationMetric`. Binary is one class, y=1; of multilabel each label is one.
        num_classes: K, or the number of labels; needed, but for binary.
        num_bins: as there; K times `num_bins` is at most 2**19.
        closed: as there.
        input: as there.
        ignore_index: as there.
        nan_policy: as there.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: as there; or K is missing, or too large.

    Example:
        >>> import torch
        >>> metric = ClasswiseCalibrationError(num_classes=3, input="probs")
        >>> metric.update(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), torch.tensor([0, 0]))
        >>> round(metric.compute().item(), 4), metric.per_class().gap
        (0.3333, tensor([-0.5000,  0.3000,  0.2000], dtype=torch.float64))

    Source: Kull et al. 2019, arXiv:1910.12656; Nixon et al. 2019, arXiv:1904.01685.
    """

    def __init__(
        self,
        *,
        task: Task = "multiclass",
        num_classes: int | None = None,
        num_bins: int = 15,
        closed: Closed = "right",
        input: Scores = "logits",
        ignore_index: int | None = -100,
        nan_policy: NanPolicy = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, nan_policy=nan_policy)
        if num_classes is None and task != "binary":
            raise ValueError(f"class-wise sums of task={task!r} need num_classes, got None: it is the state's size.")
        size = 1 if task == "binary" or num_classes is None else num_classes
        self._add_sums(state_name(f"classwise_{size}", self.spec), empty_classwise_sums(size, num_bins))

    @override
    def add(self, sums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        return sums + classwise_sums(logits, target, self.spec)

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return mean_error(read_classwise(sums))

    def per_class(self) -> ClasswiseCalibration:
        """Return count, confidence, frequency, gap and error of each class, over all ranks; every rank has to ask."""
        return read_classwise(self.total_sums())

    @property
    def num_omitted(self) -> int:
        """The number of samples left out by `nan_policy="omit"`, over all ranks; every rank has to ask."""
        return int(self.total_sums()[-1, 0, 2])
