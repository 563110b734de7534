"""Temperature scaling: the one number by which logits are divided to make their likelihood largest.

Per sample everything is elementwise or an exact sum, and sums over samples are integers; so the same data gives the
same bits in any batch split, in any order and on any number of ranks, and all ranks take the same steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.exact_sum import exact_sum
from ls_lightning.functional.outputs import Scores, Spec, Task, as_rows
from ls_lightning.functional.rows import PROBABILITY_TOLERANCE

BOUNDS = (0.01, 100.0)
"""Where the temperature is searched."""

Rows = tuple[Tensor, Tensor]
"""Scores `(S, K)` or `(S,)` and targets `(S,)`, as `as_rows` returns them."""

_CLOSE = 1e-12
_MOST_STEPS = 200
_LARGEST = 2.0**31
_UNITS = 30


class TemperatureFit(NamedTuple):
    """The fitted temperature, and the NLL in nats of the `n` samples that it was fitted on, without and with it."""

    temperature: float
    n: int
    nll_before: float
    nll_after: float
    at_boundary: bool


class _Point(NamedTuple):
    """Means over samples at one inverse temperature; derivatives by its logarithm."""

    nll: float
    slope: float
    curvature: float


def fit_temperature(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    input: Scores = "logits",
    ignore_index: int | None = -100,
    bounds: Sequence[float] = BOUNDS,
) -> TemperatureFit:
    r"""Find the temperature at which the hard labels are most likely.

    .. math:: \arg\min_T \; -\frac{1}{N} \sum_i \log \mathrm{softmax}(z_i / T)_{y_i}

    for binary and multilabel with :math:`\sigma(z / T)`. Convex in 1/T: Newton's method in float64 within a bracket
    finds it to a relative error of about 1e-10. Accuracy stays as it is.

    Args:
        logits: `(N, K, d1, ...)` for multiclass, `(N,)` or `(N, 1)` for binary, `(N, L, ...)` for multilabel. -inf is
            a masked class. Samples whose own class is masked say nothing about T.
        target: class indices `(N, d1, ...)`; for binary and multilabel 0 and 1.
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        input: `"logits"`, or `"probs"`, whose logits are taken.
        ignore_index: targets of this value are not counted.
        bounds: the least and the greatest temperature. The fit is at one of them if every sample is classified
            correctly (T goes to 0), or if the logits say the wrong about the labels (T goes to infinity). Logits that
            are all equal leave T at 1.

    Raises:
        TypeError, ValueError: dtypes, shapes or targets do not fit, a sample is no number, or there is none.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> fit = fit_temperature(logits, torch.tensor([0, 0, 1, 1]))
        >>> round(fit.temperature, 4), round(fit.nll_before, 4), round(fit.nll_after, 4)
        (3.641, 1.0181, 0.5623)

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    spec = Spec(task, input=input, ignore_index=ignore_index)
    return fit_rows([as_rows(logits, target, spec)], spec, bounds)


def fit_rows(
    blocks: Iterable[Rows],
    spec: Spec,
    bounds: Sequence[float] = BOUNDS,
    over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> TemperatureFit:
    """Fit to rows that come in blocks, of which other ranks may hold more; see :func:`fit_temperature`.

    Args:
        blocks: rows as `as_rows` returns them; gone through about ten times.
        spec: how to read them.
        bounds: the least and the greatest temperature.
        over_ranks: adds an int64 tensor up over all ranks. Ranks without rows have to take part.
    """
    least, greatest = check_bounds(bounds)
    blocks = list(blocks)

    def at(beta: float) -> tuple[list[float], _Point]:
        sums = torch.zeros(7, 3, dtype=torch.int64)
        for scores, target in _chunks(blocks):
            sums += _integers(_measure(scores, target, spec, beta)).cpu()
        *counts, nll, slope, curvature = _read(over_ranks(sums))
        used = max(counts[0] - counts[3], 1.0)
        return counts, _Point(nll / used, slope / used, curvature / used)

    (n, invalid, out_of_range, infinite), before = at(1.0)
    if invalid or out_of_range:
        raise ValueError(
            f"{int(invalid)} samples are no numbers and {int(out_of_range)} targets out of range, so no temperature "
            "fits. Logits must not be NaN or +inf, nor all -inf; probabilities must lie in [0, 1]; targets must be "
            "classes or ignore_index."
        )
    if n - infinite == 0:
        raise ValueError("there is no sample to fit a temperature to.")
    beta, after, at_boundary = _minimise(lambda beta: at(beta)[1], before, 1 / greatest, 1 / least)
    temperature = 1 / beta
    if at_boundary:  # to the bit
        temperature = least if beta > 1 / greatest else greatest
    lost = torch.inf if infinite else 0.0
    return TemperatureFit(temperature, int(n), before.nll + lost, after.nll + lost, at_boundary)


def check_bounds(bounds: Sequence[float]) -> tuple[float, float]:
    """The two temperatures; a ValueError unless they are in order."""
    if len(bounds) != 2 or not 0 < bounds[0] < bounds[1] < torch.inf:
        raise ValueError(f"bounds must be two temperatures with 0 < least < greatest, got {bounds}.")
    return float(bounds[0]), float(bounds[1])


def _minimise(at: Callable[[float], _Point], one: _Point, low: float, high: float) -> tuple[float, _Point, bool]:
    """Newton's method for slope 0, inside a bracket that every step narrows."""
    beta, point = (1.0, one) if low <= 1 <= high else (low, at(low))
    if point.slope == 0:
        return beta, point, False
    end = high if point.slope < 0 else low
    at_end = at(end)
    if at_end.slope * point.slope >= 0:
        return end, at_end, True
    left, right = sorted((beta, end))
    for _ in range(_MOST_STEPS):
        left, right = (left, beta) if point.slope > 0 else (beta, right)
        step = beta - beta * point.slope / point.curvature if point.curvature > 0 else right
        new = step if left < step < right else (left * right) ** 0.5
        if abs(new - beta) <= _CLOSE * beta or point.slope == 0:
            break
        beta, point = new, at(new)
    return beta, point, False


def _chunks(blocks: list[Rows]) -> Iterator[Rows]:
    for scores, target in blocks:
        if scores.device.type == "mps":  # has no float64
            scores, target = scores.cpu(), target.cpu()
        # As in `sums`: a chunk that stays in a processor's cache is several times faster.
        rows = max(1, 2 ** (16 if scores.device.type == "cpu" else 22) // (scores.shape[1] if scores.ndim == 2 else 2))
        yield from zip(torch.split(scores, rows), torch.split(target, rows), strict=True)


def _measure(scores: Tensor, target: Tensor, spec: Spec, beta: float) -> Tensor:
    """Per sample whether it is counted, invalid, out of range, infinite; NLL, slope, curvature: float64 `(S, 7)`."""
    rows = _log_scores(scores, spec)
    target = target.double() if target.is_floating_point() else target.long()
    kept = torch.ones_like(target, dtype=torch.bool) if spec.ignore_index is None else target != spec.ignore_index
    in_range = (target >= 0) & (target < rows.shape[1]) & (target == target.long())
    peak = rows.amax(-1, keepdim=True)
    valid = peak.squeeze(-1).isfinite()
    below = beta * torch.where(valid[:, None], rows - peak, 0)
    own = below.gather(1, torch.where(in_range, target, 0).long()[:, None]).squeeze(1)
    counted = kept & valid & in_range
    finite = counted & (own > -_LARGEST)
    share, distance = below.exp(), below.clamp(min=-1e3)  # 0 * -inf would be nan; exp(-1000) is 0 as well
    total, first, second = (exact_sum(v) for v in (share, share * distance, share * distance * distance))
    mean = first / total
    numbers = torch.stack([total.log() - own, mean - own, (second / total - mean * mean).clamp(min=0)], -1)
    flags = torch.stack([counted, kept & ~valid, kept & valid & ~in_range, counted & ~finite], -1)
    return torch.cat([flags.double(), torch.where(finite[:, None], numbers, 0)], -1)


def _log_scores(scores: Tensor, spec: Spec) -> Tensor:
    """Unnormalised log-probabilities `(S, K)`; K is 2 for one score a sample."""
    scores = scores.double()
    if spec.input == "probs":
        outside = (scores - 0.5).abs() > 0.5 + PROBABILITY_TOLERANCE
        scores = scores.clamp(0, 1).masked_fill(outside, torch.nan)
        return (torch.stack([1 - scores, scores], -1) if scores.ndim == 1 else scores.contiguous()).log()
    if scores.ndim == 1:  # of either infinity a sure answer
        return torch.stack([-scores.clamp(min=0), scores.clamp(max=0)], -1)
    return scores.contiguous()


def _integers(numbers: Tensor) -> Tensor:
    """Sum float64 `(S, Q)` over S exactly, down to 2**-60: int64 `(Q, 3)` of wholes and units of 2**-30 and 2**-60."""
    whole = numbers.floor()
    rest = (numbers - whole) * 2.0**_UNITS
    middle = rest.floor()
    return torch.stack([part.long().sum(0) for part in (whole, middle, ((rest - middle) * 2.0**_UNITS).round())], -1)


def _read(sums: Tensor) -> list[float]:
    one = 1 << 2 * _UNITS
    return [(whole * one + (middle << _UNITS) + low) / one for whole, middle, low in sums.tolist()]
