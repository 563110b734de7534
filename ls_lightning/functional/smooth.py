"""Calibration error without bins: residuals smoothed by a kernel as wide as the error that it leaves."""

import math

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Confidence, NanPolicy, Scores, Spec, Task, as_rows, like
from ls_lightning.functional.samples import measure
from ls_lightning.functional.sums import check_valid

CELLS = 2**13
"""Residuals are summed on the CELLS + 1 points k / CELLS."""

_UNIT = 2.0**30
_TOTALS = 4
_ROWS = 2**16


def smooth_calibration_error(
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
    r"""Smooth ECE: the s at which smoothing with a kernel of width s leaves the error s.

    .. math:: s = \int_0^1 \Big| \frac1N \sum_i K_s(t, c_i)\,(c_i - a_i) \Big|\, dt

    with the Gaussian kernel of standard deviation s, reflected at 0 and 1. It needs no number of bins, and changes
    continuously with the model.

    Args, Raises: as :func:`~ls_lightning.functional.calibration.calibration_error`.

    Returns:
        0-d float64 in [0, 1], to 1e-9 where it is at least 0.01; NaN if nothing was counted.

    Example:
        >>> import torch
        >>> probs = torch.full((20,), 0.7, dtype=torch.float64)
        >>> target = torch.arange(20) % 2
        >>> smooth_calibration_error(probs, target, task="binary", input="probs", confidence="positive")
        tensor(0.2000, dtype=torch.float64)

    Source: Błasiok and Nakkiran 2023, arXiv:2309.12236.
    """
    spec = Spec(task, num_classes, 1, "right", input, ignore_index, confidence, nan_policy)
    return like(read_smooth(smooth_sums(logits, target, spec)), logits)


def empty_smooth_sums() -> Tensor:
    """Return the sums of no sample, int64 zeros."""
    return torch.zeros(CELLS + 1 + _TOTALS, dtype=torch.int64)


@torch.no_grad()
def smooth_sums(logits: Tensor, target: Tensor, spec: Spec) -> Tensor:
    """Spread each residual over the four nearest points of the grid, by the weights of cubic interpolation.

    A kernel is then evaluated at a sample's own place up to the fourth power of cell over kernel width.

    Returns:
        int64, to be added to those of other batches, in units of 2**-30; up to 2**33 samples. The last four are the
        numbers of samples counted, invalid, with a target out of range, and omitted. Nothing waits for the device.
    """
    scores, labels = as_rows(logits, target, spec)
    if scores.device.type == "mps":  # has no float64
        scores, labels = scores.cpu(), labels.cpu()
    sums = empty_smooth_sums().to(scores.device)
    for start in range(0, len(labels), _ROWS):
        samples = measure(scores[start : start + _ROWS], labels[start : start + _ROWS], spec)
        p = torch.where(samples.counted, samples.confidence, 0)
        residual = torch.where(samples.counted, p - samples.hit.double(), 0)
        first = ((p * CELLS).floor() - 1).clamp(0, CELLS - 3)
        u = p * CELLS - first
        weights = [(1 - u) * (u - 2) * (u - 3) / 6, u * (u - 2) * (u - 3) / 2]
        weights += [u * (u - 1) * (3 - u) / 2, u * (u - 1) * (u - 2) / 6]
        points = first.long()[:, None] + torch.arange(4, device=p.device)
        units = (torch.stack(weights, -1) * residual[:, None] * _UNIT).round().long()
        sums.index_add_(0, points.flatten(), units.flatten())
        omitted, none = spec.nan_policy == "omit", torch.zeros_like(samples.invalid)
        totals = [samples.counted, none if omitted else samples.invalid, samples.out_of_range]
        totals.append(samples.invalid if omitted else none)
        sums[-_TOTALS:] += torch.stack(totals).sum(1)
    return sums.to(logits.device)


def read_smooth(sums: Tensor) -> Tensor:
    """Find the width that equals the error it leaves; the error falls as the width grows."""
    values = sums.detach().cpu()
    n, invalid, out_of_range, omitted = values[-_TOTALS:].tolist()
    check_valid(invalid, out_of_range, f" of {n + invalid + out_of_range + omitted}")
    if n == 0:
        return torch.tensor(torch.nan, dtype=torch.float64)
    spectrum = _spectrum(values[:-_TOTALS].double() / (_UNIT * n))
    low, high = 0.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if _error(spectrum, middle) > middle else (low, middle)
    return torch.tensor((low + high) / 2, dtype=torch.float64)


def _spectrum(residuals: Tensor) -> Tensor:
    """Cosine coefficients of the residuals reflected at 0 and 1, where mass on an end meets its own reflection."""
    ends = torch.ones_like(residuals)
    ends[0] = ends[-1] = 2
    mirrored = residuals * ends
    spectrum: Tensor = torch.fft.rfft(torch.cat([mirrored, mirrored[1:-1].flip(0)])).real
    return spectrum


def _error(spectrum: Tensor, width: float) -> float:
    """Integrate the absolute value of the smoothed residuals: differences of the integral between its zeros."""
    frequency = math.pi * torch.arange(CELLS + 1, dtype=torch.float64)
    smoothed = spectrum * torch.exp(-(frequency * width).square() / 2)
    value = CELLS * torch.fft.irfft(smoothed.to(torch.complex128))[: CELLS + 1]
    slopes = torch.complex(torch.zeros_like(smoothed), -smoothed / frequency.clamp(min=1))
    place = torch.arange(CELLS + 1, dtype=torch.float64) / CELLS
    integral = CELLS * torch.fft.irfft(slopes)[: CELLS + 1] + smoothed[0] * place / 2
    left, right, rise = value[:-1], value[1:], integral.diff()
    crosses = left * right < 0
    u = torch.where(crosses, left / torch.where(crosses, left - right, 1), 0)
    # The integral from the left point to the zero, by cubic interpolation.
    until = rise * u * u * (3 - 2 * u) + (left * u * (1 - u) ** 2 + right * u * u * (u - 1)) / CELLS
    return float((until.abs() + (rise - until).abs()).sum())
