"""Schedules: plain values that map the progress of a run to eps.

``progress`` is 0 at the first optimizer step and 1 at the end of training, so a schedule is the
same curve on any number of devices and at any batch size. :class:`ls_lightning.LabelSmoothing`
calls it before every step. :class:`Feedback` alone is no curve: it follows what validation says.
"""

from ls_lightning.schedules.checks import Schedule, curve, eps_at, peak
from ls_lightning.schedules.composed import Scaled, Sequence
from ls_lightning.schedules.curves import Constant, Cosine, CosLog, Linear
from ls_lightning.schedules.feedback import Feedback
from ls_lightning.schedules.registry import SCHEDULES, build_schedule
from ls_lightning.schedules.stages import Delayed, Step, TwoStage, Warmup

__all__ = [
    "SCHEDULES",
    "Constant",
    "CosLog",
    "Cosine",
    "Delayed",
    "Feedback",
    "Linear",
    "Scaled",
    "Schedule",
    "Sequence",
    "Step",
    "TwoStage",
    "Warmup",
    "build_schedule",
    "curve",
    "eps_at",
    "peak",
]
