"""Smoothed cross-entropy of a last layer whose logits are never all in memory."""

from typing import Any

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.linear_smoothing import linear_smoothed_cross_entropy
from ls_lightning.functional.options import Reduction, Spread, WeightMode
from ls_lightning.losses.checked import checked


class LinearSmoothedCrossEntropy(EpsBuffer):
    r"""Smoothed cross-entropy of `input @ weight.T + bias`, for large vocabularies.

    .. math::
        \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k, \qquad
        lp = \log\mathrm{softmax}(W x + b)

    Use it in place of the last layer and its loss in training: the layer's weight is given in each call and stays a
    parameter of the model. In validation call the layer itself. It has no config name, since no `LightningModule` of
    other people calls a loss so.

    Args:
        eps: in [0, 1): a number; one per class, `(K,)`; one per sample, `(N, 1)`.
        class_weight: per class `(K,)`, not negative; in the state dict.
        weight_mode: as in [`SmoothedCrossEntropy`].
        ignore_index: a class index that is left out.
        reduction: `"mean"`, `"sum"`, `"none"` or `"batchmean"`.
        spread: over `"all"` classes or the K-1 `"others"`.

    Raises:
        TypeError: eps or a weight that is not made of numbers.
        ValueError: a value out of range, or an option that is not one of its choices.

    Example:
        >>> import torch
        >>> head, loss = torch.nn.Linear(16, 1000), LinearSmoothedCrossEntropy(eps=0.1)
        >>> hidden, target = torch.randn(2, 8, 16), torch.randint(1000, (2, 8))
        >>> loss(hidden, head.weight, target, bias=head.bias).backward()
        >>> head.weight.grad.shape
        torch.Size([1000, 16])

    Source: see [`ls_lightning.functional.linear_smoothed_cross_entropy`].
    """

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        class_weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        spread: Spread = "all",
    ) -> None:
        options = checked(
            weight=class_weight,
            weight_mode=weight_mode,
            ignore_index=ignore_index,
            reduction=reduction,
            spread=spread,
        )
        super().__init__(eps, class_weight=options.pop("weight"), **options)

    def forward(
        self, input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Return the loss of inputs `(N, d1, ..., H)` of a layer with `weight` `(K, H)` and class indices.

        `options` replace those of the module in this call.
        """
        own = {name: getattr(self, name) for name in self._names}
        eps = self._eps_for(input)
        return linear_smoothed_cross_entropy(input, weight, target, eps, bias=bias, **{**own, **options})
