"""What the command line trains out of the box: a plain classifier, four networks, four data modules.

Lazy (PEP 562): importing this package costs nothing; a name imports its module, and with it torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import Classifier as Classifier
    from .data_image_folder import ImageFolderData as ImageFolderData
    from .data_npz import NpzData as NpzData
    from .data_sklearn import BreastCancerData as BreastCancerData
    from .data_sklearn import DigitsData as DigitsData
    from .models import CNN as CNN
    from .models import MLP as MLP
    from .models import Linear as Linear
    from .models import ResNet as ResNet

_HOME = {
    "Classifier": "classifier",
    "Linear": "models",
    "MLP": "models",
    "CNN": "models",
    "ResNet": "models",
    "DigitsData": "data_sklearn",
    "BreastCancerData": "data_sklearn",
    "NpzData": "data_npz",
    "ImageFolderData": "data_image_folder",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
