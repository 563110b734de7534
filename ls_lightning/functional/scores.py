"""Scores of the probabilities themselves, one call for one number; only the decomposition needs bins."""

from torch import Tensor

from ls_lightning.functional import brier, measures
from ls_lightning.functional.brier import BrierDecomposition
from ls_lightning.functional.outputs import Closed, Confidence, NanPolicy, Scores, Spec, Task, like
from ls_lightning.functional.sums import calibration_sums


def accuracy(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    """Share of samples (multilabel: labels) whose most probable class is the target; of equals the first.

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    return like(measures.accuracy(calibration_sums(logits, target, spec)), logits)


def negative_log_likelihood(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Mean negative log-likelihood of the hard label, never smoothed; in nats.

    .. math:: -\frac{1}{N} \sum_i \log p_{i, y_i}

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64; inf if a target has probability 0 (a masked class), or a sample's value is 2**31 or more.

    Example:
        >>> import torch
        >>> negative_log_likelihood(torch.zeros(3, 4), torch.tensor([0, 1, 3]))
        tensor(1.3863, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    return like(measures.negative_log_likelihood(calibration_sums(logits, target, spec)), logits)


def brier_score(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Mean squared error of the probabilities: over all K classes, or of P(y=1) for binary and multilabel.

    .. math:: \frac{1}{N} \sum_i \sum_k (p_{ik} - [k = y_i])^2, \qquad \frac{1}{N} \sum_i (p_i - y_i)^2

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 2]; in [0, 1] for binary and multilabel, which is half of the two-class value.

    Example:
        >>> import torch
        >>> brier_score(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor(0.5000, dtype=torch.float64)
        >>> brier_score(torch.zeros(2), torch.tensor([0, 1]), task="binary")
        tensor(0.2500, dtype=torch.float64)

    Source: Brier 1950; scikit-learn's `brier_score_loss` halves by the same rule.
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    return like(measures.brier_score(calibration_sums(logits, target, spec)), logits)


def brier_decomposition(
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
) -> BrierDecomposition:
    r"""Take the Brier score apart, exactly: what miscalibration costs, what resolution earns.

    .. math:: \mathrm{BS} = \mathrm{REL} - \mathrm{RES} + \mathrm{UNC} + \mathrm{WBV} - \mathrm{WBC}

    What is taken apart is the score of the one probability that is binned, :math:`\frac1N \sum_i (c_i - a_i)^2`:
    for binary and multilabel the :func:`brier_score`; for multiclass that of the top label (its confidence against
    whether it is right), not the sum over all K classes.

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        A :class:`~ls_lightning.functional.brier.BrierDecomposition`, each 0-d float64 on the CPU.

    Example:
        >>> import torch
        >>> probs, target = torch.tensor([0.9, 0.9, 0.2, 0.2]), torch.tensor([1, 0, 0, 0])
        >>> parts = brier_decomposition(probs, target, task="binary", input="probs", confidence="positive")
        >>> [round(part.item(), 4) for part in parts[:4]]
        [0.225, 0.1, 0.0625, 0.1875]

    Source: Murphy 1973; the terms within bins: Stephenson et al. 2008.
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return brier.brier_decomposition(calibration_sums(logits, target, spec))
