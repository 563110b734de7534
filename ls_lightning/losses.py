"""The losses as modules: eps is a buffer that a schedule writes, everything else is as in torch's losses.

config name   class                      per-sample loss
ce            SmoothedCrossEntropy       (1-eps)(-lp_y) + eps mean_k(-lp_k)
kl            SmoothedKLDiv              KL(q || p), eps over the K-1 others
bce           SmoothedBCEWithLogits      binary cross-entropy with (1-eps)y + eps/2
soft_ce       SoftCrossEntropy           -lp_y + eps/(1-eps) mean_k(-lp_k)
none          CrossEntropy               -lp_y
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import (
    CHOICES,
    Input,
    Reduction,
    Spread,
    WeightMode,
    check_options,
    quoted,
)
from ls_lightning.functional.smoothing import (
    smoothed_binary_cross_entropy_with_logits,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)


class SmoothedCrossEntropy(EpsBuffer):
    r"""Smoothed cross-entropy, config name `ce`.

    .. math:: \ell = -(1-\epsilon)\,lp_y - \epsilon\,\tfrac1K \textstyle\sum_k lp_k

    Use it in place of `nn.CrossEntropyLoss` in training, not in validation. eps 0.05 to 0.2. On clean
    labels it raises accuracy and makes a network underconfident; a schedule that ends at 0 keeps the one
    without the other.

    Args:
        eps: in [0, 1): a number; one per class, `(K,)`; one per sample, `(N, 1)`.
        weight: per class `(K,)`, not negative; in the state dict, as in `nn.CrossEntropyLoss`.
        weight_mode: `"sample"` keeps the optimum at the smoothed target, `"torch"` is
            `nn.CrossEntropyLoss`; see [`ls_lightning.functional.smoothed_cross_entropy`] for all options.
        ignore_index: a class index that is left out.
        reduction: `"mean"`, `"sum"`, `"none"` or `"batchmean"`.
        spread: over `"all"` classes or the K-1 `"others"`.
        input: `"logits"` or `"log_probs"`.

    Raises:
        TypeError: eps or a weight that is not made of numbers.
        ValueError: a value out of range, or an option that is not one of its choices.

    Example:
        >>> loss = SmoothedCrossEntropy(eps=0.1)
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.3669)
        >>> loss.set_eps(0.0)

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        spread: Spread = "all",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            eps,
            **_checked(
                weight=weight,
                weight_mode=weight_mode,
                ignore_index=ignore_index,
                reduction=reduction,
                spread=spread,
                input=input,
            ),
        )

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(smoothed_cross_entropy, logits, target, options)


class SmoothedKLDiv(EpsBuffer):
    r"""Kullback-Leibler divergence from the smoothed target, config name `kl`.

    .. math:: \ell = \mathrm{KL}(q\,\|\,p), \qquad q_y = 1-\epsilon, \quad q_k = \epsilon / (K-1)

    Use it where the curve of the training loss is compared between values of eps or along a schedule: its
    minimum is 0 for every eps, and its gradient that of the smoothed cross-entropy. eps 0.1, which spread
    over the others is 0.1 K/(K-1) over all.

    Args:
        eps: as in [`SmoothedCrossEntropy`].
        weight: as there.
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there; `"mean"` is over samples.
        spread: over the K-1 `"others"` or over `"all"` classes.
        input: as there.

    Raises:
        TypeError: as there.
        ValueError: as there.

    Example:
        >>> loss = SmoothedKLDiv(eps=0.1, reduction="sum")
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.8656)

    Source: Vaswani et al. 2017, arXiv:1706.03762, as in the Annotated Transformer.
    """

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        spread: Spread = "others",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            eps,
            **_checked(
                weight=weight,
                weight_mode=weight_mode,
                ignore_index=ignore_index,
                reduction=reduction,
                spread=spread,
                input=input,
            ),
        )

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(smoothed_kl_div, logits, target, options)


class SmoothedBCEWithLogits(EpsBuffer):
    r"""Smoothed binary cross-entropy, for one or many labels, config name `bce`.

    .. math:: \ell = \mathrm{BCE}(z,\, y_s), \qquad y_s = (1-\epsilon)\,y + \epsilon/2

    Use it in place of `nn.BCEWithLogitsLoss` in training. eps 0.01 to 0.1.

    Args:
        eps: in [0, 1): a number; one per label, `(L,)`; one per sample, `(N, 1)`; or of the logits' shape.
        weight: not negative, broadcasts over the logits; in the state dict, as in `nn.BCEWithLogitsLoss`.
        pos_weight: of the positive term, likewise.
        ignore_index: elements where the target has this value are left out.
        reduction: `"mean"` over the elements that are left, `"sum"`, `"none"` or `"batchmean"`.
        input: `"logits"`, or `"log_probs"` for log P(y=1).

    Raises:
        TypeError: eps or a weight that is not made of numbers.
        ValueError: a value out of range, or an option that is not one of its choices.

    Example:
        >>> loss = SmoothedBCEWithLogits(eps=0.1)
        >>> loss(torch.tensor([0.3, -1.2, 2.0, -0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0]))
        tensor(0.4047)

    Source: Zhang et al. 2019, arXiv:1902.04103; `smooth_BCE` of YOLO.
    """

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        weight: Values | None = None,
        pos_weight: Values | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        super().__init__(
            eps,
            **_checked(
                weight=weight,
                pos_weight=pos_weight,
                ignore_index=ignore_index,
                reduction=reduction,
                input=input,
            ),
        )

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N,)` or `(N, L, d1, ...)` and a target of the same shape.

        `options` replace those of the module in this call.
        """
        return self._call(smoothed_binary_cross_entropy_with_logits, logits, target, options)


class SoftCrossEntropy(EpsBuffer):
    r"""Cross-entropy plus a multiple of the uniform cross-entropy, config name `soft_ce`.

    .. math:: \ell = -lp_y - \tfrac{\epsilon}{1-\epsilon}\,\tfrac1K \textstyle\sum_k lp_k

    Use it to repeat a recipe that adds the two; eps 0.5 adds them one to one. The gradient is 1/(1-eps)
    times that of `ce`, so a learning rate does not carry over unless `normalized=True`, which is `ce`.

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
            **_checked(
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


class CrossEntropy(EpsBuffer):
    r"""Plain cross-entropy, config name `none`: what every smoothing has to be compared with.

    .. math:: \ell = -lp_y

    Use it as the baseline of a sweep over losses. It has the options of the others, and refuses to smooth.

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
            _only_zero(eps),
            **_checked(
                weight=weight,
                weight_mode=weight_mode,
                ignore_index=ignore_index,
                reduction=reduction,
                input=input,
            ),
        )

    def set_eps(self, eps: float | Tensor) -> None:
        """Accept 0, refuse anything else."""
        _only_zero(eps)

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        return self._call(smoothed_cross_entropy, logits, target, options)


class FunctionLoss(EpsBuffer):
    """A function of `(logits, target, eps)` as a loss module with an eps that can be scheduled.

    Args:
        function: called with logits, target, eps (a 0-d tensor) and the options by name.
        eps: in [0, 1).
        **options: what the function takes besides, e.g. `weight`; tensors move with the module.

    Raises:
        TypeError: the function cannot take one of the options.
        ValueError: eps is out of range.

    Example:
        >>> loss = FunctionLoss(smoothed_cross_entropy, eps=0.1, reduction="sum")
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([2]))
        tensor(1.3475)
    """

    def __init__(self, function: Callable[..., Tensor], eps: float | Values = 0.1, **options: Any) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        try:
            inspect.signature(function).bind(None, None, None, **options)
        except TypeError as error:
            wanted = ", ".join(("logits", "target", "eps", *options))
            raise TypeError(f"the loss function {name} must take ({wanted}): {error}.") from None
        super().__init__(eps, **options)
        self.function = function

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return what the function does."""
        return self._call(self.function, logits, target, options)


LOSSES: dict[str, type[EpsBuffer]] = {
    "ce": SmoothedCrossEntropy,
    "kl": SmoothedKLDiv,
    "bce": SmoothedBCEWithLogits,
    "soft_ce": SoftCrossEntropy,
    "none": CrossEntropy,
}


def build_loss(name: str, **options: Any) -> EpsBuffer:
    """Build the loss that a config calls `name`.

    Args:
        name: a key of `LOSSES`.
        **options: of its class.

    Raises:
        ValueError: no loss has this name, or an option is out of range.
        TypeError: the loss has no such option.

    Example:
        >>> build_loss("bce", eps=0.05)
        SmoothedBCEWithLogits(eps=0.05, ignore_index=-100, reduction=mean, input=logits)
    """
    return _named(name)(**options)


def usual_eps(name: str) -> float:
    """Return the default eps of the loss that a config calls `name`.

    Example:
        >>> usual_eps("ce"), usual_eps("none")
        (0.1, 0.0)
    """
    return float(inspect.signature(_named(name)).parameters["eps"].default)


def _named(name: str) -> Callable[..., EpsBuffer]:
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {quoted(LOSSES)}, got {name!r}.")
    return LOSSES[name]


def _only_zero(eps: float | Values) -> float:
    if isinstance(eps, (Tensor, Sequence)) or eps != 0:
        raise ValueError(f"loss=none is plain cross-entropy and takes eps=0, got {eps}. Use loss=ce to smooth.")
    return 0.0


def _checked(**options: Any) -> dict[str, Any]:
    """Refuse bad options before training starts; weights, which a config gives as lists, become tensors."""
    check_options(**{name: value for name, value in options.items() if name in CHOICES})
    if isinstance(options["ignore_index"], bool) or not isinstance(options["ignore_index"], int):
        raise TypeError(f"ignore_index must be an integer, got {options['ignore_index']!r}.")
    if not isinstance(options.get("normalized", False), bool):
        raise TypeError(f"normalized must be True or False, got {options['normalized']!r}.")
    for name in ("weight", "pos_weight"):
        if options.get(name) is not None:
            options[name] = _weight(name, options[name])
    weight = options["weight"]
    if "weight_mode" in options and weight is not None and weight.ndim != 1:
        raise ValueError(f"weight must hold one number per class, (K,), got shape {tuple(weight.shape)}.")
    return options


def _weight(name: str, weight: Values) -> Tensor:
    if not isinstance(weight, Tensor):
        try:
            weight = torch.tensor(list(weight), dtype=torch.float32)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a tensor or a list of numbers, got {weight!r}.") from None
    if not weight.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {weight.dtype}.")
    if not weight.is_meta and not bool((weight >= 0).all()):
        raise ValueError(f"{name} must not be negative or nan, got {weight.tolist()}.")
    return weight
