"""A file beside a LightningModule's own, in which its author keeps the losses."""

import functools

from torch.nn import functional as F
from torch.nn.functional import cross_entropy
from torch.nn.functional import cross_entropy as renamed_cross_entropy


def imported(logits, target):
    return cross_entropy(logits, target)


def renamed(logits, target):
    return renamed_cross_entropy(logits, target)


def by_default(logits, target, function=F.cross_entropy):
    return function(logits, target)


def closure(**options):
    function = F.cross_entropy

    def loss(logits, target):
        return function(logits, target, **options)

    return loss


partial = functools.partial(F.cross_entropy, ignore_index=-1)
table = {"loss": F.cross_entropy}
