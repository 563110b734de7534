"""What is the same in every smoothing loss over K classes: masked classes, weights, ignored samples."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.eps import EPS, Range
from ls_lightning.functional.options import (
    Input,
    Reduction,
    Spread,
    WeightMode,
    check_options,
    compute_dtype,
)
from ls_lightning.functional.reduction import RowWeights
from ls_lightning.functional.targets import Target, per_class, read_target


class Terms(NamedTuple):
    """What a per-sample loss is made of; shapes `(N, d1, ...)` unless said.

    Attributes:
        true: -lp averaged over the target's mass; inf where a class with mass is masked.
        rest: -lp averaged over the classes that share eps.
        log_probs: `(N, K, d1, ...)`, -inf for a masked class, whatever the weights.
        eps: a number, 0-d, or what broadcasts; 0 where no class is left to take it.
        recipients: how many classes share eps.
        target: the checked target.
        available: `(N, K, d1, ...)`, False for a masked class (log-probability -inf).
        class_weight: `(1, K, 1, ...)` if every class of the target is weighted (`weight_mode="torch"`).
        spread: `"all"` or `"others"`.
    """

    true: Tensor
    rest: Tensor
    log_probs: Tensor
    eps: float | Tensor
    recipients: Tensor
    target: Target
    available: Tensor
    class_weight: Tensor | None
    spread: Spread

    @property
    def finite(self) -> Tensor:
        """The log-probabilities with 0 for a masked class, so that nothing times it is nan."""
        return self.log_probs.masked_fill(~self.available, 0)

    def per_class(self, values: float | Tensor) -> float | Tensor:
        """View what broadcasts over `(N, d1, ...)`, as `eps` does, for the logits' shape."""
        return values.unsqueeze(1) if isinstance(values, Tensor) and values.ndim else values

    def entropy(self) -> Tensor:
        """Entropy of the smoothed target, in nats."""
        distribution = self.target.dense(self.rest.dtype)
        share = self.available / self.recipients.unsqueeze(1)
        if self.spread == "others":
            share = share * (1 - distribution)
        eps = self.per_class(self.eps)
        q = (1 - eps) * distribution + eps * share
        information = -q.masked_fill(q == 0, 1).log()
        if self.class_weight is not None:
            information = self.class_weight * information
        return (q * information).sum(1)


def class_loss(
    per_sample: Callable[[Terms], Tensor],
    logits: Tensor,
    target: Tensor,
    eps: float | Tensor,
    weight: Tensor | None,
    weight_mode: WeightMode,
    ignore_index: int,
    reduction: Reduction,
    spread: Spread,
    input: Input,
    allowed: Range = EPS,
) -> Tensor:
    """Read the arguments, apply `per_sample`, weight and reduce: the same for every loss."""
    check_options(weight_mode=weight_mode, reduction=reduction, spread=spread, input=input)
    dtype = compute_dtype(logits)
    check_shapes(logits, target, weight)
    read = read_target(target, tuple(logits.shape), dtype, ignore_index)
    weight = None if weight is None else weight.to(dtype)
    terms = _terms(logits, read, eps, weight if weight_mode == "torch" else None, spread, input, allowed)
    return RowWeights.of(read, weight, weight_mode, dtype).reduce(per_sample(terms), reduction)


def check_shapes(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Refuse logits without classes, and class weights for other classes."""
    shape = tuple(logits.shape)
    if len(shape) < 2 or shape[1] < 2:
        raise ValueError(
            f"logits must be (N, K) or (N, K, d1, ...) with K >= 2, got logits {shape} and target "
            f"{tuple(target.shape)}. One logit per label is a binary loss (bce)."
        )
    if weight is not None and weight.shape != shape[1:2]:
        raise ValueError(f"weight must be {shape[1:2]} for logits {shape}, got {tuple(weight.shape)}.")


def _log_probabilities(logits: Tensor, valid: Tensor | None, input: Input) -> Tensor:
    """Return log-probabilities in float32 or better; an ignored sample's values cannot reach the loss."""
    dtype = compute_dtype(logits)
    if valid is not None:
        logits = logits.masked_fill(~valid.unsqueeze(1), 0)
    return logits.to(dtype).log_softmax(1) if input == "logits" else logits.to(dtype)


def _terms(
    logits: Tensor,
    target: Target,
    eps: float | Tensor,
    weight: Tensor | None,
    spread: Spread,
    input: Input,
    allowed: Range,
) -> Terms:
    """Reduce the class dimension to the two averages that the losses combine.

    `weight` `(K,)` weights every class of the target (`weight_mode="torch"`).
    """
    log_probs = unweighted = _log_probabilities(logits, target.valid, input)
    available = log_probs != -torch.inf
    finite = log_probs.masked_fill(~available, 0)
    class_weight = None if weight is None else per_class(weight, logits.ndim)
    if class_weight is not None:
        finite = class_weight * finite
        # A class of weight 0 does not count, not even one that is masked.
        log_probs = (class_weight * log_probs).masked_fill(class_weight == 0, 0)
    sample_eps = target.eps(eps, tuple(logits.shape), log_probs.dtype, allowed)
    true, rest = target.expectation(log_probs), finite.sum(1)
    recipients = available.sum(1).to(rest.dtype)
    if spread == "others":
        rest = rest - target.expectation(finite)
        recipients = recipients - target.expectation(available).to(rest.dtype)
        # A whole number up to rounding; with no class but the true one left, the mass stays there.
        sample_eps = (recipients > 0.5).to(rest.dtype) * sample_eps
    recipients = recipients.masked_fill(recipients < 0.5, 1)
    return Terms(
        true=-true,
        rest=-rest / recipients,
        log_probs=unweighted,
        eps=sample_eps,
        recipients=recipients,
        target=target,
        available=available,
        class_weight=class_weight,
        spread=spread,
    )
