"""The temperatures of all members at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.temperature import TemperatureFit

_CLOSE = 1e-7
"""The last step, relative: the error after it is of the order of its square."""
_MOST_STEPS = 200


class _Point(NamedTuple):
    """Of each member the mean NLL and its derivatives by the inverse temperature."""

    nll: Tensor
    slope: Tensor
    curvature: Tensor


def fit_members(
    logits: Tensor,
    target: Tensor,
    spec: Spec,
    bounds: tuple[float, float],
    near: Sequence[TemperatureFit | None] | None = None,
) -> list[TemperatureFit | None]:
    """What :func:`~ls_lightning.functional.temperature.fit_rows` finds for each member, to about 1e-10.

    Newton's method as there, in which all members take their steps together.

    Args:
        logits: ``(M, N, K)``; ``(M, N)`` for binary.
        target: of the N samples.
        spec: how to read them; its input are logits.
        bounds: the least and the greatest temperature.
        near: fits to similar logits, which shorten the search.

    Returns:
        None for a member whose logits are not finite, or that has no sample.
    """
    members = len(logits)
    rows, labels = as_rows(logits.flatten(0, 1), target.expand(members, *target.shape).flatten(0, 1), spec)
    counted = labels != spec.ignore_index if spec.ignore_index is not None else torch.ones_like(labels).bool()
    labels = labels.masked_fill(~counted, 0).long()
    rows = (torch.stack([torch.zeros_like(rows), rows], -1) if rows.ndim == 1 else rows).double()
    found = _Likelihood(
        rows.T.reshape(rows.shape[1], members, -1), labels.view(1, members, -1), counted.view(members, -1)
    )
    guess = [1 / fit.temperature if fit else 1.0 for fit in near or [None] * members]
    first = found.at(torch.ones_like(found.n))
    beta, nll, at_boundary = _minimise(found, first, 1 / bounds[1], 1 / bounds[0], first.nll.new_tensor(guess))
    before, after = first.nll.tolist(), nll.tolist()
    fits: list[TemperatureFit | None] = []
    for k, (one, n) in enumerate(zip(beta.tolist(), found.n.long().tolist(), strict=True)):
        temperature = 1 / one
        if at_boundary[k]:  # to the bit
            temperature = min(bounds, key=lambda bound: abs(bound - temperature))
        fit = TemperatureFit(temperature, n, before[k], after[k], bool(at_boundary[k]))
        fits.append(fit if n and math.isfinite(before[k]) else None)
    return fits


class _Likelihood:
    """The mean NLL of each member, as a function of the inverse temperature.

    Args:
        rows: float64 ``(K, M, N)``: sums over classes are fast along columns.
        labels: ``(1, M, N)``.
        counted: ``(M, N)``.
    """

    def __init__(self, rows: Tensor, labels: Tensor, counted: Tensor) -> None:
        self._below = rows - rows.amax(0)
        self._own = self._below.gather(0, labels)[0]
        self._counted = counted.double()
        self.n = self._counted.sum(1)

    def at(self, beta: Tensor) -> _Point:
        """What it is at the inverse temperatures ``(M,)``."""
        share = (self._below * beta[:, None]).exp_()
        total = share.sum(0)
        first = share.mul_(self._below).sum(0) / total
        second = share.mul_(self._below).sum(0) / total
        terms = (total.log() - beta[:, None] * self._own, first - self._own, second - first * first)
        return _Point(*((term * self._counted).sum(1) / self.n for term in terms))


def _minimise(
    found: _Likelihood, first: _Point, low: float, high: float, near: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method for slope 0, inside a bracket that every step narrows; where the slope is 0 at once, stay there.

    Args:
        found: what falls and rises again.
        first: it at 1.
        low: the least inverse temperature.
        high: the greatest.
        near: ``(M,)``, where to begin; elsewhere if that is not between 1 and the end that the slope points to.

    Returns:
        The inverse temperatures, the NLL there, and which are at an end, beyond which the NLL falls on.
    """
    ones = torch.ones_like(found.n)
    beta = ones.clamp(low, high)
    slope = (first if low <= 1 <= high else found.at(beta)).slope
    end = torch.where(slope < 0, high * ones, low * ones)
    flat = slope == 0
    at_boundary = ~flat & (found.at(end).slope * slope >= 0)
    settled = flat | at_boundary | slope.isnan()
    left, right = torch.minimum(beta, end), torch.maximum(beta, end)
    beta = torch.where(at_boundary, end, torch.where(~flat & (left < near) & (near < right), near, beta))
    for _ in range(_MOST_STEPS):
        nll, slope, curvature = found.at(beta)
        left, right = torch.where(slope > 0, left, beta), torch.where(slope > 0, beta, right)
        step = torch.where(curvature > 0, beta - slope / curvature, right)
        # The step, not what the bracket makes of it: near the end the sign of a slope is that of its rounding.
        close = (step - beta).abs() <= _CLOSE * beta
        inside = torch.where((left < step) & (step < right), step, (left * right).sqrt())
        beta = torch.where(settled, beta, torch.where(close, step, inside))
        settled = settled | close
        if bool(settled.all()):
            break
    return beta, nll, at_boundary
