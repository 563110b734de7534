"""From the statistics of rows that a smoothing loss leaves behind to the sums of bins and to the sketch."""

import torch
from torch import Tensor

from ls_lightning.functional.native import measure
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import as_ranked
from ls_lightning.functional.row_statistics import LINES
from ls_lightning.functional.samples import Samples
from ls_lightning.functional.sketch import sketch_samples
from ls_lightning.functional.sums import ROWS, add_sums, sum_samples


def can_be_read(spec: Spec) -> bool:
    """Tell whether statistics say all that samples are read for: the most probable of several classes, by logits."""
    return spec.task == "multiclass" and spec.input == "logits" and not spec.entropy


def add_statistics(sums: Tensor | None, sketch: Tensor | None, statistics: Tensor, spec: Spec) -> None:
    r"""Add rows that a smoothing loss has left statistics of, in place.

    .. math:: p = \frac{1}{1 + e^{o}}, \qquad \mathrm{Brier} = \textstyle\sum_k p_k^2 - 2 e^{-\mathrm{nll}} + 1

    with o the log odds. It is what their logits add, but for the rounding of the statistics to float32. Rows that were
    ignored add nothing, whatever `spec.ignore_index`. The sums do not depend on where rows are split into batches.

    Args:
        sums: of `calibration_sums`, int64 `(num_bins + 1, 8, 2)`; None where nobody wants them.
        sketch: of a `Ranking` by confidence, int64 `(num_cells + 1, 3)`; likewise.
        statistics: float32 `(4, S)`, as `smoothed_cross_entropy` writes them.
        spec: of multiclass logits: how rows are binned, and what is done with those that cannot be read.

    Raises:
        ValueError: the statistics do not say what `spec` asks for, or are of another shape or dtype.

    Example:
        >>> from ls_lightning.functional import smoothed_cross_entropy
        >>> from ls_lightning.functional.sums import empty_sums, read_sums
        >>> statistics, sums = torch.empty(4, 2), empty_sums(num_bins=2)
        >>> logits, target = torch.tensor([[2.0, 0.0, 0.0], [0.2, 0.0, 0.1]]), torch.tensor([0, 2])
        >>> loss = smoothed_cross_entropy(logits, target, statistics=statistics)
        >>> add_statistics(sums, None, statistics, Spec(num_bins=2))
        >>> read_sums(sums)[0].hits
        tensor([0., 1.], dtype=torch.float64)
    """
    _check(statistics, spec)
    if not measure.add_statistics(statistics, spec, sums, sketch):
        _add_by_operations(sums, sketch, statistics, spec)


@torch.inference_mode()  # in which also sums may be written to that were made in it
def _add_by_operations(sums: Tensor | None, sketch: Tensor | None, statistics: Tensor, spec: Spec) -> None:
    rows = statistics.cpu() if statistics.device.type == "mps" else statistics  # which has no float64
    for some in torch.split(rows, ROWS, dim=1):
        samples = _read(some)
        if sums is not None:
            sums.copy_(add_sums(sums.to(rows.device), sum_samples(samples, spec)))
        if sketch is not None:
            total = sketch.to(rows.device)
            sketch_samples(total, as_ranked(samples))
            sketch.copy_(total)


def _check(statistics: Tensor, spec: Spec) -> None:
    if not can_be_read(spec):
        raise ValueError(
            "statistics of a smoothing loss are of multiclass logits, and say nothing about entropy, got "
            f"{spec}: read the logits."
        )
    if statistics.dtype != torch.float32 or statistics.ndim != 2 or len(statistics) != LINES:
        raise ValueError(
            f"statistics must be float32 ({LINES}, S), as smoothed_cross_entropy(..., statistics=) writes them, got "
            f"{statistics.dtype} {tuple(statistics.shape)}."
        )


def _read(statistics: Tensor) -> Samples:
    nll, log_odds, squares, first = statistics.double()
    ignored = first < 0
    unread = nll.isnan() & ~ignored
    size, likely = log_odds.abs().neg_().exp_(), log_odds <= 0
    share = 1 / (1 + size)
    correct, true = first > 0, nll.neg().exp_()
    return Samples(
        confidence=share.where(likely, size * share),
        odds=size.where(likely, 1 / size),
        log_odds=log_odds,
        nll=nll,
        # A sum of squares is at least the label's; the digits that it lost may say else.
        brier=torch.maximum(squares, true.square()) - 2 * true + 1,
        entropy=None,
        hit=correct,
        correct=correct,
        counted=~(ignored | unread),
        invalid=unread,
        out_of_range=torch.zeros_like(ignored),
    )
