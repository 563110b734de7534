"""Online label smoothing: the soft labels are what the network itself said of each class."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ls_lightning.eps_buffer import EpsBuffer, Values
from ls_lightning.functional.options import Input, Reduction, WeightMode, compute_dtype
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.losses.checked import checked

_ONE = 2**32
_STATE = ("matrix", "sums", "counts", "epoch")


class OnlineLabelSmoothing(EpsBuffer):
    r"""Online label smoothing, config name `online`.

    .. math::
        \ell = -(1-\epsilon)\,lp_y - \epsilon \textstyle\sum_k S_{yk}\,lp_k, \qquad
        S_y = \text{mean of } p \text{ over the samples of class } y \text{ that were right in the last epoch}

    Use it where classes are alike to different degrees: the mass goes to those that the network confuses. eps
    0.5, the 1 - alpha of the paper; `eps` on the command line and a schedule move it. In the first epoch S is
    the target that `ce` smooths by `smoothing`; a class without a right sample keeps its row.

    `LabelSmoothing` calls `start_epoch`, and keeps S in the checkpoint. The sums are of integers over all ranks,
    so every rank has the same S, and so has a run that was resumed; but a checkpoint that an exception leaves has
    of a broken epoch what rank 0 counted alone, which a resumed run says. In a loop of your own call
    `start_epoch(epoch)` before each epoch, and `eval()` for validation, which must not be counted.

    On digits, from plain cross-entropy to this with eps 0.5; means of 5 seeds on test by `python
    benchmarks/regimes.py`, intervals in `docs/results.md`:

    =================  ==============  ==============  ================
    regime             accuracy %      ECE %           AURC x 1000
    =================  ==============  ==============  ================
    clean labels       97.0 -> 98.0    1.6 -> 1.6      2.1 -> 0.9
    overconfident      66.2 -> 64.8    22.8 -> 14.4    161.1 -> 160.2
    40 % wrong labels  74.3 -> 77.1    10.8 -> 25.8    91.9 -> 77.8
    =================  ==============  ==============  ================

    It gains what `ce` does and keeps the confidence where labels are right; where they are wrong it loses more.

    Args:
        eps: as in [`SmoothedCrossEntropy`].
        num_classes: K; None takes it from the first batch.
        smoothing: of S in the first epoch, in [0, 1].
        weight: as in [`SmoothedCrossEntropy`].
        weight_mode: as there.
        ignore_index: as there.
        reduction: as there.
        input: as there.

    Attributes:
        matrix: S, `(K, K)`, row y for the true class y; None before the first batch.

    Raises:
        TypeError: as there.
        ValueError: as there; smoothing or num_classes is out of range.

    Example:
        >>> loss = OnlineLabelSmoothing(eps=0.5, smoothing=0.1)
        >>> logits, target = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0]]), torch.tensor([1, 0])
        >>> for epoch in range(2):
        ...     loss.start_epoch(epoch)
        ...     print(loss(logits, target))
        tensor(0.5212)
        tensor(0.6917)

    Source: Zhang et al. 2021, arXiv:2011.12562.
    """

    matrix: Tensor | None
    sums: Tensor | None
    counts: Tensor | None
    epoch: Tensor | None

    def __init__(
        self,
        eps: float | Values = 0.5,
        *,
        num_classes: int | None = None,
        smoothing: float = 0.1,
        weight: Values | None = None,
        weight_mode: WeightMode = "sample",
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        input: Input = "logits",
    ) -> None:
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing must be in [0, 1], got {smoothing}. It is that of the first epoch.")
        if num_classes is not None and not num_classes >= 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
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
        self.num_classes = num_classes
        self.smoothing = smoothing
        self._started = 0
        for name in _STATE:
            self.register_exact(name, None, persistent=True)
        if num_classes is not None:
            self._allocate(num_classes, self.eps.device)

    def start_epoch(self, epoch: int) -> None:
        """Let what was counted in another epoch become the soft labels; on every rank, before each epoch."""
        self._started = epoch
        if self.matrix is None or self.sums is None or self.counts is None or self.epoch is None:
            return
        if int(self.epoch) != epoch:
            sums, counts = self._over_ranks()
            means = sums.cpu().double() / _ONE / counts.cpu().clamp(min=1).unsqueeze(1)
            seen = (counts > 0).unsqueeze(1)
            self.matrix.copy_(torch.where(seen, means.to(self.matrix), self.matrix))
            self.sums.zero_()
            self.counts.zero_()
        self.epoch.fill_(epoch)

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss of logits `(N, K, d1, ...)` and class indices or distributions, and count them.

        A distribution counts for its largest class. `options` replace those of the module in this call.
        """
        if self.matrix is None and logits.ndim > 1:
            self._allocate(logits.shape[1], logits.device)
        options = {"prior": self.matrix, **options}
        loss = self._call(prior_smoothing, logits, target, options)
        if self.training:
            self._count(logits.detach(), target, options.get("ignore_index", self.ignore_index))
        return loss

    def reset(self) -> None:
        """Forget all epochs."""
        if self.matrix is not None:
            self._allocate(len(self.matrix), self.matrix.device)

    def epoch_state(self, over_ranks: bool) -> dict[str, Tensor]:
        """The state, with the counts of this rank or of all; the latter must be asked for on every rank.

        `part` is there, and true, if other ranks have counted what is not in it.
        """
        state = {name: getattr(self, name) for name in _STATE if getattr(self, name) is not None}
        if state and over_ranks:
            state["sums"], state["counts"] = self._over_ranks()
        elif state and _num_ranks() > 1:
            state["part"] = torch.tensor(True)
        return {name: value.clone() for name, value in state.items()}

    def load_epoch_state(self, state: dict[str, Tensor], rank: int = 0) -> None:
        """Go on from `epoch_state(over_ranks=True)`; what was counted goes to rank 0."""
        if not state:
            return
        self._allocate(len(state["matrix"]), self.eps.device)
        for name in _STATE:
            getattr(self, name).copy_(state[name] if rank == 0 or name in ("matrix", "epoch") else 0)

    def _allocate(self, num_classes: int, device: torch.device) -> None:
        self.matrix = (1 - self.smoothing) * torch.eye(num_classes, device=device) + self.smoothing / num_classes
        self.sums = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.epoch = torch.tensor(self._started, device=device)

    @torch.no_grad()
    def _count(self, logits: Tensor, target: Tensor, ignore_index: int) -> None:
        """Add p, in units of 2^-32, of the samples that are classified rightly."""
        if self.sums is None or self.counts is None:
            return
        probs = logits.to(compute_dtype(logits)).softmax(1)
        label = target.argmax(1) if target.is_floating_point() else target.long()
        right = (probs.argmax(1) == label) & (label != ignore_index)
        label = label.masked_fill(~right, 0).flatten()
        units = (probs * _ONE).round().long() * right.unsqueeze(1)
        self.sums.index_add_(0, label, units.movedim(1, -1).flatten(0, -2))
        self.counts.index_add_(0, label, right.flatten().long())

    def _over_ranks(self) -> tuple[Tensor, Tensor]:
        assert self.sums is not None
        assert self.counts is not None
        sums, counts = self.sums.clone(), self.counts.clone()
        if _num_ranks() > 1:
            dist.all_reduce(sums)
            dist.all_reduce(counts)
        return sums, counts

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}matrix")
        if saved is not None and self.matrix is None:
            self._allocate(len(saved), self.eps.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _num_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
