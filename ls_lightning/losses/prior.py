"""Smoothing towards class frequencies or similar classes."""

from typing import Any, Literal, cast

from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.losses.checked import checked
from ls_lightning.losses.prior_values import Prior, read_prior

Source = Literal["frequencies", "hierarchy"]


class PriorSmoothing(EpsBuffer):
    r"""Smoothing towards a prior instead of all classes alike, config name `prior`.

    .. math:: \ell = -(1-\epsilon)\,lp_y - \epsilon \textstyle\sum_k \pi_k\,lp_k

    Use it where classes are of very different frequency, which uniform smoothing would even out; or with a
    matrix, whose row y says how the mass of class y is shared, to make the mistakes milder. eps 0.1; more with
    a matrix that leaves most of a row to its own class. A schedule moves eps.

    On digits, from plain cross-entropy to this with class frequencies and eps 0.1; means of 5 seeds on test by
    `python benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 98.1    1.6 -> 12.5     2.1 -> 0.7
    overconfident      66.2 -> 64.4    22.8 -> 4.3     161.1 -> 170.7
    40 % wrong labels  74.3 -> 76.5    10.8 -> 19.3    91.9 -> 77.2
    =================  ==============  ==============  ================

    The digits are even in number, so this is what `ce` does.

    Args:
        eps: as in [`SmoothedCrossEntropy`].
        prior: `"frequencies"` of the training labels, counted by `LabelSmoothing` as training starts;
            `"hierarchy"`: the similarity of class names such as `animal/cat`, nested folders of an image folder,
            see [`ls_lightning.functional.class_similarity`]; counts or frequencies `(K,)`; a matrix `(K, K)`
            whose rows have the sum 1; or the path of a .npy, .npz, .csv or .pt file with one of the two.
        beta: of the hierarchy, 4 if None; for no other prior.
        weight: as in [`SmoothedCrossEntropy`].
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Raises:
        TypeError: as there; a prior that is not made of numbers.
        ValueError: as there; a prior that is none.
        FileNotFoundError: there is no such file.

    Example:
        >>> import torch
        >>> loss = PriorSmoothing(eps=0.1, prior=[3, 4, 2, 1])
        >>> loss(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1]]), torch.tensor([2, 3]))
        tensor(1.3689)

    Source: Pereyra et al. 2017, arXiv:1701.06548; rows by class: Bertinetto et al. 2020, arXiv:1912.09393.
    """

    prior: Tensor | None

    def __init__(
        self,
        eps: float | Values = 0.1,
        *,
        prior: Prior = "frequencies",
        beta: float | None = None,
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
        if beta is not None and prior != "hierarchy":
            raise ValueError(f"beta belongs to prior='hierarchy', got beta={beta} with another prior. Leave it away.")
        named = isinstance(prior, str) and prior in ("frequencies", "hierarchy")
        self.source = cast(Source, prior) if named else None
        self.beta = 4.0 if beta is None else beta
        self.register_exact("prior", None if named else read_prior(prior))
        self._names = ("prior", *self._names)

    def set_prior(self, prior: Prior) -> None:
        """Write another prior, of the forms that the constructor takes as numbers or file."""
        values = read_prior(prior)
        self.prior = values.to(self.eps.device)

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions.

        `options` replace those of the module in this call.
        """
        if self.prior is None:
            raise RuntimeError(
                f"prior={self.source!r} is read from the data by LabelSmoothing as training starts, and was not yet. "
                "Without it, give the prior as numbers or a file."
            )
        return self._call(prior_smoothing, logits, target, options)

    def extra_repr(self) -> str:
        """Name the source of a prior that is not known yet."""
        return super().extra_repr() + (f", prior={self.source}" if self.prior is None else "")
