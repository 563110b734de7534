"""Binary cross-entropy of the decisions whose label is there."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CountedBCE(nn.Module):
    r"""``nn.BCEWithLogitsLoss``, which knows no ``ignore_index``, with one.

    .. math:: \frac{1}{|C|} \sum_{i \in C} -y_i \log \sigma(z_i) - (1 - y_i) \log(1 - \sigma(z_i)),
        \quad C = \{i: y_i \ne \mathrm{ignore\_index}\}

    and 0 where C is empty. It is one call of torch's loss in which all others have weight 0, so that callbacks see
    which decisions count.

    Args:
        ignore_index: what stands where there is no label.

    Example:
        >>> CountedBCE(255)(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 255.0]))
        tensor(0.6931)
    """

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the labels ``target`` that are there, in the shape of the logits."""
        counted = target != self.ignore_index
        labels, weight = target.masked_fill(~counted, 0.0), counted.to(logits.dtype)
        total = F.binary_cross_entropy_with_logits(logits, labels, weight=weight, reduction="sum")
        return total / torch.clamp(counted.sum(), min=1)
