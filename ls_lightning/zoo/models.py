"""Small networks: ``Model(input_shape, K, **options)`` maps ``(N, *input_shape)`` to logits ``(N, K)``."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_bool, check_int, check_ints, check_share, is_int


class Linear(nn.Module):
    r"""Multinomial logistic regression on the flattened input.

    .. math:: z = W\,\mathrm{vec}(x) + b

    Args:
        input_shape: of one sample, ``(D,)`` or ``(C, H, W)``.
        num_outputs: K, at least 1.

    Returns:
        Called with ``(N, *input_shape)``: logits ``(N, K)``.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import torch
        >>> Linear((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        shape, outputs = check_ints("input_shape", input_shape), check_int("num_outputs", num_outputs)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, *input_shape)``."""
        return _logits(self.net, x)


class MLP(nn.Module):
    r"""Multilayer perceptron on the flattened input.

    .. math:: h_0 = \mathrm{vec}(x),\quad h_l = \mathrm{relu}(W_l h_{l-1} + b_l),\quad z = W h_L + b

    with ``batch_norm`` the relu of the batch norm of :math:`W_l h_{l-1}`, whose shift is the bias.

    Args:
        input_shape: of one sample, ``(D,)`` or ``(C, H, W)``.
        num_outputs: K, at least 1.
        hidden: width of each hidden layer; ``()`` gives a linear model.
        dropout: probability of zeroing a hidden unit in training, in [0, 1).
        batch_norm: normalise each hidden unit over the batch; in training it needs batches of two samples or more.

    Returns:
        Called with ``(N, *input_shape)``: logits ``(N, K)``.

    Raises:
        ValueError: a size is not a positive integer, ``dropout`` is outside [0, 1), or ``batch_norm`` is not a bool.

    Example:
        >>> import torch
        >>> MLP((30,), 1, hidden=[16], dropout=0.2)(torch.zeros(2, 30)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        shape, outputs = check_ints("input_shape", input_shape), check_int("num_outputs", num_outputs)
        check_share("dropout", dropout, zero=True)
        self.batch_norm = check_bool("batch_norm", batch_norm)
        width = math.prod(shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for units in check_ints("hidden", hidden, empty=True):
            norm = [nn.BatchNorm1d(units)] if batch_norm else []
            layers += [nn.Linear(width, units, bias=not norm), *norm, nn.ReLU(), *_dropout(dropout)]
            width = units
        self.net = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, *input_shape)``."""
        if self.batch_norm and self.training and len(x) == 1:
            raise ValueError("batch_norm needs training batches of at least 2 samples, got 1. Change data.batch_size.")
        return _logits(self.net, x)


class CNN(nn.Module):
    r"""Convolutional network: a 3x3 convolution and a strided 3x3 one per stage, then global average pooling.

    .. math:: h_l = f_2(f_1(h_{l-1})),\quad z = W\,\mathrm{mean}_{hw}(h_L) + b

    with :math:`f_s` the relu of the batch norm of a convolution with stride s.

    Args:
        input_shape: ``(C, H, W)``; H and W at least ``2 ** (len(channels) + 1)``.
        num_outputs: K, at least 1.
        channels: feature maps of each stage; each stage halves H and W.
        dropout: probability of zeroing a pooled feature in training, in [0, 1).

    Returns:
        Called with ``(N, C, H, W)``: logits ``(N, K)``.

    Raises:
        ValueError: the input is no image or too small, a size is not a positive integer, or ``dropout`` is
            outside [0, 1).

    Example:
        >>> import torch
        >>> CNN((3, 32, 32), 10, channels=[8, 16])(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        *,
        channels: Sequence[int] = (32, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths, outputs = check_ints("channels", channels), check_int("num_outputs", num_outputs)
        check_share("dropout", dropout, zero=True)
        maps = _image_channels("cnn", input_shape, 2 ** (len(widths) + 1), "fewer channels or ")
        layers: list[nn.Module] = []
        for width in widths:
            layers += [*_conv_bn_relu(maps, width), *_conv_bn_relu(width, width, stride=2)]
            maps = width
        self.net = nn.Sequential(*layers, _GlobalMean(), *_dropout(dropout), nn.Linear(maps, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, C, H, W)``."""
        return _logits(self.net, x)


class ResNet(nn.Module):
    r"""Residual network for small images, with full pre-activation.

    .. math:: h_{l+1} = s(h_l) + W_2\,\mathrm{relu}(\mathrm{bn}(W_1\,\mathrm{relu}(\mathrm{bn}(h_l))))

    Three stages of (depth - 2) / 6 blocks with ``width``, 2 ``width`` and 4 ``width`` feature maps; the
    second and the third halve H and W; s is the identity, or a 1x1 convolution where the shape changes.

    Args:
        input_shape: ``(C, H, W)``; H and W at least 8.
        num_outputs: K, at least 1.
        depth: number of layers with weights, 6 n + 2: 8, 14, 20, 32, 44, 56, 110.
        width: feature maps of the first stage.

    Returns:
        Called with ``(N, C, H, W)``: logits ``(N, K)``.

    Raises:
        ValueError: the input is no image or too small, or an option is out of range.

    Example:
        >>> import torch
        >>> ResNet((1, 8, 8), 10, depth=8, width=4)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Source: He et al. 2016, arXiv:1512.03385 section 4.2 (layout), arXiv:1603.05027 (pre-activation).
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, *, depth: int = 8, width: int = 16) -> None:
        super().__init__()
        outputs, maps = check_int("num_outputs", num_outputs), check_int("width", width)
        if not is_int(depth) or depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2, that is 8, 14, 20, 26, 32, ..., got {depth!r}.")
        layers: list[nn.Module] = [_conv3x3(_image_channels("resnet", input_shape, 8), maps)]
        for stage in range(3):
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_PreActivationBlock(maps, width * 2**stage, stride))
                maps = width * 2**stage
        head = [nn.BatchNorm2d(maps), nn.ReLU(), _GlobalMean(), nn.Linear(maps, outputs)]
        self.net = nn.Sequential(*layers, *head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, C, H, W)``."""
        return _logits(self.net, x)


class _PreActivationBlock(nn.Module):
    def __init__(self, maps_in: int, maps_out: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(maps_in), nn.ReLU())
        self.residual = nn.Sequential(
            _conv3x3(maps_in, maps_out, stride),
            nn.BatchNorm2d(maps_out),
            nn.ReLU(),
            _conv3x3(maps_out, maps_out),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or maps_in != maps_out:
            self.shortcut = nn.Conv2d(maps_in, maps_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        residual: Tensor = self.residual(active)
        return residual + (x if self.shortcut is None else self.shortcut(active))


class _GlobalMean(nn.Module):
    """Mean over H and W; unlike ``AdaptiveAvgPool2d`` its backward is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


def _conv3x3(maps_in: int, maps_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(maps_in, maps_out, 3, stride, padding=1, bias=False)


def _conv_bn_relu(maps_in: int, maps_out: int, stride: int = 1) -> list[nn.Module]:
    return [_conv3x3(maps_in, maps_out, stride), nn.BatchNorm2d(maps_out), nn.ReLU()]


def _dropout(probability: float) -> list[nn.Module]:
    return [nn.Dropout(probability)] if probability > 0 else []


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = net(x)
    return logits


def _image_channels(model: str, input_shape: Sequence[int], smallest: int, hint: str = "") -> int:
    shape = check_ints("input_shape", input_shape)
    if len(shape) != 3:
        kind = "vectors" if len(shape) == 1 else "arrays"
        raise ValueError(f"model={model} needs images (C, H, W), data gives {kind} of shape {shape}. Use model=mlp.")
    if min(shape[1:]) < smallest:
        raise ValueError(
            f"model={model} needs images of at least {smallest}x{smallest} pixels, "
            f"data gives {shape[1]}x{shape[2]}. Use {hint}model=mlp."
        )
    return shape[0]
