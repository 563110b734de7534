"""Risk-coverage curves: how many errors are left if the least sure answers are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ls_lightning.plots.figure import BLUE, DASHED, FAINT, INK, ORANGE, column, head, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ls_lightning.plots.figure import Column

    Curve = tuple[Column, ...]

_LOOKS = ((BLUE, "-"), (ORANGE, DASHED), (INK, (0, (1, 1))))


def risk_coverage_curve(curves: Curve | Mapping[str, Curve], *, title: str | None = None) -> Figure:
    """Draw the error rate among the surest samples against the share that they are of all.

    The grey line is the best that any order of the samples could do; a curve that stays high to its end ranks errors
    no better than chance. Where the curve comes with bounds, they are shaded.

    Args:
        curves: `(coverage, risk)` or `(coverage, risk, lower, upper)`, each `(J,)`, by increasing coverage, as
            `functional.risk.curve` and the `curve()` of a metric such as `AURC` return. Or several of them by name.
        title: what the curves are of.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the arrays are empty or not of one length, or there are none.

    Example:
        >>> figure = risk_coverage_curve(([0.5, 1.0], [0.0, 0.1]))
        >>> print(figure.axes[0].get_title(loc="left").strip())
        10.0 % errors; without the least sure tenth 8.0 %

    Source: El-Yaniv and Wiener 2010, JMLR 11; Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    found = {name: _columns(one) for name, one in (curves if isinstance(curves, Mapping) else {"": curves}).items()}
    if not found:
        raise ValueError("curves must hold at least one curve, got an empty mapping.")
    if len(found) > len(_LOOKS):
        raise ValueError(f"at most {len(_LOOKS)} curves can be told apart, got {len(found)}.")
    figure = new_figure(width=5.6, height=4.4)
    axes: Axes = figure.subplots()
    for (name, columns), (colour, style) in zip(found.items(), _LOOKS, strict=False):
        _draw(axes, name, columns, colour, style)
    first = next(iter(found.values()))
    _draw_best(axes, first[1][-1])
    axes.set(xlim=(0, 1), xlabel="coverage: share of samples answered, the surest first", ylabel="errors among them, %")
    axes.set_ylim(0, max(1.25 * max(100 * columns[1][-1] for columns in found.values()), 0.1))
    head(axes, _finding(*first[:2]), title or "")
    tidy(axes, grid="both")
    axes.legend(loc="best", fontsize=8.5, frameon=False)
    return figure


def _columns(curve: Curve) -> list[Any]:
    columns = [column(values) for values in curve]
    shapes = [values.shape for values in columns]
    if len(columns) not in (2, 4) or len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(
            f"a curve must be (coverage, risk) or (coverage, risk, lower, upper) of one length, got shapes {shapes}."
        )
    return columns


def _draw(axes: Axes, name: str, columns: list[Any], colour: str, style: Any) -> None:
    coverage, risk, *bounds = columns
    label: dict[str, Any] = {"label": name} if name else {}
    axes.plot(coverage, 100 * risk, color=colour, linestyle=style, linewidth=1.8, zorder=3, **label)
    if bounds:
        axes.fill_between(coverage, *(100 * bound for bound in bounds), color=colour, alpha=0.15, linewidth=0)


def _draw_best(axes: Axes, error: float) -> None:
    """All errors last: none among the first ``1 - error`` of the samples."""
    import numpy as np

    coverage = np.linspace(max(1 - error, 1e-9), 1, 200)
    risk = (coverage - (1 - error)) / coverage
    axes.plot(coverage, 100 * risk, color=FAINT, linewidth=1, label="best possible", zorder=2)


def _finding(coverage: Any, risk: Any) -> str:
    import numpy as np

    without = np.interp(0.9, coverage, risk)
    return f"{100 * risk[-1]:.1f} % errors; without the least sure tenth {100 * without:.1f} %"
