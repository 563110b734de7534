"""Networks of timm and torchvision, by name; their weights are downloaded only where that is asked for."""

import difflib
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from .checks import check_bool, check_int
from .models import _image_channels, _logits

_IMAGENET_CLASSES = 1000


class TimmModel(nn.Module):
    """A network of timm, its head and first layer shaped by the data: ``model=timm model.name=resnet18``.

    Args:
        input_shape: ``(C, H, W)``.
        num_outputs: K, at least 1.
        name: one of ``timm.list_models()``.
        in_chans: C, if it is to be checked against the data.
        pretrained: begin with the published weights, which timm downloads.
        **options: of the network, e.g. ``img_size=32`` of a transformer: ``+model.img_size=32``.

    Returns:
        Called with ``(N, C, H, W)``: logits ``(N, K)``.

    Raises:
        ValueError: there is no such network, or the input is no image or has other channels.
        TypeError: the network has no such option.
        ModuleNotFoundError: timm is missing.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        *,
        name: str = "resnet18",
        in_chans: int | None = None,
        pretrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        channels, outputs = _image_channels("timm", input_shape, 1), check_int("num_outputs", num_outputs)
        if in_chans not in (None, channels):
            raise ValueError(f"in_chans must be {channels}, as the data has it, got {in_chans!r}. Leave it away.")
        timm = _library("timm")
        _check_name("timm", name, timm.list_models())
        loaded = check_bool("pretrained", pretrained)
        self.net = timm.create_model(name, pretrained=loaded, num_classes=outputs, in_chans=channels, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, C, H, W)``."""
        return _logits(self.net, x)


class TorchvisionModel(nn.Module):
    """A network of torchvision for images of three channels: ``model=torchvision model.name=resnet18``.

    Args:
        input_shape: ``(3, H, W)``.
        num_outputs: K, at least 1.
        name: one of ``torchvision.models.list_models(torchvision.models)``.
        pretrained: begin with the published weights, which torchvision downloads, and a new last layer.
        **options: of the network, e.g. ``dropout=0.5`` of an efficientnet: ``+model.dropout=0.5``.

    Returns:
        Called with ``(N, 3, H, W)``: logits ``(N, K)``.

    Raises:
        ValueError: there is no such network, the input is no colour image, or the network's last layer is not linear.
        TypeError: the network has no such option.
        ModuleNotFoundError: torchvision is missing.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        *,
        name: str = "resnet18",
        pretrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        channels, outputs = _image_channels("torchvision", input_shape, 1), check_int("num_outputs", num_outputs)
        if channels != 3:
            raise ValueError(f"model=torchvision needs images of 3 channels, data gives {channels}. Use model=timm.")
        models = _library("torchvision").models
        _check_name("torchvision", name, models.list_models(models))
        if check_bool("pretrained", pretrained):
            self.net = models.get_model(name, weights="DEFAULT", **options)
            replace_head(self.net, outputs)
        else:
            self.net = models.get_model(name, weights=None, num_classes=outputs, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, 3, H, W)``."""
        return _logits(self.net, x)


def replace_head(net: nn.Module, num_outputs: int) -> None:
    """Give a network of ImageNet's classes a new last layer, in place.

    Raises:
        ValueError: its last layer is not linear.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 1000))
        >>> replace_head(net, 10)
        >>> net[1]
        Linear(in_features=4, out_features=10, bias=True)
    """
    heads = [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    if not heads or heads[-1][1].out_features != _IMAGENET_CLASSES:
        raise ValueError(
            f"{type(net).__name__} has no linear last layer to replace. Use pretrained=false, or model=timm."
        )
    path, old = heads[-1]
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, nn.Linear(old.in_features, num_outputs, bias=old.bias is not None))


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        message = f"model={name} needs {name}: pip install 'ls-lightning[{name}]'"
        raise ModuleNotFoundError(message, name=name) from None


def _check_name(library: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"name must be one of the {len(names)} networks of {library}, got {name!r}.{hint}")
