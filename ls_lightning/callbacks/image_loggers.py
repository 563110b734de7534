"""Give a figure to whatever logger takes images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_figure(logger: Logger, key: str, figure: Figure, step: int) -> bool:
    """Log a figure by ``logger.log_image`` (wandb and those that follow it) or ``experiment.add_figure`` (TensorBoard).

    Args:
        logger: any of Lightning's or a user's own.
        key: e.g. ``"test/reliability"``.
        figure: any matplotlib figure.
        step: the optimizer step.

    Returns:
        Whether the logger takes images.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> log_figure(CSVLogger("."), "test/reliability", figure=None, step=0)
        False
    """
    log_image: Any = getattr(logger, "log_image", None)
    if callable(log_image):
        log_image(key=key, images=[_pixels(figure)])
        return True
    add_figure: Any = getattr(getattr(logger, "experiment", None), "add_figure", None)
    if callable(add_figure):
        add_figure(key, figure, global_step=step)
        return True
    return False


def _pixels(figure: Figure) -> Any:
    """``(H, W, 3)``, uint8."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
