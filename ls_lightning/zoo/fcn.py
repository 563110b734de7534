"""FCN: a small fully convolutional network, logits for every pixel."""

from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_int, check_ints


class FCN(nn.Module):
    r"""Dilated 3x3 convolutions at full resolution, then a linear map of each pixel's features.

    .. math:: h_l = \mathrm{relu}(\mathrm{bn}(W_l *_{d_l} h_{l-1})),\quad z_{hw} = W h_{L,hw} + b

    With dilations d a logit sees the :math:`1 + 2 \sum_l d_l` pixels around it in each direction.

    Args:
        input_shape: ``(C, H, W)``.
        num_outputs: K, at least 1.
        channels: feature maps of each layer.
        dilations: of each layer.

    Returns:
        Called with ``(N, C, H, W)``: logits ``(N, K, H, W)``.

    Raises:
        ValueError: the input is no image, or a size is not a positive integer.

    Example:
        >>> import torch
        >>> FCN((1, 9, 7), 4, channels=2)(torch.zeros(2, 1, 9, 7)).shape
        torch.Size([2, 4, 9, 7])

    Source: Long, Shelhamer and Darrell 2015, arXiv:1411.4038; Yu and Koltun 2016, arXiv:1511.07122 (dilations).
    """

    def __init__(
        self, input_shape: Sequence[int], num_outputs: int, *, channels: int = 16, dilations: Sequence[int] = (1, 2, 4)
    ) -> None:
        super().__init__()
        shape, outputs = check_ints("input_shape", input_shape), check_int("num_outputs", num_outputs)
        if len(shape) != 3:
            raise ValueError(f"model=fcn needs images (C, H, W), data gives samples of shape {shape}. Use model=mlp.")
        maps, width = shape[0], check_int("channels", channels)
        layers: list[nn.Module] = []
        for dilation in check_ints("dilations", dilations):
            convolution = nn.Conv2d(maps, width, 3, padding=dilation, dilation=dilation, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            maps = width
        self.net = nn.Sequential(*layers, nn.Conv2d(maps, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K, H, W)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.net(x)
        return logits
