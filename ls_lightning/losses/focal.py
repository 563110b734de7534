"""Focal loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.eps import GAMMA, check_eps
from ls_lightning.functional.focal import focal_loss
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.losses.checked import checked, only_zero

_NO_EPS = "loss=focal has gamma in the place of eps and takes eps=0, got {eps}. Use loss.gamma, e.g. 3."


class FocalLoss(EpsBuffer):
    r"""Focal loss, config name `focal`.

    .. math:: \ell = -(1 - p_y)^\gamma\,lp_y

    Use it where a network is overconfident or classes are rare: it counts well classified samples
    less. gamma 1 to 5, 3 for calibration. `eps` on the command line is refused: there is none, the parameter is
    `loss.gamma`, which no schedule moves.

    On digits, from plain cross-entropy to this with gamma 3; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 97.0    1.6 -> 5.1      2.1 -> 2.2
    overconfident      66.2 -> 65.5    22.8 -> 12.2    161.1 -> 164.9
    40 % wrong labels  74.3 -> 68.2    10.8 -> 17.2    91.9 -> 153.6
    =================  ==============  ==============  ================

    It halves overconfidence, and costs much accuracy where labels are wrong.

    Args:
        eps: 0. The loss has no eps, so it refuses any other, and a schedule that leaves 0.
        gamma: 0 or more, 0 is cross-entropy; a number; one per class, `(K,)`; one per sample, `(N, 1)`.
        weight: per class `(K,)`, the alpha of the paper; see [`SmoothedCrossEntropy`].
        weight_mode: as there; the two differ only for target distributions.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there; eps is not 0, gamma is negative.

    Example:
        >>> loss = FocalLoss(gamma=3.0)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(0.5631)

    Source: Lin et al. 2017, arXiv:1708.02002; for calibration: Mukhoti et al. 2020, arXiv:2002.09437.
    """

    def __init__(
        self,
        eps: float = 0.0,
        *,
        gamma: float | Values = 3.0,
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
        self._names = ("gamma", *self._names)
        gamma = _checked_gamma(gamma)
        if isinstance(gamma, Tensor):
            self.register_exact("gamma", gamma)
        else:
            self.gamma = gamma

    def set_eps(self, eps: float | Tensor) -> None:
        """Accept 0, refuse anything else."""
        only_zero(eps, _NO_EPS)

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(_focal_loss, logits, target, options)


def _focal_loss(logits: Tensor, target: Tensor, eps: Tensor, **options: Any) -> Tensor:
    return focal_loss(logits, target, **options)


def _checked_gamma(gamma: float | Values) -> float | Tensor:
    """A number, or a tensor in which one for each class is `(1, K)`: as many samples as classes are no riddle then."""
    if isinstance(gamma, Sequence) and not isinstance(gamma, str):
        gamma = torch.tensor(list(gamma), dtype=torch.float32)
    check_eps(gamma, GAMMA)
    if not isinstance(gamma, Tensor):
        return float(gamma)
    if not gamma.is_meta and not bool(GAMMA.holds(gamma).all()):
        raise ValueError(f"gamma must be in {GAMMA}, got {gamma.tolist()}. {GAMMA.advice}")
    return gamma.unsqueeze(0) if gamma.ndim == 1 else gamma
