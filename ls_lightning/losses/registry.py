"""The losses by the names that a configuration gives them."""

import inspect
from collections.abc import Callable
from typing import Any

from ls_lightning.eps_buffer import EpsBuffer
from ls_lightning.functional.options import quoted
from ls_lightning.losses.confidence_penalty import ConfidencePenalty
from ls_lightning.losses.cross_entropy import CrossEntropy
from ls_lightning.losses.focal import FocalLoss
from ls_lightning.losses.label_relaxation import LabelRelaxation
from ls_lightning.losses.margin import MarginSmoothing
from ls_lightning.losses.max_suppression import MaxSuppression
from ls_lightning.losses.negative import NegativeSmoothing
from ls_lightning.losses.online import OnlineLabelSmoothing
from ls_lightning.losses.prior import PriorSmoothing
from ls_lightning.losses.smoothed_bce import SmoothedBCEWithLogits
from ls_lightning.losses.smoothed_cross_entropy import SmoothedCrossEntropy
from ls_lightning.losses.smoothed_kl_div import SmoothedKLDiv
from ls_lightning.losses.soft_cross_entropy import SoftCrossEntropy

LOSSES: dict[str, type[EpsBuffer]] = {
    "ce": SmoothedCrossEntropy,
    "kl": SmoothedKLDiv,
    "bce": SmoothedBCEWithLogits,
    "soft_ce": SoftCrossEntropy,
    "prior": PriorSmoothing,
    "confidence_penalty": ConfidencePenalty,
    "max_suppression": MaxSuppression,
    "focal": FocalLoss,
    "margin": MarginSmoothing,
    "relaxation": LabelRelaxation,
    "negative": NegativeSmoothing,
    "online": OnlineLabelSmoothing,
    "none": CrossEntropy,
}


def build_loss(name: str, **options: Any) -> EpsBuffer:
    """Build the loss that a config calls `name`.

    Args:
        name: a key of `LOSSES`.
        **options: of its class.

    Raises:
        ValueError: no loss has this name, or an option is out of range.
        TypeError: the loss has no such option.

    Example:
        >>> build_loss("bce", eps=0.05)
        SmoothedBCEWithLogits(eps=0.05, ignore_index=-100, reduction=mean, input=logits)
    """
    return _named(name)(**options)


def usual_eps(name: str) -> float:
    """Return the default eps of the loss that a config calls `name`.

    Example:
        >>> usual_eps("ce"), usual_eps("none")
        (0.1, 0.0)
    """
    return float(inspect.signature(_named(name)).parameters["eps"].default)


def _named(name: str) -> Callable[..., EpsBuffer]:
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {quoted(LOSSES)}, got {name!r}.")
    return LOSSES[name]
