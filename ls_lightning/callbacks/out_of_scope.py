"""OutOfScope: how sure a model is of input that belongs to none of its classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import lightning as L
from torch.utils.data import DistributedSampler
from typing_extensions import override

from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.quiet_pass import quiet_pass
from ls_lightning.callbacks.scaled_logits import ScaledLogits
from ls_lightning.callbacks.stage_metrics import log_values
from ls_lightning.callbacks.step_outputs import Outputs, Read, StepOutputs
from ls_lightning.callbacks.temperature_scaling import TemperatureScaling, scaled_outputs
from ls_lightning.callbacks.unknown_scores import UnknownScores
from ls_lightning.tap import Select


class OutOfScope(L.Callback):
    r"""Compare the test data with unknown input, which a model should be less sure of.

    With the score s of an input, its maximum softmax probability p or its largest logit, ``test/`` gets

    * ``oos_confidence``: mean p of the unknown inputs
    * ``oos_auroc``, ``oos_auroc_max_logit``: the probability that a test input scores higher than an unknown one,
      :func:`~ls_lightning.functional.detection.detection_auroc`
    * ``oos_fpr95``, ``oos_fpr95_max_logit``: the share of unknown inputs that score at least as high as the surest
      95 % of the test inputs, :func:`~ls_lightning.functional.detection.detection_fpr`
    * ``oos_n``: how many unknown inputs there are

    and ``test_scaled/`` the same of p after the temperature of a :class:`~ls_lightning.TemperatureScaling` in the same
    Trainer; a temperature does not change the order of largest logits. A test input counts whether it is classified
    rightly or not. Of several test loaders the first is compared.

    After the test the unknown inputs go through the step that validates, unlogged, on every rank all of them; the
    scores of the test inputs are gathered. So the values are the same on any number of ranks. Memory is 8 bytes an
    input and score.

    Args:
        loader: batches of unknown inputs, as those of the test data; targets may be any class. None asks the
            DataModule for ``ood_dataloader()``, and measures nothing where it has none.
        target: as for :class:`~ls_lightning.CalibrationMonitor`; None takes what the monitor beside it measures.
        read: the same.

    Attributes:
        results: the values, ``{"test": {"oos_auroc": ...}, "test_scaled": {...}}``, of several test loaders with
            ``/dataloader_idx_0`` behind; empty if there was no unknown input.

    Raises:
        LookupError: a step did not call a loss, or called several.
        ValueError: a loader has a ``DistributedSampler``; the loss is multi-label.

    Example:
        >>> trainer = L.Trainer(callbacks=[OutOfScope()], logger=False)

    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136; the largest logit: Hendrycks et al. 2022, arXiv:1911.11132.
    """

    def __init__(
        self, loader: Iterable[Any] | None = None, target: str | Select | None = None, read: Read | None = None
    ) -> None:
        super().__init__()
        self.loader = loader
        self.results: dict[str, dict[str, float]] = {}
        self._own = StepOutputs("OutOfScope", target or "auto", read)
        self._takes_own = target is not None or read is not None
        self._known = self._own
        self._unknown: Iterable[Any] | None = None
        self._scores: dict[str, UnknownScores] = {}
        self._scaler: ScaledLogits | None = None

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.results = {}
        self._unknown = self._find(trainer)
        if self._unknown is None:
            return
        monitor = first_of(trainer, CalibrationMonitor)
        self._known = self._own if monitor is None or self._takes_own else monitor.step_outputs
        self._known.open(trainer, pl_module, "test")
        scaling = first_of(trainer, TemperatureScaling)
        temperature = None if scaling is None else scaling.temperature
        self._scaler = None if temperature is None else ScaledLogits(temperature).to(pl_module.device)
        self._scores = {"test": UnknownScores()}
        if self._scaler is not None:
            self._scores["test_scaled"] = UnknownScores(max_logit=False)

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._unknown is not None:
            found = self._known.of_batch(pl_module, batch, outputs, batch_idx, dataloader_idx)
            if dataloader_idx == 0:
                self._add(found, known=True)

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._unknown is None or self._known.given_up:
            return
        reader = StepOutputs("OutOfScope", self._known.target, self._known.read)
        reader.open(trainer, pl_module, "val", [self._unknown])
        try:
            for batch_idx, batch, outputs in quiet_pass(trainer, pl_module, self._unknown, math.inf):
                self._add(reader.of_batch(pl_module, batch, outputs, batch_idx, 0), known=False)
        finally:
            reader.forget()
        suffix = "" if self._known.num_loaders == 1 else "/dataloader_idx_0"
        self.results = {stage + suffix: scores.measure() for stage, scores in self._scores.items()}
        for stage in self._scores:
            log_values(trainer, pl_module, stage, {stage + suffix: self.results[stage + suffix]})

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._known.close()
        self._forget()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._forget()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._forget()

    def _find(self, trainer: L.Trainer) -> Iterable[Any] | None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        make = getattr(data, "ood_dataloader", None)
        loader = self.loader if self.loader is not None or make is None else make()
        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            raise ValueError(
                "OutOfScope passes all unknown input on every rank, got a loader with a DistributedSampler, which "
                "leaves some out. Use a plain DataLoader."
            )
        return loader

    def _add(self, found: Outputs | None, known: bool) -> None:
        if found is None:
            return
        self._scores["test"].add(found, known)
        if self._scaler is not None:
            self._scores["test_scaled"].add(scaled_outputs(found, self._scaler), known)

    def _forget(self) -> None:
        self._own.forget()
        self._unknown = self._scaler = None
        self._scores = {}
