"""Cross-entropy that rewards the entropy of the prediction."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.penalties import confidence_penalty
from ls_lightning.losses.checked import checked


class ConfidencePenalty(EpsBuffer):
    r"""Cross-entropy minus a multiple of the prediction's entropy, config name `confidence_penalty`.

    .. math:: \ell = -lp_y - \epsilon\,H(p)

    Use it where a class may well get a probability near 0, which smoothing forbids: it asks for
    entropy, not for a certain distribution. eps 0.1. `eps` on the command line, and what a schedule moves, is
    beta. The loss may be negative, so its curve says little; look at `val/nll`.

    On digits, mean of 5 seeds on test, from plain cross-entropy to this with its usual values: accuracy
    97.8 -> 97.9 %, ECE 1.2 -> 1.2 % (underconfident by 0.2 points), AURC 0.00087 -> 0.00083, by
    `python -m ls_lightning.train -m loss=none,confidence_penalty seed=0,1,2,3,4 trainer=cpu`.

    Args:
        eps: the beta of the paper, in [0, 1), as in [`SmoothedCrossEntropy`]; 0 is cross-entropy.
        weight: as there.
        weight_mode: `"sample"` weights the penalty as well, `"torch"` the cross-entropy alone.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> import torch
        >>> loss = ConfidencePenalty(eps=0.1)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.2261)

    Source: Pereyra et al. 2017, arXiv:1701.06548.
    """

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            eps,
            **checked(
                weight=weight,
                weight_mode=weight_mode,
                ignore_index=ignore_index,
                reduction=reduction,
                input=input,
            ),
        )

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(confidence_penalty, logits, target, options)
