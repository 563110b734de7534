"""Figures from arrays. No global matplotlib state is touched: no pyplot, no backend, no rcParams."""

from ls_lightning.plots.class_gap import class_gap
from ls_lightning.plots.eps_curve import eps_curve
from ls_lightning.plots.figure import save_figure
from ls_lightning.plots.reliability import reliability_diagram
from ls_lightning.plots.risk_coverage import risk_coverage_curve

__all__ = ["class_gap", "eps_curve", "reliability_diagram", "risk_coverage_curve", "save_figure"]
