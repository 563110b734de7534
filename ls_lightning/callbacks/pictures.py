"""Pictures: what CalibrationMonitor and TemperatureScaling measured, drawn to files and to the loggers."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torchmetrics import MetricCollection
from typing_extensions import override

from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.confidence_levels import confidence_levels
from ls_lightning.callbacks.image_loggers import log_figure
from ls_lightning.callbacks.stage_metrics import Measured, StageMetrics
from ls_lightning.callbacks.step_outputs import StepOutputs
from ls_lightning.callbacks.temperature_scaling import TemperatureScaling
from ls_lightning.functional.classwise import LARGEST, read_classwise
from ls_lightning.functional.risk import curve
from ls_lightning.metrics.classwise import ClasswiseCalibrationError
from ls_lightning.plots import class_gap, reliability_diagram, risk_coverage_curve, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures(L.Callback):
    """Draw a reliability diagram, a risk-coverage curve and the gap of each class after ``validate`` and ``test``.

    Needs a :class:`~ls_lightning.CalibrationMonitor` in the same Trainer; with a
    :class:`~ls_lightning.TemperatureScaling` too, the scaled model is drawn beside the plain one. The figures go to
    ``reliability.png``, ``risk_coverage.png`` and ``class_gap.png``, and as ``test/reliability``, ... to every logger
    that takes images. Nothing is drawn, and one line says so, where matplotlib is missing.

    Args:
        folder: of the files, made if needed. A test overwrites the validation's pictures.
        num_bins: of the class-wise probabilities.

    Example:
        >>> trainer = L.Trainer(callbacks=[CalibrationMonitor(), Pictures("pictures")], logger=False)
    """

    def __init__(self, folder: str | Path = ".", num_bins: int = 15) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.num_bins = num_bins
        self._outputs: StepOutputs | None = None
        self._classwise = StageMetrics(self._build, 0)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if find_spec("matplotlib") is None:
            rank_zero_warn("No pictures will be drawn: plots need matplotlib: pip install 'ls-lightning[plot]'.")

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, wanted=trainer.state.fn == TrainerFn.VALIDATING)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, wanted=True)

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
        if self._outputs is None or dataloader_idx > 0:
            return
        found = self._outputs.of_batch(pl_module, batch, outputs, batch_idx, dataloader_idx)
        if found is None or (found.num_classes or 1) * self.num_bins > LARGEST:
            return
        self._classes.add(found.num_classes)
        if len(self._classes) > 1:  # tokens, not labels: they have no gap each
            self._classwise = StageMetrics(self._build, 1)
        else:
            self._classwise.update(0, found)

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
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._outputs is not None:
            self._draw(trainer, pl_module, "val")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._outputs is not None:
            self._draw(trainer, pl_module, "test")

    def _open(self, trainer: L.Trainer, pl_module: L.LightningModule, wanted: bool) -> None:
        monitor = first_of(trainer, CalibrationMonitor)
        self._outputs = None
        if monitor is None or not wanted or find_spec("matplotlib") is None:
            return
        self._outputs = monitor.step_outputs
        self._outputs.open(trainer, pl_module, "test" if trainer.testing else "val")
        self._classwise = StageMetrics(self._build, 1)
        self._classes: set[int | None] = set()

    def _build(self, **options: Any) -> MetricCollection:
        return MetricCollection({"classwise": ClasswiseCalibrationError(num_bins=self.num_bins, **options)})

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        (classwise,) = self._classwise.measure(trainer, pl_module.device)
        monitor, scaling = first_of(trainer, CalibrationMonitor), first_of(trainer, TemperatureScaling)
        found = {} if monitor is None else {"plain": monitor.measured}
        if scaling is not None and scaling.temperature is not None:
            found[f"T = {scaling.temperature:.3g}"] = scaling.measured
        names = (stage, f"{stage}/dataloader_idx_0")
        measured = {name: each[key] for name, each in found.items() for key in names if key in each}
        self._publish(trainer, stage, "reliability", _reliability(measured, stage))
        self._publish(trainer, stage, "risk_coverage", _risk_coverage(measured, stage))
        self._publish(trainer, stage, "class_gap", _class_gap(classwise, stage))
        self._outputs = None

    @rank_zero_only
    def _publish(self, trainer: L.Trainer, stage: str, name: str, figure: Figure | None) -> None:
        if figure is None:
            return
        save_figure(figure, self.folder / f"{name}.png")
        for logger in trainer.loggers:
            log_figure(logger, f"{stage}/{name}", figure, step=trainer.global_step)


def _reliability(measured: dict[str, Measured], stage: str) -> Figure | None:
    bins = {name: found.reliability for name, found in measured.items() if found.reliability is not None}
    if not bins:
        return None
    return reliability_diagram(bins if len(bins) > 1 else bins["plain"], title=stage)


def _risk_coverage(measured: dict[str, Measured], stage: str) -> Figure | None:
    curves = {}
    for name, found in measured.items():
        levels = confidence_levels(found)
        if levels is not None and not math.isnan(found.values.get("aurc", math.nan)):
            curves[f"{name}: AURC {found.values['aurc']:.3%}".replace("%", " %")] = curve(levels)
    return risk_coverage_curve(curves, title=stage) if curves else None


def _class_gap(found: Measured, stage: str) -> Figure | None:
    """None where there are too many classes, or a sample was no number."""
    ((_, sums),) = found.states.values()
    if math.isnan(found.values["classwise"]):
        return None
    classes = read_classwise(sums)
    return class_gap(classes.counts, classes.confidence, classes.frequency, title=stage)
