"""Plain cross-entropy, the baseline."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.smoothing import smoothed_cross_entropy
from ls_lightning.losses.checked import checked, only_zero

_NO_EPS = "loss=none is plain cross-entropy and takes eps=0, got {eps}. Use loss=ce to smooth."


class CrossEntropy(EpsBuffer):
    r"""Plain cross-entropy, config name `none`: what every smoothing has to be compared with.

    .. math:: \ell = -lp_y

    Use it as the baseline of a sweep over losses. It has the options of the others, and refuses to smooth. The ECE
    of its logits divided by a temperature is what smoothing has to beat: on digits 1.8 % (without 1.6) on clean
    labels, 5.4 % (22.8) where it is overconfident, 5.8 % (10.8) with 40 % wrong training labels, by `python
    benchmarks/regimes.py`.

    Args:
        eps: 0.
        weight: as in [`SmoothedCrossEntropy`].
        weight_mode: as there; the two differ only for target distributions.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: eps is not 0; as there.

    Example:
        >>> import torch
        >>> loss = CrossEntropy()
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.3644)

    Source: `torch.nn.CrossEntropyLoss`.
    """

    def __init__(
        self,
        eps: float = 0.0,
        *,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            only_zero(eps, _NO_EPS),
            **checked(
                weight=weight,
                weight_mode=weight_mode,
                ignore_index=ignore_index,
                reduction=reduction,
                input=input,
            ),
        )

    def set_eps(self, eps: float | Tensor) -> None:
        """Accept 0, refuse anything else."""
        only_zero(eps, _NO_EPS)

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(smoothed_cross_entropy, logits, target, options)
