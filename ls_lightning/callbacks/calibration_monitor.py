"""CalibrationMonitor: measure accuracy and calibration in validation and test, whatever the module logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DistributedSampler
from torch.utils.hooks import RemovableHandle
from torchmetrics import MetricCollection
from typing_extensions import override

from ls_lightning.functional.measures import ReliabilityBins, reliability_bins
from ls_lightning.metrics import CalibrationMetric, default_metrics
from ls_lightning.tap import LossSite, find_losses


class CalibrationMonitor(L.Callback):
    """Log ``val/`` and ``test/`` accuracy, NLL, Brier, ECE, MCE, signed gap and overconfidence error.

    Sees the logits and targets with which the module calls its own loss in ``validation_step`` and ``test_step``.
    The sums are integers, so values do not depend on batch sizes, and under DDP the samples that the sampler
    repeats to even out the ranks are not counted.

    Args:
        num_bins: confidence bins, at least 1.
        metrics: called with ``task=``, ``num_classes=`` and ``ignore_index=``, returns a ``MetricCollection`` of
            :mod:`ls_lightning.metrics`. None: :func:`~ls_lightning.metrics.default_metrics` with ``num_bins``.
        target: ``"auto"``, or the dotted name of the attribute that holds the loss.

    Attributes:
        results: per stage (``"val"``, ``"test"``; with several loaders ``"val/dataloader_idx_0"``, ...) the last
            values as Python floats, with ``n``, the number of samples measured.
        reliability: per stage the bins of the reliability diagram.

    Raises:
        LookupError: a step did not call the loss, or called several.

    Example:
        >>> trainer = L.Trainer(callbacks=[CalibrationMonitor()], logger=False)
    """

    def __init__(
        self,
        num_bins: int = 15,
        metrics: Callable[..., MetricCollection] | None = None,
        target: str = "auto",
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.metrics = metrics
        self.target = target
        self._build(task="multiclass", num_classes=None)
        self.results: dict[str, dict[str, float]] = {}
        self.reliability: dict[str, ReliabilityBins] = {}
        self._sites: dict[nn.Module, LossSite] = {}
        self._loaders: list[Any] = []
        self._real: list[int | None] = []
        self._collections: list[MetricCollection | None] = []
        self._calls: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._handles: list[RemovableHandle] = []

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, trainer.val_dataloaders)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, trainer.test_dataloaders)

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
        self._update(pl_module, "validation_step", batch_idx, dataloader_idx)

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
        self._update(pl_module, "test_step", batch_idx, dataloader_idx)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compute(trainer, pl_module, "test")

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()

    def _build(self, **kwargs: Any) -> MetricCollection:
        if self.metrics is not None:
            return self.metrics(**kwargs)
        return default_metrics(num_bins=self.num_bins, **kwargs)

    def _open(self, trainer: L.Trainer, pl_module: L.LightningModule, loaders: Any) -> None:
        self._close()
        self._sites = {site.module: site for site in find_losses(pl_module, self.target)}
        self._loaders = CombinedLoader(loaders, "sequential").flattened
        self._real = [_real_samples(loader, trainer.world_size) for loader in self._loaders]
        self._collections = [None] * len(self._loaders)
        self._handles = [loss.register_forward_pre_hook(self._see, with_kwargs=True) for loss in self._sites]

    def _see(self, loss: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        logits, target = [*args, *kwargs.values()][:2]
        self._calls.append((loss, logits.detach(), target.detach()))

    def _close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._calls = [], []

    def _update(self, pl_module: L.LightningModule, step: str, batch_idx: int, dataloader_idx: int) -> None:
        calls, self._calls = self._calls, []
        where = f"{type(pl_module).__name__}.{step}"
        if not calls:
            raise LookupError(
                f"no loss was called in {where}, so nothing could be measured. Call the loss with (logits, target) "
                "there too, or name it: CalibrationMonitor(target='criterion')."
            )
        if len({id(loss) for loss, _, _ in calls}) > 1:
            names = ", ".join(sorted({self._sites[loss].path for loss, _, _ in calls}))
            raise LookupError(
                f"{where} calls several losses ({names}); one must say what is measured: "
                f"CalibrationMonitor(target={names.split(',')[0]!r})."
            )
        for loss, logits, target in calls:
            logits, target, task = _read_call(self._sites[loss], logits, target)
            keep = self._rows_to_keep(batch_idx, dataloader_idx, len(logits))
            collection = self._collection(dataloader_idx, task, loss, logits)
            collection.update(logits[:keep], target[:keep])

    def _collection(self, dataloader_idx: int, task: str, loss: nn.Module, logits: Tensor) -> MetricCollection:
        found = self._collections[dataloader_idx]
        if found is None:
            ignore_index = getattr(loss, "ignore_index", -100)
            found = self._build(task=task, num_classes=None, ignore_index=ignore_index).to(logits.device)
            self._collections[dataloader_idx] = found
        return found

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
        if trainer.sanity_checking:
            return
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


def _read_call(site: LossSite, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, str]:
    """The arguments of a loss as (logits, hard target, task)."""
    binary = site.kind == "binary" or (site.kind is None and logits.shape == target.shape)
    if binary:
        return logits, target, "multilabel" if logits.ndim > 1 and logits.shape[1] > 1 else "binary"
    if target.is_floating_point() and target.shape == logits.shape:
        target = target.argmax(1)
    return logits, target, "multiclass"


def _real_samples(loader: Any, world_size: int) -> int | None:
    """How many samples of this rank are not repeats; None where nothing is repeated, or nobody can know."""
    if world_size == 1:
        return None
    sampler = getattr(loader, "sampler", None)
    if type(sampler) is not DistributedSampler or sampler.shuffle:
        rank_zero_warn(
            f"CalibrationMonitor cannot tell which samples {type(sampler).__name__} repeats on {world_size} ranks, so "
            "values may count some twice. Use a map-style dataset and leave the sampler to Lightning."
        )
        return None
    total = len(sampler.dataset)  # type: ignore[arg-type]
    return max(0, math.ceil((total - sampler.rank) / sampler.num_replicas))
