"""A loss that leaves confident predictions alone."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.relaxation import label_relaxation
from ls_lightning.losses.checked import checked


class LabelRelaxation(EpsBuffer):
    r"""Label relaxation, config name `relaxation`.

    .. math::
        \ell = 0 \text{ if } p_y \ge 1-\epsilon, \text{ else } \mathrm{KL}(r\,\|\,p), \qquad
        r_y = 1-\epsilon, \quad r_k = \epsilon\,p_k / \textstyle\sum_{j \ne y} p_j

    Use it in place of smoothing where the classes that a network confuses are to be left to it, and
    confident samples to themselves. eps 0.1. A schedule moves eps. For class indices alone: no mixup.

    On digits, from plain cross-entropy to this with eps 0.1; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 97.0    1.6 -> 2.6      2.1 -> 2.3
    overconfident      66.2 -> 65.5    22.8 -> 17.1    161.1 -> 168.7
    40 % wrong labels  74.3 -> 73.0    10.8 -> 12.3    91.9 -> 103.6
    =================  ==============  ==============  ================

    It takes some of the overconfidence away and gains nothing else here.

    Args:
        eps: the alpha of the paper, as in [`SmoothedCrossEntropy`]; 0 is cross-entropy.
        weight: as there.
        weight_mode: `"torch"` weights the terms of the divergence.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> import torch
        >>> loss = LabelRelaxation(eps=0.1)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(0.9324)

    Source: Lienen and Hüllermeier 2021, "From Label Smoothing to Label Relaxation", AAAI.
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
        """Return the loss of logits `(N, K, d1, ...)` and class indices; a distribution is refused.

        `options` replace those of the module in this call.
        """
        return self._call(label_relaxation, logits, target, options)
