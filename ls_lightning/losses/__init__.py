"""The losses as modules: eps is a buffer that a schedule writes, everything else is as in torch's losses.

config name   class                      per-sample loss
ce            SmoothedCrossEntropy       (1-eps)(-lp_y) + eps mean_k(-lp_k)
kl            SmoothedKLDiv              KL(q || p), eps over the K-1 others
bce           SmoothedBCEWithLogits      binary cross-entropy with (1-eps)y + eps/2
soft_ce       SoftCrossEntropy           -lp_y + eps/(1-eps) mean_k(-lp_k)
none          CrossEntropy               -lp_y
"""

from ls_lightning.losses.cross_entropy import CrossEntropy
from ls_lightning.losses.function_loss import FunctionLoss
from ls_lightning.losses.registry import LOSSES, build_loss, usual_eps
from ls_lightning.losses.smoothed_bce import SmoothedBCEWithLogits
from ls_lightning.losses.smoothed_cross_entropy import SmoothedCrossEntropy
from ls_lightning.losses.smoothed_kl_div import SmoothedKLDiv
from ls_lightning.losses.soft_cross_entropy import SoftCrossEntropy

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "FunctionLoss",
    "SmoothedBCEWithLogits",
    "SmoothedCrossEntropy",
    "SmoothedKLDiv",
    "SoftCrossEntropy",
    "build_loss",
    "usual_eps",
]
