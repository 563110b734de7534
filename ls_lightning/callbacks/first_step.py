"""After the first training step: was anything smoothed, and was it smooth already?"""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from ls_lightning.callbacks.smoothed_calls import SmoothedCalls
from ls_lightning.tap import Tap


def check_first_step(
    module: L.LightningModule, calls: SmoothedCalls, tap: Tap | None, selected: bool, eps: float
) -> None:
    """Raise a LookupError that says why nothing was smoothed; warn of targets that are smooth already.

    Args:
        module: whose training step it was.
        calls: what was answered.
        tap: what was seen.
        selected: by a predicate of the user's.
        eps: of the step.
    """
    step = f"{type(module).__name__}.training_step"
    if not calls.answered and calls.skipped is not None:
        raise LookupError(
            f"{step} calls {calls.skipped}, got a loss for another task, so nothing was smoothed. "
            f"Use loss={'ce' if calls.kind == 'binary' else 'bce'!r}, or name its own loss: target='criterion'."
        )
    if not calls.answered and tap is not None and tap.calls:
        why = "target selects none" if selected else "no gradient comes from any"
        raise LookupError(f"{why} of the {tap.calls} losses that {step} calls, so nothing was smoothed.")
    if not calls.answered:
        raise LookupError(
            f"no cross-entropy was seen in {step}, so nothing was smoothed. Name the loss: "
            "LabelSmoothing(target='criterion'), or subclass with LabelSmoothingMixin."
        )
    target = calls.target
    if eps and target is not None and target.is_floating_point() and bool(((target > 0) & (target < 1)).all()):
        rank_zero_warn(
            f"The targets are smooth already (every class has mass) and eps={eps} smooths them again. "
            "Mixup of some libraries smooths by default: turn one of the two off."
        )
