"""Cross-entropy plus a multiple of the uniform cross-entropy."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.smoothing import soft_cross_entropy
from ls_lightning.losses.checked import checked


class SoftCrossEntropy(EpsBuffer):
    r"""Cross-entropy plus a multiple of the uniform cross-entropy, config name `soft_ce`.

    .. math:: \ell = -lp_y - \tfrac{\epsilon}{1-\epsilon}\,\tfrac1K \textstyle\sum_k lp_k

    Use it to repeat a recipe that adds the two; eps 0.5 adds them one to one. The gradient is 1/(1-eps)
    times that of `ce`, so a learning rate does not carry over unless `normalized=True`, which is `ce`.

    On digits, from plain cross-entropy to this with eps 0.5; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 98.6    1.6 -> 47.5     2.1 -> 0.5
    overconfident      66.2 -> 63.7    22.8 -> 27.4    161.1 -> 180.8
    40 % wrong labels  74.3 -> 77.5    10.8 -> 42.5    91.9 -> 82.4
    =================  ==============  ==============  ================

    One to one is a lot of smoothing: the ECE suffers most of all here, and a temperature undoes that.

    Args:
        eps: as in [`SmoothedCrossEntropy`]; the uniform term has the weight eps/(1-eps).
        normalized: multiply by 1-eps.
        weight: as there.
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> import torch
        >>> loss = SoftCrossEntropy()
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(2.7538)

    Source: the sum of two criteria found in many training scripts; normalised: Szegedy et al. 2016.
    """

    def __init__(
        self,
        eps: float | Values = 0.5,
        *,
        normalized: bool = False,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            eps,
            **checked(
                normalized=normalized,
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
        return self._call(soft_cross_entropy, logits, target, options)
