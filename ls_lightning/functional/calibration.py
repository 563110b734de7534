"""Calibration of a classifier's outputs, one call for one number.

For data that comes in batches use `ls_lightning.metrics`, or add up `calibration_sums` and read them with
`measures`: the mean of per-batch calibration errors is too high (2.35 times at 128 samples a batch).
"""

from torch import Tensor

from ls_lightning.functional import measures
from ls_lightning.functional.measures import Norm, ReliabilityBins, check_norm
from ls_lightning.functional.outputs import Closed, Confidence, Scores, Spec, Task
from ls_lightning.functional.sums import calibration_sums


def calibration_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    norm: Norm = "l1",
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
) -> Tensor:
    r"""Measure how far confidence is from accuracy: ECE (`l1`), RMSCE (`l2`) or MCE (`max`).

    .. math:: \sum_b \frac{n_b}{N} |c_b - a_b|, \quad
        \Big(\sum_b \frac{n_b}{N} (c_b - a_b)^2\Big)^{1/2}, \quad \max_{b:\, n_b > 0} |c_b - a_b|

    with mean confidence c_b and accuracy a_b of bin b.

    Args:
        logits: `(N, K, d1, ...)` for multiclass, `(N,)` or `(N, 1)` for binary, `(N, L, ...)` for multilabel,
            where each label is a sample. Any floating dtype; the arithmetic is in float64.
        target: class indices `(N, d1, ...)`; for binary and multilabel 0 and 1.
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K (or L), checked against the logits; None takes it from them.
        num_bins: bins of equal width over [0, 1], at least 1; 15 is usual.
        norm: `"l1"`, `"l2"` or `"max"`.
        closed: `"right"`: bins (a, b], as Guo et al.; `"left"`: [a, b), as torchmetrics and netcal.
        input: `"logits"` or `"probs"`, which is never guessed.
        ignore_index: targets of this value are not counted.
        confidence: `"top"`: the probability of the predicted class against whether it is right, so that the
            sign tells over- from underconfidence; `"positive"` (binary, multilabel): P(y=1) against y, which
            torchmetrics and netcal use.

    Returns:
        0-d float64 in [0, 1]; NaN if nothing was counted.

    Raises:
        TypeError, ValueError: an argument, dtype, shape or target is wrong, or a sample is NaN.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
        >>> calibration_error(probs, torch.tensor([0, 1, 1]), num_bins=2, input="probs")
        tensor(0.1333, dtype=torch.float64)

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    check_norm(norm)
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence)
    return _like(measures.calibration_error(calibration_sums(logits, target, spec), norm), logits)


def calibration_gap(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
) -> Tensor:
    r"""Mean confidence minus accuracy: positive is overconfident, negative underconfident.

    .. math:: \frac{1}{N} \sum_i (c_i - a_i)

    Args, Raises: as :func:`calibration_error`.

    Returns:
        0-d float64 in [-1, 1]; its size is at most the ECE.

    Example:
        >>> import torch
        >>> calibration_gap(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        tensor(-0.2500, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index, confidence=confidence)
    return _like(measures.calibration_gap(calibration_sums(logits, target, spec)), logits)


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
) -> Tensor:
    r"""Weigh only the bins that claim too much, the more the surer they are.

    .. math:: \mathrm{OE} = \sum_b \frac{n_b}{N}\, c_b \max(c_b - a_b, 0)

    Args, Raises: as :func:`calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> overconfidence_error(torch.tensor([0.9, 0.9]), torch.tensor([1, 0]), task="binary", input="probs")
        tensor(0.3600, dtype=torch.float64)

    Source: Thulasidasan et al. 2019, arXiv:1905.11001. Without the factor c_b it is another number.
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence)
    return _like(measures.overconfidence_error(calibration_sums(logits, target, spec)), logits)


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
) -> Tensor:
    r"""Weigh only the bins that claim too little: :func:`overconfidence_error` with the sign turned.

    .. math:: \sum_b \frac{n_b}{N}\, c_b \max(a_b - c_b, 0)

    Args, Raises: as :func:`calibration_error`.

    Returns:
        0-d float64 in [0, 1].

    Example:
        >>> import torch
        >>> probs = torch.tensor([0.6, 0.6])
        >>> underconfidence_error(probs, torch.tensor([1, 1]), task="binary", input="probs")
        tensor(0.2400, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence)
    return _like(measures.underconfidence_error(calibration_sums(logits, target, spec)), logits)


def accuracy(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
) -> Tensor:
    """Share of samples (multilabel: labels) whose most probable class is the target; of equals the first.

    Args, Raises: as :func:`calibration_error`.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index)
    return _like(measures.accuracy(calibration_sums(logits, target, spec)), logits)


def negative_log_likelihood(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
) -> Tensor:
    r"""Mean negative log-likelihood of the hard label, never smoothed; in nats.

    .. math:: -\frac{1}{N} \sum_i \log p_{i, y_i}

    Args, Raises: as :func:`calibration_error`.

    Returns:
        0-d float64; inf if a target has probability 0 (a masked class), or a sample's value is 2**31 or more.

    Example:
        >>> import torch
        >>> negative_log_likelihood(torch.zeros(3, 4), torch.tensor([0, 1, 3]))
        tensor(1.3863, dtype=torch.float64)
    """
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index)
    return _like(measures.negative_log_likelihood(calibration_sums(logits, target, spec)), logits)


def brier_score(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
) -> Tensor:
    r"""Mean squared error of the probabilities: over all K classes, or of P(y=1) for binary and multilabel.

    .. math:: \frac{1}{N} \sum_i \sum_k (p_{ik} - [k = y_i])^2, \qquad \frac{1}{N} \sum_i (p_i - y_i)^2

    Args, Raises: as :func:`calibration_error`.

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
    spec = Spec(task, num_classes, 1, input=input, ignore_index=ignore_index)
    return _like(measures.brier_score(calibration_sums(logits, target, spec)), logits)


def reliability_bins(
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
) -> ReliabilityBins:
    """Count, mean confidence and accuracy of each bin: what `plots.reliability_diagram` draws.

    Args, Raises: as :func:`calibration_error`.

    Returns:
        `(counts, confidence, accuracy)`, each float64 `(num_bins,)` on the CPU; NaN in empty bins.

    Example:
        >>> import torch
        >>> bins = reliability_bins(torch.tensor([[0.0, 0.9], [0.0, 1.1]]), torch.tensor([0, 1]), num_bins=2)
        >>> bins.accuracy
        tensor([   nan, 0.5000], dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence)
    return measures.reliability_bins(calibration_sums(logits, target, spec))


def _like(value: Tensor, logits: Tensor) -> Tensor:
    return value.float().to("mps") if logits.device.type == "mps" else value.to(logits.device)
