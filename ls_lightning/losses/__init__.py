"""The losses as modules: eps is a buffer that a schedule writes, everything else is as in torch's losses.

config name         class                  per-sample loss
ce                  SmoothedCrossEntropy   (1-eps)(-lp_y) + eps mean_k(-lp_k)
kl                  SmoothedKLDiv          KL(q || p), eps over the K-1 others
bce                 SmoothedBCEWithLogits  binary cross-entropy with (1-eps)y + eps/2
soft_ce             SoftCrossEntropy       -lp_y + eps/(1-eps) mean_k(-lp_k)
prior               PriorSmoothing         (1-eps)(-lp_y) + eps sum_k pi_k(-lp_k)
confidence_penalty  ConfidencePenalty      -lp_y - eps H(p)
max_suppression     MaxSuppression         -lp_y + eps (max_k z_k - mean_k z_k)
focal               FocalLoss              -(1-p_y)^gamma lp_y; has no eps
margin              MarginSmoothing        -lp_y + eps mean_k relu(max_j z_j - z_k - margin)
relaxation          LabelRelaxation        0 if p_y >= 1-eps, else KL(r || p), r_y = 1-eps
negative            NegativeSmoothing      as ce, eps < 0, after a warm-up
online              OnlineLabelSmoothing   (1-eps)(-lp_y) + eps sum_k S_yk(-lp_k), S learnt in the last epoch
none                CrossEntropy           -lp_y; has no eps

LinearSmoothedCrossEntropy is `ce` of a last layer whose logits are never all in memory: for large vocabularies.
"""

from ls_lightning.losses.confidence_penalty import ConfidencePenalty
from ls_lightning.losses.cross_entropy import CrossEntropy
from ls_lightning.losses.focal import FocalLoss
from ls_lightning.losses.function_loss import FunctionLoss
from ls_lightning.losses.label_relaxation import LabelRelaxation
from ls_lightning.losses.linear import LinearSmoothedCrossEntropy
from ls_lightning.losses.margin import MarginSmoothing
from ls_lightning.losses.max_suppression import MaxSuppression
from ls_lightning.losses.negative import NegativeSmoothing
from ls_lightning.losses.online import OnlineLabelSmoothing
from ls_lightning.losses.prior import PriorSmoothing
from ls_lightning.losses.registry import LOSSES, build_loss, usual_eps
from ls_lightning.losses.smoothed_bce import SmoothedBCEWithLogits
from ls_lightning.losses.smoothed_cross_entropy import SmoothedCrossEntropy
from ls_lightning.losses.smoothed_kl_div import SmoothedKLDiv
from ls_lightning.losses.soft_cross_entropy import SoftCrossEntropy

__all__ = [
    "LOSSES",
    "ConfidencePenalty",
    "CrossEntropy",
    "FocalLoss",
    "FunctionLoss",
    "LabelRelaxation",
    "LinearSmoothedCrossEntropy",
    "MarginSmoothing",
    "MaxSuppression",
    "NegativeSmoothing",
    "OnlineLabelSmoothing",
    "PriorSmoothing",
    "SmoothedBCEWithLogits",
    "SmoothedCrossEntropy",
    "SmoothedKLDiv",
    "SoftCrossEntropy",
    "build_loss",
    "usual_eps",
]
