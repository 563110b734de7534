"""Metrics that say whether smoothing helped: one integer state, read in several ways.

All classes take the same arguments and accumulate the same sums, so that a `MetricCollection` of them
computes one softmax a batch. Values are bit-identical for any batch size, batch order and number of ranks.
"""

from ls_lightning.metrics.base import CalibrationMetric, SumMetric
from ls_lightning.metrics.calibration import (
    Accuracy,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    MeanEntropy,
    NegativeLogLikelihood,
    OverconfidenceError,
    UnderconfidenceError,
)
from ls_lightning.metrics.collections import default_metrics, full_metrics

__all__ = [
    "Accuracy",
    "BrierScore",
    "CalibrationError",
    "CalibrationGap",
    "CalibrationMetric",
    "MeanEntropy",
    "NegativeLogLikelihood",
    "OverconfidenceError",
    "SumMetric",
    "UnderconfidenceError",
    "default_metrics",
    "full_metrics",
]
