"""FitOnValidation: gather the logits of a validation run, and fit one temperature to those of all ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from ls_lightning.callbacks.logit_store import LogitStore
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.outputs import Scores, Spec
from ls_lightning.functional.temperature import BOUNDS, TemperatureFit, check_bounds, fit_rows


class FitOnValidation:
    """The fit of :class:`~ls_lightning.TemperatureScaling`, and what is to be said of it.

    Args:
        bounds: the least and the greatest temperature.
        max_values: logits to keep, over all ranks.
        seed: of the sample of rows, where they are more.
        offload: keep the logits on the CPU.

    Attributes:
        found: the last fit; None before it, or if there was nothing to fit to.
        share: of the rows that were used.
        step: the optimizer step of the weights that it belongs to.
        input: what it was fitted to: ``"logits"``, or ``"probs"`` of a sigmoid.

    Raises:
        ValueError: ``bounds`` or ``max_values`` is out of range.
    """

    def __init__(
        self, bounds: Sequence[float] = BOUNDS, max_values: int = 2**26, seed: int = 0, offload: bool = False
    ) -> None:
        self.bounds = check_bounds(bounds)
        if isinstance(max_values, bool) or not isinstance(max_values, int) or max_values < 1:
            raise ValueError(f"max_values must be an integer larger than 0, got {max_values!r}.")
        self._keeping: dict[str, Any] = {"max_values": max_values, "seed": seed, "offload": offload}
        self.found: TemperatureFit | None = None
        self.share = 1.0
        self.step = 0
        self.input: Scores = "logits"
        self._store: LogitStore | None = None
        self._said: set[str] = set()

    def start(self) -> None:
        """Let go of what was kept."""
        self._store = None

    def add(self, trainer: L.Trainer, outputs: Outputs) -> None:
        """Keep a batch."""
        if self._store is None:
            self._store = self._new_store(trainer, Spec(**outputs.options))
        self._store.add(outputs.logits, outputs.target, outputs.samples)

    def fit(self, trainer: L.Trainer, device: torch.device) -> None:
        """Fit to what was kept on all ranks; every rank has to call it, with data or without."""

        def over_ranks(sums: Tensor) -> Tensor:
            if trainer.world_size == 1:
                return sums
            total: Tensor = trainer.strategy.reduce(sums.to(device), reduce_op="sum")
            return total.cpu()

        store, self._store = self._store or self._new_store(trainer, Spec()), None
        self.found, self.step = None, trainer.global_step
        rows = store.rows(over_ranks)
        self.share, self.input = store.share, store.spec.input
        try:
            self.found = fit_rows(rows, store.spec, self.bounds, over_ranks)
        except ValueError as error:
            rank_zero_warn(f"TemperatureScaling fitted nothing: {error}")
        if self.found is not None and math.isinf(self.found.nll_after):
            self._say(
                "TemperatureScaling leaves out validation samples whose label has probability 0, which no temperature "
                "mends. If probabilities are rounded to 0 or 1, give the loss logits: "
                "binary_cross_entropy_with_logits."
            )
        if self.share < 1:
            self._say(
                f"TemperatureScaling fits to {self.share:.3g} of the validation rows, since all would be more than "
                f"max_values={self._keeping['max_values']} logits."
            )
        if getattr(getattr(trainer, "datamodule", None), "noisy_validation", False):
            self._say(
                "TemperatureScaling fits to validation labels that are noisy, as noisy_validation of the data says, so "
                "T calibrates to the noise. Validate on clean labels."
            )

    def warn_of_boundary(self) -> None:
        """Say that the fit means little; of every job of a process, where Python would show equal words once."""
        if self.found is None or not self.found.at_boundary or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return
        temperature, n = self.found.temperature, self.found.n
        least = temperature == self.bounds[0]
        why = "every validation sample is classified right" if least else "the logits do not tell the labels"
        words = (
            f"T = {temperature:g} is the {'lower' if least else 'upper'} end of bounds={self.bounds}: the NLL on {n} "
            f"validation samples falls on beyond it, as it does where {why}. Do not trust it."
        )
        warnings.warn_explicit(words, UserWarning, __file__, 1)  # without a registry of what was said

    def _new_store(self, trainer: L.Trainer, spec: Spec) -> LogitStore:
        return LogitStore(spec, rank=trainer.global_rank, world_size=trainer.world_size, **self._keeping)

    def _say(self, words: str) -> None:
        """Once, not in every epoch."""
        if words not in self._said:
            self._said.add(words)
            rank_zero_warn(words)
