"""CalibrationMonitor: measure accuracy and calibration in validation and test, whatever the module logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DistributedSampler
from torchmetrics import MetricCollection
from typing_extensions import override

from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.functional.measures import ReliabilityBins, reliability_bins
from ls_lightning.metrics import CalibrationMetric, default_metrics
from ls_lightning.tap import LossCall, Select, Tap

_STAGES: dict[str, Literal["val", "test"]] = {"validation_step": "val", "test_step": "test"}

Read = Callable[[Any, Any, Any], tuple[Tensor, Tensor]]


class CalibrationMonitor(L.Callback):
    """Log ``val/`` and ``test/`` accuracy, NLL, Brier, ECE, MCE, signed gap and overconfidence error.

    Sees the logits and targets with which the module calls its loss in ``validation_step`` and ``test_step``, however
    it calls it; the module and its own logging are not touched. The sums are integers, so values do not depend on
    batch sizes, and under DDP the samples that the sampler repeats to even out the ranks are not counted. With several
    loaders keys end in ``/dataloader_idx_0``, ...

    Args:
        num_bins: confidence bins, at least 1.
        metrics: called with ``task=``, ``num_classes=``, ``ignore_index=`` and, for probabilities, ``input="probs"``;
            returns a ``MetricCollection`` of :mod:`ls_lightning.metrics`.
            None: :func:`~ls_lightning.metrics.default_metrics` with ``num_bins``.
        target: which call of a loss is measured: ``"auto"`` for the only one in a step; the dotted path of a loss
            module of any class; or a predicate on the :class:`~ls_lightning.tap.LossCall`.
        read: called with ``(module, batch, outputs)`` after each step, returns ``(logits, target)``; for a module that
            calls no loss in validation.
        strict: False warns and measures nothing where True raises a LookupError.

    A key that the module logs itself, e.g. ``val/acc``, is left to the module; ours is in ``results`` all the same.

    Attributes:
        results: per stage (``"val"``, ``"test"``; with several loaders ``"val/dataloader_idx_0"``, ...) the last
            values as Python floats, with ``n``, the number of samples measured.
        reliability: per stage the bins of the reliability diagram.

    Raises:
        LookupError: a step did not call a loss, or called several.

    Example:
        >>> trainer = L.Trainer(callbacks=[CalibrationMonitor()], logger=False)
    """

    def __init__(
        self,
        num_bins: int = 15,
        metrics: Callable[..., MetricCollection] | None = None,
        target: str | Select = "auto",
        read: Read | None = None,
        strict: bool = True,
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.metrics = metrics
        self.target = target
        self.read = read
        self.strict = strict
        self._given_up = False
        self._build(task="multiclass", num_classes=None)
        self.results: dict[str, dict[str, float]] = {}
        self.reliability: dict[str, ReliabilityBins] = {}
        self._taps: dict[str, Tap] = {}
        self._tap: Tap | None = None
        self._loaders: list[Any] = []
        self._real: list[int | None] = []
        self._collections: list[MetricCollection | None] = []
        self._calls: list[LossCall] = []
        self._undo: Callable[[], None] = nothing

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, "val", trainer.val_dataloaders)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, "test", trainer.test_dataloaders)

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
        self._update(pl_module, "validation_step", batch, outputs, batch_idx, dataloader_idx)

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
        self._update(pl_module, "test_step", batch, outputs, batch_idx, dataloader_idx)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "test")

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()
        self._taps.clear()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()
        self._taps.clear()

    def _build(self, **kwargs: Any) -> MetricCollection:
        if self.metrics is not None:
            return self.metrics(**kwargs)
        return default_metrics(num_bins=self.num_bins, **kwargs)

    def _open(
        self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"], loaders: Any
    ) -> None:
        self._close()
        self._loaders = CombinedLoader(loaders, "sequential").flattened
        self._real = [_real_samples(loader, trainer.world_size) for loader in self._loaders]
        self._collections = [None] * len(self._loaders)
        if self.read is None:
            if stage not in self._taps:
                self._taps[stage] = Tap(pl_module, self._see, self.target)
            self._tap = self._taps[stage]
            self._undo = enter_with_step(trainer, stage, self._tap.step)

    def _see(self, call: LossCall) -> None:
        self._calls.append(call)

    def _close(self) -> None:
        self._undo()
        self._undo = nothing
        self._tap = None
        self._calls = []

    def _update(
        self, pl_module: L.LightningModule, step: str, batch: Any, outputs: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        if self._given_up:
            return
        try:
            call = self._only_call(pl_module, step, batch, outputs)
        except LookupError as error:
            if self.strict:
                raise
            self._given_up = True
            rank_zero_warn(f"CalibrationMonitor measures nothing: {error}")
            return
        found = self._collections[dataloader_idx]
        logits, target, options = _read_call(call)
        if found is None:
            found = self._build(num_classes=None, **options).to(logits.device)
            self._collections[dataloader_idx] = found
        keep = self._rows_to_keep(batch_idx, dataloader_idx, len(logits))
        found.update(logits[:keep], target[:keep])

    def _only_call(self, pl_module: L.LightningModule, step: str, batch: Any, outputs: Any) -> LossCall:
        """The call of a loss that is measured."""
        calls, self._calls = self._calls, []
        if self.read is not None:
            with getattr(pl_module.trainer.precision_plugin, f"{_STAGES[step]}_step_context")():
                logits, target = self.read(pl_module, batch, outputs)
            return LossCall("read", logits, target, {}, 0.0, 0)
        where = f"{type(pl_module).__name__}.{step}"
        if not calls and self._tap is not None and self._tap.calls:
            raise LookupError(f"target selects none of the {self._tap.calls} losses that {where} calls.")
        if not calls:
            raise LookupError(
                f"no loss was called in {where}, so nothing could be measured. Call the loss there too, or say where "
                "logits and target are: CalibrationMonitor(read=lambda module, batch, outputs: (logits, target))."
            )
        if len(calls) > 1:
            names = ", ".join(f"{call.function} on {tuple(call.logits.shape)}" for call in calls)
            raise LookupError(
                f"{where} calls {len(calls)} losses ({names}); say which one is measured: "
                "CalibrationMonitor(target=lambda call: call.position == 0)."
            )
        return calls[0]

    def _rows_to_keep(self, batch_idx: int, dataloader_idx: int, rows: int) -> int:
        """How many rows of this batch are not repeats of the sampler; rows may be several a sample."""
        real = self._real[dataloader_idx]
        loader = self._loaders[dataloader_idx]
        size: int | None = getattr(loader, "batch_size", None)
        if real is None or size is None:
            return rows
        samples: int = min(size, len(loader.sampler) - batch_idx * size)
        left = min(samples, max(0, real - batch_idx * size))
        return rows * left // samples

    def _compute(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        collections, self._collections = self._collections, []
        if trainer.sanity_checking or self._given_up:
            return
        theirs = _logged_by_module(trainer)
        for index, found in enumerate(collections):
            # A rank without a batch takes part in the sum all the same.
            collection = found or self._build(task="multiclass", num_classes=None).to(pl_module.device)
            metrics = {name: m for name, m in collection.items() if isinstance(m, CalibrationMetric)}
            suffix = "" if len(collections) == 1 else f"/dataloader_idx_{index}"
            # One reduction for all of them: they share their sums.
            sums = trainer.strategy.reduce(next(iter(metrics.values())).sums, reduce_op="sum")
            try:
                values = {name: metric.measure(sums).item() for name, metric in metrics.items()}
                self.reliability[stage + suffix] = reliability_bins(sums)
            except ValueError as error:
                rank_zero_warn(f"CalibrationMonitor logs nan for {stage}{suffix}: {error}")
                values = dict.fromkeys(metrics, math.nan)
            for name, value in values.items():
                if f"{stage}/{name}" in theirs:
                    continue
                # Equal on all ranks: the maximum keeps the bits, a mean would not.
                pl_module.log(
                    f"{stage}/{name}{suffix}",
                    value,
                    on_epoch=True,
                    sync_dist=True,
                    reduce_fx="max",
                    add_dataloader_idx=False,
                )
            self.results[stage + suffix] = {**values, "n": int(sums[-1, 0, 0])}


def _logged_by_module(trainer: L.Trainer) -> set[str]:
    """The keys that the module has logged in its steps of this epoch."""
    results: Any = trainer._results
    found = [] if results is None else [metric.meta for metric in results.values()]
    return {str(meta.name) for meta in found if not meta.fx.endswith("_epoch_end")}  # those are ours, of epochs before


def _read_call(call: LossCall) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits, hard target, and the options of the metrics that fit them."""
    logits, target = (values.detach() for values in call.batch())
    options: dict[str, Any] = {"input": "probs"} if call.input == "probs" else {}
    if call.kind == "binary" or (call.kind is None and logits.shape == target.shape):
        return (
            logits,
            target,
            {**options, "task": "multilabel" if logits.ndim > 1 and logits.shape[1] > 1 else "binary"},
        )
    if target.is_floating_point() and target.shape == logits.shape:
        target = target.argmax(1)
    return logits, target, {"task": "multiclass", "ignore_index": call.options.get("ignore_index", -100)}


def _real_samples(loader: Any, world_size: int) -> int | None:
    """How many samples of this rank are not repeats; None where nothing is repeated, or nobody can know."""
    if world_size == 1:
        return None
    sampler = getattr(loader, "sampler", None)
    if type(sampler) is not DistributedSampler:
        rank_zero_warn(
            f"CalibrationMonitor cannot tell which samples {type(sampler).__name__} repeats on {world_size} ranks, so "
            "values may count some twice. Use a map-style dataset and leave the sampler to Lightning."
        )
        return None
    # Shuffled or not, repeats are appended before the positions are dealt out in turn.
    total = len(sampler.dataset)  # type: ignore[arg-type]
    return max(0, math.ceil((total - sampler.rank) / sampler.num_replicas))
