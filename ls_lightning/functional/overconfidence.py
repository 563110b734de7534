"""On which side calibration errs: parts of the ECE, and the errors that weigh them by confidence."""

from torch import Tensor

from ls_lightning.functional import measures
from ls_lightning.functional.outputs import Closed, Confidence, NanPolicy, Scores, Spec, Task, like
from ls_lightning.functional.sums import calibration_sums


def overconfidence_part(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""The part of the ECE in bins that claim too much.

    .. math:: \sum_b \frac{n_b}{N} \max(c_b - a_b, 0)

    Plus :func:`underconfidence_part` it is the ECE, minus that the gap.

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> overconfidence_part(torch.tensor([0.9, 0.9]), torch.tensor([1, 0]), task="binary", input="probs")
        tensor(0.4000, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return like(measures.overconfidence_part(calibration_sums(logits, target, spec)), logits)


def underconfidence_part(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""The part of the ECE in bins that claim too little.

    .. math:: \sum_b \frac{n_b}{N} \max(a_b - c_b, 0)

    See :func:`overconfidence_part`.

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> underconfidence_part(torch.tensor([0.6, 0.6]), torch.tensor([1, 1]), task="binary", input="probs")
        tensor(0.4000, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return like(measures.underconfidence_part(calibration_sums(logits, target, spec)), logits)


def overconfidence_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Weigh only the bins that claim too much, the more the surer they are.

    .. math:: \mathrm{OE} = \sum_b \frac{n_b}{N}\, c_b \max(c_b - a_b, 0)

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> overconfidence_error(torch.tensor([0.9, 0.9]), torch.tensor([1, 0]), task="binary", input="probs")
        tensor(0.3600, dtype=torch.float64)

    Source: Thulasidasan et al. 2019, arXiv:1905.11001. Without the factor c_b it is
    :func:`overconfidence_part`.
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return like(measures.overconfidence_error(calibration_sums(logits, target, spec)), logits)


def underconfidence_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Weigh only the bins that claim too little: :func:`overconfidence_error` with the sign turned.

    .. math:: \sum_b \frac{n_b}{N}\, c_b \max(a_b - c_b, 0)

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> probs = torch.tensor([0.6, 0.6])
        >>> underconfidence_error(probs, torch.tensor([1, 1]), task="binary", input="probs")
        tensor(0.2400, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return like(measures.underconfidence_error(calibration_sums(logits, target, spec)), logits)
