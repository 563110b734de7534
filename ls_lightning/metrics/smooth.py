"""Calibration error without bins."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from ls_lightning.functional.outputs import Confidence, NanPolicy, Scores, Spec, Task
from ls_lightning.functional.smooth import empty_smooth_sums, read_smooth, smooth_sums
from ls_lightning.metrics.base import SumMetric, state_name


class SmoothCalibrationError(SumMetric):
    r"""Smooth ECE: the s at which smoothing with a kernel of width s leaves the error s.

    .. math:: s = \int_0^1 \Big| \frac1N \sum_i K_s(t, c_i)\,(c_i - a_i) \Big|\, dt

    with the Gaussian kernel of standard deviation s, reflected at 0 and 1. The state is 66 KB, whatever the number
    of samples; values are right to 1e-9 where they are at least 0.01.

    Args:
        task: as :class:`CalibrationMetric`, and so all arguments.
        num_classes: as there.
        input: as there.
        ignore_index: as there.
        confidence: as there.
        nan_policy: as there.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = SmoothCalibrationError(task="binary", input="probs")
        >>> round(metric(torch.tensor([0.75, 0.75]), torch.tensor([1, 0])).item(), 4)
        0.25

    Source: Błasiok and Nakkiran 2023, arXiv:2309.12236.
    """

    def __init__(
        self,
        *,
        task: Task = "multiclass",
        num_classes: int | None = None,
        input: Scores = "logits",
        ignore_index: int | None = -100,
        confidence: Confidence = "top",
        nan_policy: NanPolicy = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = Spec(task, num_classes, 1, "right", input, ignore_index, confidence, nan_policy)
        self._add_sums(state_name("smooth", self.spec), empty_smooth_sums())

    @override
    def add(self, sums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        return sums + smooth_sums(logits, target, self.spec)

    @override
    def measure(self, sums: Tensor) -> Tensor:
        return read_smooth(sums)

    @property
    def num_omitted(self) -> int:
        """The number of samples left out by `nan_policy="omit"`, over all ranks; every rank has to ask."""
        return int(self.total_sums()[-1])
