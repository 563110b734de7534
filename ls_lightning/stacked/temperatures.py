"""The temperatures of all members at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.temperature import TemperatureFit

_CLOSE = 1e-11
_MOST_STEPS = 200


def fit_members(logits: Tensor, target: Tensor, spec: Spec, bounds: tuple[float, float]) -> list[TemperatureFit | None]:
    """What :func:`~ls_lightning.functional.temperature.fit_rows` finds for each member, to about 1e-10.

    Newton's method as there, in which all members take their steps together.

    Args:
        logits: ``(M, N, K)``; ``(M, N)`` for binary.
        target: of the N samples.
        spec: how to read them; its input are logits.
        bounds: the least and the greatest temperature.

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
    beta, at_boundary = _minimise(found, 1 / bounds[1], 1 / bounds[0])
    before, after = (found.at(each)[0].tolist() for each in (torch.ones_like(beta), beta))
    fits: list[TemperatureFit | None] = []
    for k, (one, n) in enumerate(zip(beta.tolist(), found.n.long().tolist(), strict=True)):
        temperature = 1 / one
        if at_boundary[k]:  # to the bit
            temperature = min(bounds, key=lambda bound: abs(bound - temperature))
        fit = TemperatureFit(temperature, n, before[k], after[k], bool(at_boundary[k]))
        fits.append(fit if n and math.isfinite(before[k]) else None)
    return fits


class _Likelihood:
    """Of each member the mean NLL and its derivatives, as functions of the inverse temperature.

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

    def at(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """NLL, slope and curvature by the inverse temperatures ``(M,)``."""
        share = (self._below * beta[:, None]).exp_()
        total = share.sum(0)
        first = share.mul_(self._below).sum(0) / total
        second = share.mul_(self._below).sum(0) / total
        terms = (total.log() - beta[:, None] * self._own, first - self._own, second - first * first)
        nll, slope, curvature = ((term * self._counted).sum(1) / self.n for term in terms)
        return nll, slope, curvature


def _minimise(found: _Likelihood, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Newton's method for slope 0, inside a bracket that every step narrows; where the slope is 0 at once, stay there.

    Returns:
        The inverse temperatures, and which are at an end, beyond which the NLL falls on.
    """
    ones = torch.ones_like(found.n)
    left, right = low * ones, high * ones
    beta = ones.clamp(low, high)
    _, slope, curvature = found.at(beta)
    flat = slope == 0
    at_left, at_right = (found.at(end)[1] for end in (left, right))
    at_boundary = ~flat & ((at_left >= 0) | (at_right <= 0))
    settled = flat | at_boundary | slope.isnan()
    beta = torch.where(at_boundary, torch.where(at_left >= 0, left, right), beta)
    for _ in range(_MOST_STEPS):
        left, right = torch.where(slope > 0, left, beta), torch.where(slope > 0, beta, right)
        step = torch.where(curvature > 0, beta - slope / curvature, right)
        new = torch.where((left < step) & (step < right), step, (left * right).sqrt())
        # The step, not what the bracket makes of it: near the end the sign of a slope is that of its rounding.
        settled = settled | ((step - beta).abs() <= _CLOSE * beta)
        if bool(settled.all()):
            break
        beta = torch.where(settled, beta, new)
        _, slope, curvature = found.at(beta)
    return beta, at_boundary
