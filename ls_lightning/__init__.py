"""Label smoothing and calibration for PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ls_lightning import functional, losses, metrics, plots, schedules
    from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
    from ls_lightning.callbacks.label_smoothing import LabelSmoothing
    from ls_lightning.callbacks.out_of_scope import OutOfScope
    from ls_lightning.callbacks.temperature_scaling import TemperatureScaling
    from ls_lightning.mixin import LabelSmoothingMixin

__all__ = [
    "CalibrationMonitor",
    "LabelSmoothing",
    "LabelSmoothingMixin",
    "OutOfScope",
    "TemperatureScaling",
    "functional",
    "losses",
    "metrics",
    "plots",
    "schedules",
]

_HOMES = {
    "CalibrationMonitor": "ls_lightning.callbacks.calibration_monitor",
    "LabelSmoothing": "ls_lightning.callbacks.label_smoothing",
    "LabelSmoothingMixin": "ls_lightning.mixin",
    "OutOfScope": "ls_lightning.callbacks.out_of_scope",
    "TemperatureScaling": "ls_lightning.callbacks.temperature_scaling",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES.get(name, f"ls_lightning.{name}"))
    return getattr(home, name) if name in _HOMES else home


def __dir__() -> list[str]:
    return __all__
