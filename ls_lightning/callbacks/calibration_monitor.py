"""CalibrationMonitor: measure accuracy and calibration in validation, test and training, whatever the module logs."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import nn
from torchmetrics import MetricCollection
from typing_extensions import override

from ls_lightning.callbacks.idle_hooks import skip_idle_hooks
from ls_lightning.callbacks.only_call import Step
from ls_lightning.callbacks.stage_metrics import Build, Measured, StageMetrics, by_loader, log_values
from ls_lightning.callbacks.step_outputs import Read, Stage, StepOutputs
from ls_lightning.callbacks.train_metrics import TrainMetrics
from ls_lightning.callbacks.train_outputs import TrainOutputs
from ls_lightning.functional.measures import ReliabilityBins
from ls_lightning.metrics import default_metrics
from ls_lightning.tap import Select


class CalibrationMonitor(L.Callback):
    """Log ``val/`` and ``test/`` accuracy, NLL, Brier, ECE, MCE, signed gap and overconfidence error.

    Sees the logits and targets with which the module calls its loss in ``validation_step`` and ``test_step``, however
    it calls it; the module and its own logging are not touched. The sums are integers, so values do not depend on
    batch sizes, and under DDP the samples that the sampler repeats to even out the ranks are not counted. With several
    loaders keys end in ``/dataloader_idx_0``, ...

    Args:
        num_bins: confidence bins, at least 1.
        metrics: called with ``task=``, ``num_classes=``, ``ignore_index=`` and, for probabilities, ``input="probs"``;
            returns a ``MetricCollection``. Those of :mod:`ls_lightning.metrics` are added up over ranks all at once,
            others by themselves.
            None: :func:`~ls_lightning.metrics.default_metrics` with ``num_bins``.
        target: which call of a loss is measured: ``"auto"`` for the only one in a step; the dotted path of a loss
            module of any class; or a predicate on the :class:`~ls_lightning.tap.LossCall`.
        read: called with ``(module, batch, outputs)`` after each step, returns ``(logits, target)``; for a module that
            calls no loss in validation.
        strict: False warns and measures nothing where True raises a LookupError.
        train: measure the training steps too, and log ``train/nll``, ``train/ece``, ... at the end of each epoch: over
            its batches, each with the logits and the hard labels that the loss was called with, before the weights
            changed. So ``train/nll`` is not smoothed, and runs of different eps can be compared.

    In training every batch counts once, also one that an optimizer runs several times, and all ranks' batches as they
    were trained on; one whose step returned None does not count. A checkpoint keeps the sums of an unfinished epoch
    (not those of other packages' metrics; of several ranks none after an exception). ``read`` gets what Lightning
    hands on of a training step: a dict with ``"loss"``. Targets that are mixtures of classes (mixup) have no label: an
    error in the first step, left out with a warning later.

    A key that the module logs in its steps, e.g. ``val/acc``, is left to the module; ours is in ``results`` all the
    same. (Logged in its ``on_validation_epoch_end``, which runs after ours, it would be there twice: Lightning's
    error.) Labels to which a binary loss gives weight 0 are not counted.

    Attributes:
        results: per stage (``"val"``, ``"test"``, ``"train"``; with several loaders ``"val/dataloader_idx_0"``, ...)
            the last values as Python floats, with ``n``, the number of samples measured.
        measured: the same with the sums that they were read off.
        step_outputs: where logits and targets come from; other callbacks may share it.

    Raises:
        LookupError: a step did not call a loss, or called several, or trains on mixtures of classes.

    Example:
        >>> trainer = L.Trainer(callbacks=[CalibrationMonitor()], logger=False)
    """

    def __init__(
        self,
        num_bins: int = 15,
        metrics: Build | None = None,
        target: str | Select = "auto",
        read: Read | None = None,
        strict: bool = True,
        train: bool = False,
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.metrics = metrics
        self.step_outputs = StepOutputs("CalibrationMonitor", target, read, strict)
        self.results: dict[str, dict[str, float]] = {}
        self.measured: dict[str, Measured] = {}
        outputs = TrainOutputs("CalibrationMonitor", target, read, strict)
        self._training = TrainMetrics(outputs, self.build) if train else None
        self._stage_metrics = StageMetrics(self.build, 0)
        self.build(task="multiclass", num_classes=2)  # a wrong option is an error now

    def build(self, **kwargs: Any) -> MetricCollection:
        """A new collection of what is measured."""
        if self.metrics is None:
            return default_metrics(num_bins=self.num_bins, **kwargs)
        fits = callable(self.metrics) and not isinstance(self.metrics, nn.Module)
        found: object = self.metrics(**kwargs) if fits else None
        if not isinstance(found, MetricCollection):
            given = getattr(self.metrics, "__name__", repr(self.metrics))
            raise TypeError(
                f"metrics must be a function of task=, num_classes=, ... that returns a MetricCollection, got {given}."
            )
        return found

    @property
    def reliability(self) -> dict[str, ReliabilityBins]:
        """Per stage the bins of the reliability diagram."""
        return {key: found.reliability for key, found in self.measured.items() if found.reliability is not None}

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self in trainer.callbacks:  # type: ignore[attr-defined]  # else another one calls its hooks
            idle = [] if self._training else [CalibrationMonitor.on_train_batch_end]
            skip_idle_hooks([self], *idle)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._training is not None:
            self._training.open(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._training is not None:
            self._training.add(pl_module, batch, outputs, first=batch_idx == 0)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._training is not None:
            self._show(trainer, pl_module, "train", self._training.measure(trainer, pl_module))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._training is not None:
            self._training.close()

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, "val")

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, "test")

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        found = self.step_outputs.of_batch(pl_module, batch, outputs, batch_idx, dataloader_idx)
        if found is not None:
            self._stage_metrics.update(dataloader_idx, found)

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
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "test")

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step_outputs.close()

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step_outputs.close()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._forget(failed=True)

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._forget()

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._training is not None:
            self._training.save(trainer, pl_module, checkpoint)

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._training is not None:
            self._training.load(checkpoint)

    def _open(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Stage) -> None:
        self.step_outputs.open(trainer, pl_module, stage)
        self._stage_metrics.reset(self.step_outputs.num_loaders)

    def _forget(self, failed: bool = False) -> None:
        self.step_outputs.forget()
        if self._training is not None:
            self._training.close(failed)
        self._stage_metrics = StageMetrics(self.build, 0)

    def _compute(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Stage) -> None:
        if not (trainer.sanity_checking or self.step_outputs.given_up):
            found = by_loader(stage, self._stage_metrics.measure(trainer, pl_module.device))
            self._show(trainer, pl_module, stage, found)
        self._stage_metrics.reset(0)

    def _show(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Step, found: dict[str, Measured]) -> None:
        self.measured.update(found)
        self.results.update({key: one.values for key, one in found.items()})
        log_values(trainer, pl_module, stage, {key: self.results[key] for key in found})
