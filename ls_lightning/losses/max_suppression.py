"""Cross-entropy with a penalty on the largest logit."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.penalties import max_suppression
from ls_lightning.losses.checked import checked


class MaxSuppression(EpsBuffer):
    r"""Cross-entropy plus a penalty on the largest logit, config name `max_suppression`.

    .. math:: \ell = -lp_y + \epsilon\,(\max_k z_k - \bar z)

    Use it in place of smoothing where wrong predictions are many: smoothing rewards confidence in a wrong
    class, this does not. eps 0.1; the paper lets it grow from 0.1 to 0.2. A schedule moves eps.

    On digits, from plain cross-entropy to this with eps 0.1; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 98.0    1.6 -> 12.1     2.1 -> 0.8
    overconfident      66.2 -> 65.2    22.8 -> 5.1     161.1 -> 168.5
    40 % wrong labels  74.3 -> 73.6    10.8 -> 17.3    91.9 -> 97.3
    =================  ==============  ==============  ================

    It does what `ce` does where labels are right, and did not gain where they are wrong.

    Args:
        eps: weight of the penalty in [0, 1), as in [`SmoothedCrossEntropy`]; 0 is cross-entropy.
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
        >>> loss = MaxSuppression(eps=0.1)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.3719)

    Source: Zhou et al. 2025, arXiv:2502.15798.
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
        return self._call(max_suppression, logits, target, options)
