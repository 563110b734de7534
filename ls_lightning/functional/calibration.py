"""Calibration of a classifier's outputs, one call for one number.

For data that comes in batches use `ls_lightning.metrics`, or add up `calibration_sums` and read them with
`measures`: the mean of per-batch calibration errors is too high (2.35 times at 128 samples a batch).
"""

from torch import Tensor

from ls_lightning.functional import bootstrap, measures
from ls_lightning.functional.bootstrap import Interval, Measured
from ls_lightning.functional.measures import Norm, ReliabilityBins, check_norm
from ls_lightning.functional.outputs import Closed, Confidence, NanPolicy, Scores, Spec, Task, like
from ls_lightning.functional.sums import calibration_sums


def calibration_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    norm: Norm = "l1",
    debias: bool = False,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
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
        debias: subtract what the noise of the labels adds: for `l2` all of it, for `l1` about half where a model is
            calibrated, and then the value may be below 0.
        closed: `"right"`: bins (a, b], as Guo et al.; `"left"`: [a, b), as torchmetrics and netcal.
        input: `"logits"` or `"probs"`, which is never guessed.
        ignore_index: targets of this value are not counted.
        confidence: `"top"`: the probability of the predicted class against whether it is right, so that the
            sign tells over- from underconfidence; `"positive"` (binary, multilabel): P(y=1) against y, which
            torchmetrics and netcal use.
        nan_policy: what a sample with a NaN or +inf does: `"raise"`, or `"omit"` it.

    Returns:
        0-d float64 in [0, 1], debiased `l1` also a little below 0; NaN if nothing was counted.

    Raises:
        TypeError, ValueError: an argument, dtype, shape or target is wrong, or a sample is NaN.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
        >>> calibration_error(probs, torch.tensor([0, 1, 1]), num_bins=2, input="probs")
        tensor(0.1333, dtype=torch.float64)

    Source: Guo et al. 2017, arXiv:1706.04599; debiased: Kumar et al. 2019, arXiv:1909.10155.
    """
    check_norm(norm, debias)
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return like(measures.calibration_error(calibration_sums(logits, target, spec), norm, debias), logits)


def calibration_gap(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
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
    spec = Spec(
        task, num_classes, 1, input=input, ignore_index=ignore_index, confidence=confidence, nan_policy=nan_policy
    )
    return like(measures.calibration_gap(calibration_sums(logits, target, spec)), logits)


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
    nan_policy: NanPolicy = "raise",
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
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    return measures.reliability_bins(calibration_sums(logits, target, spec))


def bootstrap_interval(
    logits: Tensor,
    target: Tensor,
    of: Measured = "ece",
    *,
    level: float = 0.95,
    num_samples: int = 1000,
    seed: int = 0,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    confidence: Confidence = "top",
    nan_policy: NanPolicy = "raise",
) -> Interval:
    """Bootstrap confidence interval of `of`, the `"ece"` or the `"gap"`, from the sums of the bins.

    Between its ends lies the share `level`, in (0, 1), of the values of `num_samples` resampled data sets; `seed` is
    of a generator of its own, the global one is not touched. Args, Raises: else as :func:`calibration_error`.

    Returns:
        `(low, high)`, floats. The ECE of a resampled data set is larger on average than that of the data, so for
        a well calibrated model the interval may lie above it.

    Example:
        >>> import torch
        >>> target = torch.arange(400) % 4 // 3  # one in four is class 1
        >>> low, high = bootstrap_interval(torch.zeros(400, 2), target, "gap")
        >>> -0.30 < low < -0.25 < high < -0.20
        True

    Source: Efron 1979; multinomial counts and normal sums in place of resampled samples.
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy)
    sums = calibration_sums(logits, target, spec)
    return bootstrap.bootstrap_interval(sums, of, level=level, num_samples=num_samples, seed=seed)
