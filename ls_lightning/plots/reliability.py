"""Reliability diagrams: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ls_lightning.plots.figure import BAR, BLUE, DASHED, INK, ORANGE, column, head, new_figure, tidy, wilson

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ls_lightning.plots.figure import Column

    Bins = tuple[Column, Column, Column]

_OVER_LOOK: dict[str, Any] = {"facecolor": ORANGE, "alpha": 0.6, "hatch": "////", "edgecolor": "white"}
_UNDER_LOOK: dict[str, Any] = {"facecolor": BLUE, "alpha": 0.6, "hatch": "\\\\\\\\", "edgecolor": "white"}


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
    bins: Bins | Mapping[str, Bins], *, title: str | None = None, confidence: Literal["top", "positive"] = "top"
) -> Figure:
    """Draw accuracy against confidence, the gap between them, and how the confidences are spread.

    Grey bars are the accuracy of each bin, with its 95 % interval (Wilson 1927). What mean confidence claims
    beyond them is orange; the part of them that it does not claim is blue. Calibrated bars end on the
    diagonal.

    Args:
        bins: `(counts, confidence, accuracy)`, each `(num_bins,)` with equal widths over [0, 1], as
            `functional.calibration.reliability_bins` or a metric's `reliability_bins()` return; NaN if empty. Or
            several of them by name, which are drawn side by side, e.g. plain and scaled.
        title: what the diagram is of.
        confidence: how the bins were made: `"top"`, or `"positive"`, P(y=1) against y; changes the words.

    Returns:
        A `matplotlib.figure.Figure`, for `save_figure`, a logger or a notebook.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the three arrays are not of one length, there are none, or `confidence` is unknown.

    Example:
        >>> figure = reliability_diagram(([0, 10], [float("nan"), 0.9], [float("nan"), 0.7]))
        >>> print(figure.axes[0].get_title(loc="left").strip())
        Overconfident by 20.0 points
        >>> print(figure.axes[0].texts[0].get_text())
        ECE 20.0 %   accuracy 70.0 %   confidence 90.0 %   n = 10

    Source: DeGroot and Fienberg 1983; Guo et al. 2017, arXiv:1706.04599, figure 1.
    """
    if confidence not in _WORDS:
        raise ValueError(f"confidence must be 'top' or 'positive', got {confidence!r}.")
    words = _WORDS[confidence]
    panels = {name: _columns(one) for name, one in (bins if isinstance(bins, Mapping) else {"": bins}).items()}
    if not panels:
        raise ValueError("bins must hold at least one diagram, got an empty mapping.")
    figure = new_figure(width=0.4 + 4.8 * len(panels), height=6.6)
    grid = figure.subplots(
        2, len(panels), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": [3.6, 1]}
    )
    for (name, columns), (diagram, histogram) in zip(panels.items(), grid.T, strict=True):
        _draw_panel(diagram, histogram, columns, (name, title), words)
    grid[0, 0].set_ylabel(words.reached)
    grid[1, 0].set_ylabel("% of samples")
    figure.legend(handles=_legend(words), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def _draw_panel(
    diagram: Axes, histogram: Axes, columns: list[NDArray[np.float64]], names: tuple[str, str | None], words: _Words
) -> None:
    counts, claimed, reached = columns
    finding, details = _summary(counts, claimed, reached, words)
    name, title = names
    head(
        diagram,
        f"{name}: {finding}" if name else finding[:1].upper() + finding[1:],
        f"{title or ''}   {details}".strip(),
    )
    _draw_bins(diagram, counts, claimed, reached)
    _draw_counts(histogram, counts, claimed, reached)
    histogram.set_xlabel(words.claimed)
    for axes in (diagram, histogram):
        tidy(axes)


def _columns(bins: Bins) -> list[NDArray[np.float64]]:
    columns = [column(values) for values in bins]
    shapes = [values.shape for values in columns]
    if len(columns) != 3 or len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(f"bins must be (counts, confidence, accuracy), each of length num_bins, got shapes {shapes}.")
    return columns


def _draw_bins(axes: Axes, counts: Any, claimed: Any, reached: Any) -> None:
    import numpy as np

    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=DASHED, zorder=4)
    used = counts > 0
    width = 1 / len(counts)
    centre = (np.arange(len(counts)) + 0.5)[used] * width
    n, claimed, reached = counts[used], claimed[used], reached[used]
    axes.bar(centre, reached, width, color=BAR, edgecolor="white", linewidth=1)
    for look, shown in ((_OVER_LOOK, claimed > reached), (_UNDER_LOOK, claimed < reached)):
        gap = (claimed - reached)[shown]
        axes.bar(centre[shown], gap, width, reached[shown], linewidth=1, zorder=3, **look)
    axes.vlines(centre, *wilson(reached, n), color=INK, linewidth=1.1, zorder=5)
    axes.plot(centre, reached, ".", color=INK, markersize=5, zorder=6, clip_on=False)


def _draw_counts(axes: Axes, counts: Any, claimed: Any, reached: Any) -> None:
    import numpy as np

    total = counts.sum()
    width = 1 / len(counts)
    centre = (np.arange(len(counts)) + 0.5) * width
    axes.bar(centre, 100 * counts / max(total, 1), width, color=BAR, edgecolor="white", linewidth=1)
    if total > 0:
        axes.axvline(np.nansum(counts * reached) / total, color=INK, linewidth=1.4)
        axes.axvline(np.nansum(counts * claimed) / total, color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)))
    else:
        axes.set_ylim(0, 100)


def _legend(words: _Words) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=BAR, label=f"{words.reached}, per bin"),
        Line2D([], [], color=INK, marker=".", linewidth=1.1, label="95 % interval"),
        Patch(label=words.over, **_OVER_LOOK),
        Patch(label=words.under, **_UNDER_LOOK),
        Line2D([], [], color=INK, linewidth=1.4, label=f"mean {words.reached}"),
        Line2D([], [], color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)), label=f"mean {words.claimed}"),
    ]


def _summary(counts: Any, claimed: Any, reached: Any, words: _Words) -> tuple[str, str]:
    """The finding, and its numbers."""
    import numpy as np

    total = counts.sum()
    if total == 0:
        return "no samples", ""
    claim, share = (100 * np.nansum(counts * values) / total for values in (claimed, reached))
    error = 100 * np.nansum(counts * np.abs(claimed - reached)) / total
    gap = claim - share
    verdict = "no gap" if abs(gap) < 0.05 else f"{words.over if gap > 0 else words.under} by {abs(gap):.1f} points"
    numbers = f"{words.reached} {share:.1f} %   {words.claimed} {claim:.1f} %   n = {int(total):,}"
    return verdict, f"ECE {error:.1f} %   {numbers}"
