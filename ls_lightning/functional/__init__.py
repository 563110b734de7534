"""Pure tensor functions: losses that smooth, errors that say whether it helped."""

from ls_lightning.functional.binary import smoothed_binary_cross_entropy_with_logits
from ls_lightning.functional.calibration import (
    accuracy,
    brier_score,
    calibration_error,
    calibration_gap,
    negative_log_likelihood,
    overconfidence_error,
    reliability_bins,
    underconfidence_error,
)
from ls_lightning.functional.smoothing import (
    smooth_targets,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)

__all__ = [
    "accuracy",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "negative_log_likelihood",
    "overconfidence_error",
    "reliability_bins",
    "smooth_targets",
    "smoothed_binary_cross_entropy_with_logits",
    "smoothed_cross_entropy",
    "smoothed_kl_div",
    "soft_cross_entropy",
    "underconfidence_error",
]
