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

    On digits, from plain cross-entropy to this with eps 0.1; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 97.0    1.6 -> 1.6      2.1 -> 2.0
    overconfident      66.2 -> 66.2    22.8 -> 21.6    161.1 -> 160.8
    40 % wrong labels  74.3 -> 72.5    10.8 -> 11.1    91.9 -> 106.1
    =================  ==============  ==============  ================

    0.1 changes next to nothing where labels are right, and does some harm where they are wrong.

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
