"""What jobs of one group have measured at many points, as one curve or diagram."""

from __future__ import annotations

import math
from typing import NamedTuple

from ls_lightning.sweep.estimate import mean_interval
from ls_lightning.sweep.groups import Group

Bins = tuple[list[float], list[float], list[float]]


class RiskCurve(NamedTuple):
    """The mean risk-coverage curve of some seeds; lists of one length, shares of 1.

    Attributes:
        coverage: share of the samples that are answered, the surest first; increasing to 1.
        risk: error rate among them, mean over seeds.
        half: half of its t interval over seeds; NaN for a single seed.
        n: seeds.
    """

    coverage: list[float]
    risk: list[float]
    half: list[float]
    n: int


def mean_risk(group: Group, stage: str, *, scaled: bool = False, level: float = 0.95) -> RiskCurve | None:
    """The mean over seeds at each coverage; None if no job has a curve.

    Jobs with other coverages than the first are left out.

    Args:
        group: whose jobs.
        stage: ``"test"`` or ``"val"``.
        scaled: after temperature scaling.
        level: of the intervals.
    """
    found = [curve for job in group.jobs if (curve := job.risk_coverage(stage, scaled=scaled)) is not None]
    found = [curve for curve in found if curve["coverage"] and not _has_nan(curve["coverage"] + curve["risk"])]
    found = [curve for curve in found if curve["coverage"] == found[0]["coverage"]]
    if not found:
        return None
    points = [mean_interval(risks, level) for risks in zip(*(curve["risk"] for curve in found), strict=True)]
    return RiskCurve(found[0]["coverage"], [one.mean for one in points], [one.half for one in points], len(found))


def pooled_bins(group: Group, stage: str, *, scaled: bool = False) -> Bins | None:
    """The bins of all seeds as one diagram: counts, confidence and accuracy; None if no job has them.

    Jobs with another number of bins than the first are left out.
    """
    found = [bins for job in group.jobs if (bins := job.bins(stage, scaled=scaled)) is not None]
    if not found:
        return None
    size = len(found[0]["counts"])
    found = [bins for bins in found if len(bins["counts"]) == size]
    counts = [sum(bins["counts"][k] for bins in found) for k in range(size)]
    means = [
        [
            sum(bins["counts"][k] * bins[name][k] for bins in found if bins["counts"][k]) / counts[k]
            if counts[k]
            else math.nan
            for k in range(size)
        ]
        for name in ("confidence", "accuracy")
    ]
    return counts, means[0], means[1]


def _has_nan(values: list[float]) -> bool:
    return any(map(math.isnan, values))
