"""What metrics have in common that depend on the order of samples by confidence: one sketch, or one key a sample."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from ls_lightning.functional.levels import Levels, exact_levels, num_invalid, sample_keys
from ls_lightning.functional.options import quoted
from ls_lightning.functional.outputs import like
from ls_lightning.functional.ranking import Ranking
from ls_lightning.functional.sketch import add_to_sketch, empty_sketch, read_sketch
from ls_lightning.metrics.base import Places, SumMetric

Mode = Literal["sketch", "exact"]


class RankingMetric(SumMetric):
    """A metric that is read off samples in order of confidence; subclasses say in `read` and `interval` how.

    Args:
        ranking: how samples are read and ranked.
        mode: `"sketch"`: a state of 0.4 MB (0.8 MB for `"max_logit"` and P(y=1)) whatever the number of samples, with
            certified `bounds()`; `"exact"`: 8 bytes a sample, gathered over ranks. Either way the value has the same
            bits for any batch size, batch order and number of ranks.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, ranking: Ranking, mode: Mode, **kwargs: Any) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {quoted(get_args(Mode))}, got {mode!r}.")
        super().__init__(**kwargs)
        self.ranking = ranking
        self.mode = mode
        name = f"{mode}_{ranking.key}"
        if mode == "sketch":
            self._add_sums(name, empty_sketch(ranking))
        else:
            self._state = name
            self.add_state(name, [], dist_reduce_fx="cat")

    def read(self, levels: Levels) -> Tensor:
        """Read the metric off levels of all batches and ranks."""
        raise NotImplementedError

    def interval(self, levels: Levels) -> tuple[Tensor, Tensor]:
        """Read off the least and the greatest value that some order within levels gives."""
        raise NotImplementedError

    @override
    def update(self, logits: Tensor, target: Tensor) -> None:
        if self.mode == "sketch":
            super().update(logits, target)
        else:
            getattr(self, self._state).append(sample_keys(logits, target, self.ranking))

    @override
    def add(self, sums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        return add_to_sketch(sums, logits, target, self.ranking)

    @override
    def _places(self) -> Places | None:
        if self._pass is not None or self.mode == "exact" or not self.ranking.by_confidence:
            return super()._places()
        return Places(None, self.sums, self.ranking.outputs)

    @override
    def compute(self) -> Tensor:
        """Return the value over all batches and ranks, float64; NaN if nothing was counted."""
        return super().compute() if self.mode == "sketch" else like(self.read(self._levels()), self._keys())

    @override
    def measure(self, sums: Tensor) -> Tensor:
        """Read the metric off the sketch's sums over all batches and ranks."""
        return self.read(read_sketch(sums, self.ranking.outputs.nan_policy))

    def bounds(self, sums: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return lower and upper value, certain whatever the order within cells; float64 on the CPU.

        Args:
            sums: a sketch's over all ranks; None reads this metric's, and every rank has to ask.
        """
        if sums is not None:
            return self.interval(read_sketch(sums, self.ranking.outputs.nan_policy))
        return self.interval(self.total_levels())

    def total_levels(self) -> Levels:
        """Return the levels over all ranks; every rank has to call it."""
        if self._is_synced:
            return self._levels()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._levels()

    @property
    @override
    def sums(self) -> Tensor:
        """This rank's sketch, int64 `(num_cells + 1, 3)`.

        Raises:
            RuntimeError: the mode is `"exact"`.
        """
        if self.mode == "exact":
            raise RuntimeError(
                f"{type(self).__name__}(mode='exact') keeps a number for each sample and has no sums: compute() it, or "
                "use mode='sketch'."
            )
        sums: Tensor = getattr(self, self._state)
        return sums

    @sums.setter
    def sums(self, sums: Tensor) -> None:
        setattr(self, self._state, sums)

    @property
    def num_samples(self) -> int:
        """The number of samples counted, over all ranks; every rank has to ask."""
        return int(self.total_levels().n.sum())

    @property
    def num_omitted(self) -> int:
        """The number of samples left out by `nan_policy="omit"`, over all ranks; every rank has to ask."""
        if self.ranking.outputs.nan_policy == "raise":
            return 0
        if self._is_synced:
            return self._num_invalid()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._num_invalid()

    def _levels(self) -> Levels:
        policy = self.ranking.outputs.nan_policy
        return read_sketch(self.sums, policy) if self.mode == "sketch" else exact_levels(self._keys(), policy)

    def _num_invalid(self) -> int:
        return int(self.sums[-1, 1]) if self.mode == "sketch" else num_invalid(self._keys())

    def _keys(self) -> Tensor:
        found: Tensor | Sequence[Tensor] = getattr(self, self._state)  # a tensor once ranks are gathered
        tensors = [found] if isinstance(found, Tensor) else found
        return torch.cat([torch.empty(0, dtype=torch.int64, device=self.device), *tensors])

    @override
    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if self.mode == "exact":  # torchmetrics would gather floats from a rank without samples
            setattr(self, self._state, [self._keys()])
        super()._sync_dist(*args, **kwargs)
