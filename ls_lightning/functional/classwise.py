"""Calibration of every class's probability, from integer sums per class and bin."""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Closed, NanPolicy, Scores, Spec, Task, as_rows, like
from ls_lightning.functional.rows import PROBABILITY_TOLERANCE
from ls_lightning.functional.samples import probabilities, read_target
from ls_lightning.functional.sums import bin_index, check_valid

LARGEST = 2**19
"""How many cells, classes times bins, may be summed up."""

_UNIT = 2.0**30


class ClasswiseCalibration(NamedTuple):
    """Per class, each float64 `(K,)`; NaN where nothing was counted.

    Attributes:
        counts: samples.
        confidence: mean probability.
        frequency: share of samples that are of the class.
        gap: confidence minus frequency; positive is a class that is predicted too often.
        error: ECE of the class against all others.
    """

    counts: Tensor
    confidence: Tensor
    frequency: Tensor
    gap: Tensor
    error: Tensor


def classwise_calibration(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> ClasswiseCalibration:
    """Compare every class's probability with how often the class comes.

    Args, Raises: as :func:`classwise_calibration_error`.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
        >>> classwise_calibration(probs, torch.tensor([0, 0]), input="probs").gap
        tensor([-0.5000,  0.3000,  0.2000], dtype=torch.float64)
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, nan_policy=nan_policy)
    return read_classwise(classwise_sums(logits, target, spec))


def classwise_calibration_error(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    num_bins: int = 15,
    closed: Closed = "right",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Mean over classes of the ECE of one class against all others (also called static calibration error).

    .. math:: \frac1K \sum_k \sum_b \frac{n_{kb}}{N} |c_{kb} - a_{kb}|

    with the mean probability and the frequency of class k in bin b of its probability.

    Args:
        logits: as in :func:`~ls_lightning.functional.calibration.calibration_error`, and so all arguments. Binary is
            one class, y=1; of multilabel each label is one.
        target: as there.
        task: as there.
        num_classes: as there.
        num_bins: as there.
        closed: as there.
        input: as there.
        ignore_index: as there.
        nan_policy: as there.

    Returns:
        0-d float64 in [0, 1]; NaN if nothing was counted.

    Raises:
        TypeError, ValueError: as there; and K times `num_bins` is over 2**19.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
        >>> classwise_calibration_error(probs, torch.tensor([0, 0]), input="probs")
        tensor(0.3333, dtype=torch.float64)

    Source: Kull et al. 2019, arXiv:1910.12656; Nixon et al. 2019, arXiv:1904.01685.
    """
    spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, nan_policy=nan_policy)
    return like(mean_error(read_classwise(classwise_sums(logits, target, spec))), logits)


def empty_classwise_sums(num_classes: int, num_bins: int) -> Tensor:
    """Return the sums of no sample: int64 zeros `(K + 1, num_bins, 3)`.

    Raises:
        ValueError: they would be too large.
    """
    cells = num_classes * num_bins
    if cells > LARGEST:
        raise ValueError(
            f"class-wise bins need num_classes * num_bins of at most {LARGEST:,}, got {num_classes:,} * {num_bins} = "
            f"{cells:,}, a state of {24 * cells / 1e6:.1f} MB. Take fewer bins, or the top label: CalibrationError."
        )
    return torch.zeros(num_classes + 1, num_bins, 3, dtype=torch.int64)


@torch.no_grad()
def classwise_sums(logits: Tensor, target: Tensor, spec: Spec) -> Tensor:
    """Sum up a batch per class and bin: count, hits, and probabilities in units of 2**-30.

    Returns:
        int64 `(K + 1, num_bins, 3)`, to be added to those of other batches; up to 2**33 samples. The last row starts
        with the numbers of invalid samples, of targets out of range and of omitted samples. Nothing waits for the
        device.
    """
    scores, labels = as_rows(logits, target, spec)
    if scores.device.type == "mps":  # has no float64
        scores, labels = scores.cpu(), labels.cpu()
    if spec.task != "multiclass":
        classes = logits.shape[1] if spec.task == "multilabel" else 1
        scores, labels = (v.view(len(logits), classes, -1).mT.reshape(-1, classes) for v in (scores, labels))
    sums = empty_classwise_sums(scores.shape[1], spec.num_bins).to(scores.device)
    rows = max(1, 2 ** (16 if scores.device.type == "cpu" else 22) // scores.shape[1])
    for start in range(0, len(labels), rows):
        _add(sums, scores[start : start + rows], labels[start : start + rows], spec)
    return sums.to(logits.device)


def read_classwise(sums: Tensor) -> ClasswiseCalibration:
    """Turn the sums into numbers of each class, float64 on the CPU.

    Raises:
        ValueError: some sample was not a number or its target out of range.
    """
    values = sums.detach().cpu().double()
    check_valid(*values[-1, 0, :2].long().tolist())
    n, hits, p = values[:-1].unbind(-1)
    p = p / _UNIT
    counts, confidence, frequency = n.sum(1), p.sum(1) / n.sum(1), hits.sum(1) / n.sum(1)
    return ClasswiseCalibration(
        counts, confidence, frequency, confidence - frequency, error=(p - hits).abs().sum(1) / counts
    )


def mean_error(classes: ClasswiseCalibration) -> Tensor:
    """Average the errors of the classes that were counted."""
    return classes.error.nanmean()


def _add(sums: Tensor, scores: Tensor, labels: Tensor, spec: Spec) -> None:
    num_classes, each = scores.shape[1], spec.task != "multiclass"
    p, valid = probabilities(scores, spec)
    ignored, in_range, label = read_target(labels, num_classes, spec)
    counted = ~ignored & in_range & valid
    invalid = (~ignored & ~valid).sum()
    sums[-1, 0, 0 if spec.nan_policy == "raise" else 2] += invalid
    sums[-1, 0, 1] += (~ignored & valid & ~in_range).sum()
    p = p.masked_fill(~(counted if each else counted[:, None]), 0)
    index = torch.arange(num_classes, device=p.device).expand_as(p)
    cells = torch.zeros_like(sums[:-1]).flatten(0, 1)
    # No more classes than these can leave the first bin, as probabilities sum to 1.
    most = int(spec.num_bins * (1 + PROBABILITY_TOLERANCE)) + 1
    if each or num_classes <= most:
        hit = label.bool() if each else index == label[:, None]
        _scatter(cells, p, index, hit, counted if each else counted[:, None], spec)
    else:
        top, index = p.topk(most, sorted=False)
        _scatter(cells, top, index, index == label[:, None], counted[:, None], spec)
        # What is left of the sums over all samples lies in the first bin.
        hits = torch.zeros(num_classes, dtype=torch.int64, device=p.device).index_add_(0, label, counted.long())
        whole = torch.stack([counted.sum().expand(num_classes), hits, _units(p).sum(0).long()], -1)
        cells = cells.view(num_classes, spec.num_bins, 3)
        cells[:, 0] += whole - cells.sum(1)
    sums[:-1] += cells.view_as(sums[:-1])


def _scatter(cells: Tensor, p: Tensor, index: Tensor, hit: Tensor, counted: Tensor, spec: Spec) -> None:
    cell = index * spec.num_bins + bin_index(p, spec.num_bins, spec.closed)
    counted = counted.expand_as(p)
    values = torch.stack([counted.long(), (hit & counted).long(), _units(p).long()], -1)
    cells.index_add_(0, cell.flatten(), values.flatten(0, 1))


def _units(p: Tensor) -> Tensor:
    return (p * _UNIT).round()
