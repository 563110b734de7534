"""From one loss per sample to what the user asked for."""

from torch import Tensor

from ls_lightning.functional.options import Reduction


def reduce(loss: Tensor, counts: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce losses `(N, ...)`, which are 0 where ignored.

    Args:
        loss: weighted losses.
        counts: what each adds to the denominator of the mean, of the losses' shape; None: 1 each.
        reduction: `"mean"` sum / sum of counts, `"batchmean"` sum / N, `"sum"`, or `"none"`.

    Returns:
        `(N, ...)` for `"none"`, else a 0-d tensor: 0, with zero gradient, where nothing counts.
    """
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    if reduction == "batchmean":
        return total / max(loss.shape[0], 1)
    if counts is None:
        return total / max(loss.numel(), 1)
    denominator = counts.sum()
    nothing = denominator == 0
    return (total / denominator.masked_fill(nothing, 1)).masked_fill(nothing, 0)
