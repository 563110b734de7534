"""What was measured of the order of samples by confidence, read back off the sums."""

from __future__ import annotations

from ls_lightning.callbacks.stage_metrics import Measured
from ls_lightning.functional.levels import Levels
from ls_lightning.functional.sketch import read_sketch
from ls_lightning.metrics.ranking import RankingMetric


def confidence_levels(found: Measured) -> Levels | None:
    """The samples from the surest to the least sure.

    Args:
        found: what a stage was measured by.

    Returns:
        None without a metric such as ``aurc`` with ``mode="sketch"``, without samples, or if one was no number.
    """
    sketches = [(metric, sums) for metric, sums in found.states.values() if isinstance(metric, RankingMetric)]
    for metric, sums in sketches:
        if metric.ranking.outputs.confidence == "positive":  # in order of P(y = 1), not of confidence
            continue
        try:
            levels = read_sketch(sums, metric.ranking.outputs.nan_policy)
        except ValueError:
            return None
        return levels if len(levels.n) else None
    return None
