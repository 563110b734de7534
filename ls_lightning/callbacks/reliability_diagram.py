"""ReliabilityDiagram: the picture of what CalibrationMonitor measured, to a file and to the loggers."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.plots import reliability_diagram, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReliabilityDiagram(L.Callback):
    """Draw a reliability diagram after ``trainer.validate`` and ``trainer.test``.

    Needs a :class:`~ls_lightning.CalibrationMonitor` in the same Trainer. The figure goes to ``path`` and, as
    ``val/reliability`` or ``test/reliability``, to wandb and TensorBoard.

    Args:
        path: the file; its suffix gives the format. A test overwrites the validation's picture.
    """

    def __init__(self, path: str | Path = "reliability.png") -> None:
        super().__init__()
        self.path = Path(path)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if find_spec("matplotlib") is None and trainer.is_global_zero:
            warnings.warn(
                f"{self.path.name} will not be drawn: plots need matplotlib: pip install 'ls-lightning[plot]'.",
                stacklevel=2,
            )

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw(trainer, "val")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, "test")

    @rank_zero_only
    def _draw(self, trainer: L.Trainer, stage: str) -> None:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        monitors = [callback for callback in callbacks if isinstance(callback, CalibrationMonitor)]
        if not monitors or find_spec("matplotlib") is None:
            return
        figure = reliability_diagram(monitors[0].reliability[stage], title=stage)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, self.path)
        for logger in trainer.loggers:
            _log_image(logger, f"{stage}/reliability", figure, step=trainer.global_step)


def _log_image(logger: Logger, key: str, figure: Figure, step: int) -> None:
    if isinstance(logger, WandbLogger):
        import wandb

        logger.log_image(key, [wandb.Image(figure)])
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(key, figure, global_step=step)
