"""What all figures here have in common: palette, paper, and how they are saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

    Column = Tensor | Sequence[float] | NDArray[np.float64]

# Okabe and Ito's palette: told apart with any colour vision, and by hatching or dashes in print.
BAR, INK, FAINT = "#C9CED6", "#2B2F36", "#6B7280"
ORANGE, BLUE = "#D55E00", "#0072B2"
DASHED = (0, (4, 2))


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure in one step: whoever opens `path` finds the old file or the whole new one.

    Args:
        figure: any matplotlib figure.
        path: its suffix gives the format (`.png`, `.pdf`, `.svg`); missing folders are made.
        dpi: dots per inch, for pixel formats.

    Raises:
        ValueError: matplotlib cannot write that format.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> figure = new_figure(width=3, height=2)
        >>> save_figure(figure, folder / "reliability.png").name
        'reliability.png'
    """
    path = Path(path)
    formats = sorted(figure.canvas.get_supported_filetypes())
    kind = path.suffix.removeprefix(".").lower()
    if kind not in formats:
        raise ValueError(f"a figure's file must end in one of .{', .'.join(formats)}, got {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(unfinished, format=kind, dpi=dpi)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window and no global state; sizes in inches."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "plots need matplotlib: pip install 'ls-lightning[plot]'.", name="matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.11))


def column(values: Column) -> NDArray[np.float64]:
    """One dimension of float64."""
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def head(axes: Axes, finding: str, details: str) -> None:
    """Write above the axes what there is to see, and below it in small the numbers."""
    size = min(12, 540 / max(len(finding), 1))  # to fit half the width of a page
    axes.set_title(f"{finding}\n", loc="left", fontsize=size, fontweight="bold", color=INK, pad=5)
    axes.text(0, 1, details, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom", ha="left").set_y(1.015)


def tidy(axes: Axes, grid: str = "y") -> None:
    """Leave away what says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E6E8EB", linewidth=0.8)  # type: ignore[arg-type]
    axes.tick_params(labelsize=9)


def wilson(share: Any, n: Any, z: float = 1.96) -> tuple[Any, Any]:
    """Interval of a share of ``n`` samples, 95 % for z = 1.96.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return centre - half, centre + half
