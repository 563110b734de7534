"""Pure tensor functions: losses that smooth, errors that say whether it helped."""

from ls_lightning.functional.binary import smoothed_binary_cross_entropy_with_logits
from ls_lightning.functional.brier import BrierDecomposition
from ls_lightning.functional.calibration import (
    bootstrap_interval,
    calibration_error,
    calibration_gap,
    reliability_bins,
)
from ls_lightning.functional.focal import focal_loss
from ls_lightning.functional.negative import negative_smoothing
from ls_lightning.functional.classwise import (
    ClasswiseCalibration,
    classwise_calibration,
    classwise_calibration_error,
)
from ls_lightning.functional.overconfidence import (
    overconfidence_error,
    overconfidence_part,
    underconfidence_error,
    underconfidence_part,
)
from ls_lightning.functional.penalties import confidence_penalty, margin_smoothing, max_suppression
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.functional.relaxation import label_relaxation
from ls_lightning.functional.scores import accuracy, brier_decomposition, brier_score, negative_log_likelihood
from ls_lightning.functional.smooth import smooth_calibration_error
from ls_lightning.functional.smoothing import (
    smooth_targets,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)

__all__ = [
    "BrierDecomposition",
    "ClasswiseCalibration",
    "accuracy",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "classwise_calibration",
    "classwise_calibration_error",
    "confidence_penalty",
    "focal_loss",
    "label_relaxation",
    "margin_smoothing",
    "max_suppression",
    "negative_log_likelihood",
    "negative_smoothing",
    "overconfidence_error",
    "overconfidence_part",
    "prior_smoothing",
    "reliability_bins",
    "smooth_calibration_error",
    "smooth_targets",
    "smoothed_binary_cross_entropy_with_logits",
    "smoothed_cross_entropy",
    "smoothed_kl_div",
    "soft_cross_entropy",
    "underconfidence_error",
    "underconfidence_part",
]
