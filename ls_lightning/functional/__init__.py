"""Pure tensor functions: losses that smooth, errors that say whether it helped."""

from ls_lightning.functional.adaptive import adaptive_calibration_error
from ls_lightning.functional.binary import smoothed_binary_cross_entropy_with_logits
from ls_lightning.functional.brier import BrierDecomposition
from ls_lightning.functional.calibration import (
    bootstrap_interval,
    calibration_error,
    calibration_gap,
    reliability_bins,
)
from ls_lightning.functional.classwise import (
    ClasswiseCalibration,
    classwise_calibration,
    classwise_calibration_error,
)
from ls_lightning.functional.focal import focal_loss
from ls_lightning.functional.hierarchy import class_similarity
from ls_lightning.functional.linear_smoothing import linear_smoothed_cross_entropy
from ls_lightning.functional.negative import negative_smoothing
from ls_lightning.functional.overconfidence import (
    overconfidence_error,
    overconfidence_part,
    underconfidence_error,
    underconfidence_part,
)
from ls_lightning.functional.penalties import confidence_penalty, margin_smoothing, max_suppression
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.functional.relaxation import label_relaxation
from ls_lightning.functional.risk import RiskCoverage, risk_coverage_points
from ls_lightning.functional.scores import accuracy, brier_decomposition, brier_score, negative_log_likelihood
from ls_lightning.functional.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    eaurc,
    risk_at_coverage,
    risk_coverage_curve,
)
from ls_lightning.functional.smooth import smooth_calibration_error
from ls_lightning.functional.smoothing import (
    smooth_targets,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)
from ls_lightning.functional.temperature import fit_temperature

__all__ = [
    "BrierDecomposition",
    "ClasswiseCalibration",
    "RiskCoverage",
    "accuracy",
    "adaptive_calibration_error",
    "augrc",
    "aurc",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "class_similarity",
    "classwise_calibration",
    "classwise_calibration_error",
    "confidence_penalty",
    "coverage_at_risk",
    "eaurc",
    "fit_temperature",
    "focal_loss",
    "label_relaxation",
    "linear_smoothed_cross_entropy",
    "margin_smoothing",
    "max_suppression",
    "negative_log_likelihood",
    "negative_smoothing",
    "overconfidence_error",
    "overconfidence_part",
    "prior_smoothing",
    "reliability_bins",
    "risk_at_coverage",
    "risk_coverage_curve",
    "risk_coverage_points",
    "smooth_calibration_error",
    "smooth_targets",
    "smoothed_binary_cross_entropy_with_logits",
    "smoothed_cross_entropy",
    "smoothed_kl_div",
    "soft_cross_entropy",
    "underconfidence_error",
    "underconfidence_part",
]
