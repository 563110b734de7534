"""Figures from arrays. No global matplotlib state is touched: no pyplot, no backend, no rcParams."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

    Column = Tensor | Sequence[float] | NDArray[np.float64]
    Bins = tuple[Column, Column, Column]

# Okabe and Ito's palette: told apart with any colour vision, and by hatching in print.
_BAR, _INK = "#C9CED6", "#2B2F36"
_OVER_LOOK: dict[str, Any] = {"facecolor": "#D55E00", "alpha": 0.55, "hatch": "////", "edgecolor": "white"}
_UNDER_LOOK: dict[str, Any] = {
    "facecolor": "#0072B2",
    "alpha": 0.55,
    "hatch": "\\\\\\\\",
    "edgecolor": "white",
}
_DASHED = (0, (2, 1.5))


class _Words(NamedTuple):
    claimed: str
    reached: str
    over: str
    under: str


_WORDS = {
    "top": _Words("confidence", "accuracy", "overconfident", "underconfident"),
    "positive": _Words("P(y = 1)", "share of positives", "too high", "too low"),
}


def reliability_diagram(
    bins: Bins, *, title: str | None = None, confidence: Literal["top", "positive"] = "top"
) -> Figure:
    """Draw accuracy against confidence, the gap between them, and how the confidences are spread.

    Grey bars are the accuracy of each bin, with its 95 % interval (Wilson). What mean confidence claims
    beyond them is orange; the part of them that it does not claim is blue. Calibrated bars end on the
    diagonal.

    Args:
        bins: `(counts, confidence, accuracy)`, each `(num_bins,)` with equal widths over [0, 1], as
            `functional.calibration.reliability_bins` or a metric's `reliability_bins()` return; NaN if empty.
        title: above the figure.
        confidence: how the bins were made: `"top"`, or `"positive"`, P(y=1) against y; changes the words.

    Returns:
        A `matplotlib.figure.Figure`, for `save_figure`, a logger or a notebook.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the three arrays are not of one length, or `confidence` is unknown.

    Example:
        >>> figure = reliability_diagram(([0, 10], [float("nan"), 0.9], [float("nan"), 0.7]), title="test")
        >>> print(figure.axes[0].get_title(loc="left"))
        n = 10   accuracy 70.0 %   confidence 90.0 %
        ECE 20.0 %   overconfident by 20.0 points

    Source: DeGroot and Fienberg 1983; Guo et al. 2017, arXiv:1706.04599, figure 1.
    """
    if confidence not in _WORDS:
        raise ValueError(f"confidence must be 'top' or 'positive', got {confidence!r}.")
    figure, words = _new_figure(width=5.2, height=7.2), _WORDS[confidence]
    counts, claimed, reached = _columns(bins)
    diagram, histogram = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.6, 1]})
    if title is not None:
        figure.suptitle(title, fontsize=12, fontweight="bold", color=_INK)
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#F5F6F8", "edgecolor": "#9AA0A8"}
    summary = _summary(counts, claimed, reached, words)
    diagram.set_title(summary, loc="left", x=0.015, pad=12, fontsize=9.5, color=_INK, bbox=box)
    _draw_bins(diagram, counts, claimed, reached)
    _draw_counts(histogram, counts, claimed, reached)
    figure.legend(handles=_legend(words), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    diagram.set_ylabel(words.reached)
    histogram.set_ylabel("% of samples")
    histogram.set_xlabel(words.claimed)
    for axes in (diagram, histogram):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="#E6E8EB", linewidth=0.8)
    return figure


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
        >>> figure = reliability_diagram(([4], [0.7], [0.5]))
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


def _new_figure(width: float, height: float) -> Figure:
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


def _columns(bins: Bins) -> list[NDArray[np.float64]]:
    import numpy as np

    columns = [np.asarray(column, dtype=np.float64) for column in bins]
    shapes = [column.shape for column in columns]
    if len(columns) != 3 or len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(f"bins must be (counts, confidence, accuracy), each of length num_bins, got shapes {shapes}.")
    return columns


def _draw_bins(axes: Axes, counts: Any, claimed: Any, reached: Any) -> None:
    import numpy as np

    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
    used = counts > 0
    width = 1 / len(counts)
    centre = (np.arange(len(counts)) + 0.5)[used] * width
    n, claimed, reached = counts[used], claimed[used], reached[used]
    axes.bar(centre, reached, width, color=_BAR, edgecolor="white", linewidth=1)
    for look, shown in ((_OVER_LOOK, claimed > reached), (_UNDER_LOOK, claimed < reached)):
        gap = (claimed - reached)[shown]
        axes.bar(centre[shown], gap, width, reached[shown], linewidth=1, zorder=3, **look)
    axes.vlines(centre, *_wilson(reached, n), color=_INK, linewidth=1.1, zorder=5)
    axes.plot(centre, reached, ".", color=_INK, markersize=4, zorder=5)


def _draw_counts(axes: Axes, counts: Any, claimed: Any, reached: Any) -> None:
    import numpy as np

    total = counts.sum()
    width = 1 / len(counts)
    centre = (np.arange(len(counts)) + 0.5) * width
    axes.bar(centre, 100 * counts / max(total, 1), width, color=_BAR, edgecolor="white", linewidth=1)
    if total > 0:
        axes.axvline(np.nansum(counts * reached) / total, color=_INK, linewidth=1.4)
        axes.axvline(np.nansum(counts * claimed) / total, color=_INK, linewidth=1.4, linestyle=_DASHED)
    else:
        axes.set_ylim(0, 100)


def _legend(words: _Words) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=_BAR, label=f"{words.reached}, per bin"),
        Line2D([], [], color=_INK, marker=".", linewidth=1.1, label="95 % interval"),
        Patch(label=words.over, **_OVER_LOOK),
        Patch(label=words.under, **_UNDER_LOOK),
        Line2D([], [], color=_INK, linewidth=1.4, label=words.reached),
        Line2D([], [], color=_INK, linewidth=1.4, linestyle=_DASHED, label=f"mean {words.claimed}"),
    ]


def _summary(counts: Any, claimed: Any, reached: Any, words: _Words) -> str:
    import numpy as np

    total = counts.sum()
    if total == 0:
        return "no samples"
    claim, share = (100 * np.nansum(counts * column) / total for column in (claimed, reached))
    error = 100 * np.nansum(counts * np.abs(claimed - reached)) / total
    gap = claim - share
    verdict = "no gap" if abs(gap) < 0.05 else f"{words.over if gap > 0 else words.under} by {abs(gap):.1f} points"
    return (
        f"n = {int(total):,}   {words.reached} {share:.1f} %   {words.claimed} {claim:.1f} %\n"
        f"ECE {error:.1f} %   {verdict}"
    )


def _wilson(share: Any, n: Any, z: float = 1.96) -> tuple[Any, Any]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return centre - half, centre + half
