"""Metrics that say whether smoothing helped, read off sums of integers.

Values are bit-identical for any batch size, batch order and number of ranks. Classes that are read off the same sums
share them in a `MetricCollection`, so that each batch is measured once: calibration over bins; selective risk and
equal-mass calibration over cells of confidence; class-wise and smooth calibration have sums of their own.
"""

from ls_lightning.metrics.adaptive import AdaptiveCalibrationError
from ls_lightning.metrics.base import CalibrationMetric, SumMetric
from ls_lightning.metrics.calibration import CalibrationError, CalibrationGap
from ls_lightning.metrics.classwise import ClasswiseCalibrationError
from ls_lightning.metrics.collections import default_metrics, full_metrics, update_statistics
from ls_lightning.metrics.overconfidence import (
    OverconfidenceError,
    OverconfidencePart,
    UnderconfidenceError,
    UnderconfidencePart,
)
from ls_lightning.metrics.scores import Accuracy, BrierComponent, BrierScore, MeanEntropy, NegativeLogLikelihood
from ls_lightning.metrics.selective import (
    AUGRC,
    AURC,
    EAURC,
    CoverageAtRisk,
    RiskAtCoverage,
    RiskCoverageCurve,
)
from ls_lightning.metrics.smooth import SmoothCalibrationError

__all__ = [
    "AUGRC",
    "AURC",
    "EAURC",
    "Accuracy",
    "AdaptiveCalibrationError",
    "BrierComponent",
    "BrierScore",
    "CalibrationError",
    "CalibrationGap",
    "CalibrationMetric",
    "ClasswiseCalibrationError",
    "CoverageAtRisk",
    "MeanEntropy",
    "NegativeLogLikelihood",
    "OverconfidenceError",
    "OverconfidencePart",
    "RiskAtCoverage",
    "RiskCoverageCurve",
    "SmoothCalibrationError",
    "SumMetric",
    "UnderconfidenceError",
    "UnderconfidencePart",
    "default_metrics",
    "full_metrics",
    "update_statistics",
]
