"""What the command line trains out of the box: a plain classifier, networks, data modules.

Lazy (PEP 562): importing this package costs nothing; a name imports its module, and with it torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import Classifier as Classifier
    from .data_hf import HFDatasetData as HFDatasetData
    from .data_image_folder import ImageFolderData as ImageFolderData
    from .data_npz import NpzData as NpzData
    from .data_shapes import ShapesData as ShapesData
    from .data_sklearn import BreastCancerData as BreastCancerData
    from .data_sklearn import DigitsData as DigitsData
    from .data_tags import TagsData as TagsData
    from .data_text_file import TextFileData as TextFileData
    from .fcn import FCN as FCN
    from .models import CNN as CNN
    from .models import MLP as MLP
    from .models import Linear as Linear
    from .models import ResNet as ResNet
    from .models_elsewhere import TimmModel as TimmModel
    from .models_elsewhere import TorchvisionModel as TorchvisionModel
    from .tagger import Tagger as Tagger

_HOME = {
    "Classifier": "classifier",
    "Linear": "models",
    "MLP": "models",
    "CNN": "models",
    "ResNet": "models",
    "TimmModel": "models_elsewhere",
    "TorchvisionModel": "models_elsewhere",
    "FCN": "fcn",
    "Tagger": "tagger",
    "DigitsData": "data_sklearn",
    "BreastCancerData": "data_sklearn",
    "NpzData": "data_npz",
    "ImageFolderData": "data_image_folder",
    "TextFileData": "data_text_file",
    "HFDatasetData": "data_hf",
    "ShapesData": "data_shapes",
    "TagsData": "data_tags",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
