"""Negative label smoothing, after a warm-up of plain cross-entropy."""

from typing import Any, ClassVar

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.eps import NEGATIVE_EPS, Range
from ls_lightning.functional.negative import negative_smoothing
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.losses.checked import checked


class NegativeSmoothing(EpsBuffer):
    r"""Negative label smoothing, config name `negative`.

    .. math:: \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k, \qquad \epsilon < 0

    Use it where training labels are wrong and a network trained on them has learnt too little confidence. eps
    -0.4 to -6. It has no lower bound, so `LabelSmoothing` does not start without a warm-up of plain
    cross-entropy: say `warmup`, or give a schedule that starts at 0. In a loop of your own, `set_eps(0.0)`
    first, and the negative eps later.

    On digits, from plain cross-entropy to this with eps -0.4, warm-up 0.5; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 73.7    1.6 -> 26.3     2.1 -> 258.6
    overconfident      66.2 -> 58.4    22.8 -> 41.5    161.1 -> 394.7
    40 % wrong labels  74.3 -> 71.4    10.8 -> 24.4    91.9 -> 126.1
    =================  ==============  ==============  ================

    It did harm in all three, least where labels are wrong, which is what it is for: trust it after your own
    runs.

    Args:
        eps: 0 or below; a number, or a tensor as in [`SmoothedCrossEntropy`].
        warmup: share of training, in (0, 1), in which eps is 0; None where a schedule says it.
        weight: as in [`SmoothedCrossEntropy`].
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there; eps is above 0, warmup is no share of training.

    Example:
        >>> import torch
        >>> loss = NegativeSmoothing(eps=-0.4, warmup=0.5)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.3544)

    Source: Wei et al. 2022, arXiv:2106.04149.
    """

    allowed: ClassVar[Range] = NEGATIVE_EPS

    def __init__(
        self,
        eps: float | Values = -0.4,
        *,
        warmup: float | None = None,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        if warmup is not None and not 0 < warmup < 1:
            raise ValueError(f"warmup must be a share of training in (0, 1), got {warmup}. 0.5 is half of it.")
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
        self.warmup = warmup

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(negative_smoothing, logits, target, options)
