"""Pure tensor functions: losses that smooth, errors that say whether it helped."""

from ls_lightning.functional.binary import smoothed_binary_cross_entropy_with_logits
from ls_lightning.functional.brier import BrierDecomposition
from ls_lightning.functional.calibration import (
    bootstrap_interval,
    calibration_error,
    calibration_gap,
    reliability_bins,
)
from ls_lightning.functional.overconfidence import (
    overconfidence_error,
    overconfidence_part,
    underconfidence_error,
    underconfidence_part,
)
from ls_lightning.functional.scores import accuracy, brier_decomposition, brier_score, negative_log_likelihood
from ls_lightning.functional.smoothing import (
    smooth_targets,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)

__all__ = [
    "BrierDecomposition",
    "accuracy",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "negative_log_likelihood",
    "overconfidence_error",
    "overconfidence_part",
    "reliability_bins",
    "smooth_targets",
    "smoothed_binary_cross_entropy_with_logits",
    "smoothed_cross_entropy",
    "smoothed_kl_div",
    "soft_cross_entropy",
    "underconfidence_error",
    "underconfidence_part",
]
