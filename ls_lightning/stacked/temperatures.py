"""The temperatures of all members at once: the fit of one, asked for its points all together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ls_lightning.functional import temperature as one
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.temperature import TemperatureFit


class _AskedError(Exception):
    """A point of the search that is not known yet."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta


def fit_members(logits: Tensor, target: Tensor, spec: Spec, bounds: tuple[float, float]) -> list[TemperatureFit | None]:
    """What :func:`~ls_lightning.functional.temperature.fit_rows` finds for each member, to the same bits.

    Newton's method takes its steps member by member; whoever lacks a point waits, and all that is lacking is computed
    in one go over the rows of all who wait.

    Args:
        logits: ``(M, N, K)``; ``(M, N)`` for binary.
        target: of the N samples.
        spec: how to read them.
        bounds: the least and the greatest temperature.

    Returns:
        None for a member whose logits are no numbers, or that has no sample.
    """
    members = len(logits)
    rows, labels = as_rows(logits.flatten(0, 1), target.expand(members, *target.shape).flatten(0, 1), spec)
    scores, labels = rows.view(members, -1, *rows.shape[1:]), labels.view(members, -1)
    known: list[dict[float, list[float]]] = [{} for _ in range(members)]
    found: dict[int, TemperatureFit | None] = {}
    waiting = dict.fromkeys(range(members), 1.0)
    while waiting:
        asked = list(waiting)
        points = _measure(scores[asked], labels[asked], spec, list(waiting.values()))
        for member, point in zip(asked, points, strict=True):
            known[member][waiting.pop(member)] = point
            try:
                found[member] = _search(known[member], bounds)
            except _AskedError as lack:
                waiting[member] = lack.beta
    return [found[member] for member in range(members)]


def _measure(scores: Tensor, labels: Tensor, spec: Spec, betas: list[float]) -> list[list[float]]:
    """Of each member the sums at its inverse temperature."""
    members, rows = labels.shape
    beta: Any = torch.tensor(betas, dtype=torch.float64, device=scores.device).repeat_interleave(rows).unsqueeze(1)
    numbers = one._measure(scores.flatten(0, 1), labels.flatten(), spec, beta)
    columns = numbers.view(members, rows, -1).transpose(0, 1).flatten(1)
    return [one._read(sums) for sums in one._integers(columns).cpu().view(members, -1, 3)]


def _search(known: dict[float, list[float]], bounds: tuple[float, float]) -> TemperatureFit | None:
    """As ``fit_rows``, with points that are known; ``_AskedError`` at the first that is not."""

    def at(beta: float) -> one._Point:
        if beta not in known:
            raise _AskedError(beta)
        *counts, nll, slope, curvature = known[beta]
        used = max(counts[0] - counts[3], 1.0)
        return one._Point(nll / used, slope / used, curvature / used)

    n, invalid, out_of_range, infinite = known[1.0][:4]
    if invalid or out_of_range or n - infinite == 0:
        return None
    least, greatest = bounds
    before = at(1.0)
    beta, after, at_boundary = one._minimise(at, before, 1 / greatest, 1 / least)
    temperature = 1 / beta
    if at_boundary:
        temperature = least if beta > 1 / greatest else greatest
    lost = torch.inf if infinite else 0.0
    return TemperatureFit(temperature, int(n), before.nll + lost, after.nll + lost, at_boundary)
