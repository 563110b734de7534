"""Pictures of overlapping shapes, and which shape each pixel belongs to."""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

SHAPES = ("background", "diamond", "disc", "square")

_SQUARED_RADIUS_OF_AREA = (1 / 2, 1 / math.pi, 1 / 4)


def draw_shapes(count: int, size: int, num_shapes: int, noise: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Draw grey pictures of diamonds, discs and squares, equal in area, that are placed one over the other.

    A shape of radius r around c holds the pixels x with :math:`\|x - c\|_p \le r`: p is 1, 2 or infinity. Where shapes
    overlap their brightness adds up, as of transparencies, while the label is that of the last: which one it was, the
    picture does not tell. So even the best model is unsure, and has to say how much.

    Args:
        count: N pictures.
        size: height and width, in pixels.
        num_shapes: shapes of each picture.
        noise: standard deviation of normal noise, in units of the brightest shape.
        rng: source of all chance.

    Returns:
        Pixels ``(N, 1, size, size)``, uint8, the same on every machine since rounded from float64; and labels
        ``(N, size, size)``, int64, places in `SHAPES`.

    Example:
        >>> pixels, labels = draw_shapes(2, size=8, num_shapes=1, noise=0.1, rng=torch.Generator().manual_seed(0))
        >>> pixels.shape, labels.shape, len(labels[0].unique())
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 8, 8]), 2)
    """

    def uniform(low: float, high: float) -> Tensor:
        draws = torch.rand((count, num_shapes, 1, 1), generator=rng, dtype=torch.float64)
        return low + (high - low) * draws

    kind = uniform(0, 3).long()
    radius = (uniform(0.03, 0.12) * size**2 * torch.tensor(_SQUARED_RADIUS_OF_AREA, dtype=torch.float64)[kind]).sqrt()
    brightness = uniform(0.5, 1)
    place = torch.arange(size, dtype=torch.float64) + 0.5
    dx, dy = (place - uniform(0, size)).abs(), (place[:, None] - uniform(0, size)).abs()
    distance = torch.where(kind == 0, dx + dy, torch.where(kind == 1, (dx**2 + dy**2).sqrt(), torch.maximum(dx, dy)))
    light = (brightness * (radius - distance + 0.5).clamp(0, 1)).sum(1, keepdim=True)
    light = light + noise * torch.randn(light.shape, generator=rng, dtype=torch.float64)
    labels = torch.zeros((count, size, size), dtype=torch.int64)
    for inside, number in zip((distance <= radius).unbind(1), (kind + 1).unbind(1), strict=True):
        labels = torch.where(inside, number, labels)
    return (64 + 64 * light).round().clamp(0, 255).to(torch.uint8), labels


def mask_border(labels: Tensor, width: int, value: int) -> Tensor:
    """Label maps with ``value`` at every pixel that has another label within ``width`` pixels, diagonals included.

    Args:
        labels: ``(N, H, W)``, int64.
        width: in pixels; 0 masks nothing.
        value: of the masked pixels.

    Example:
        >>> mask_border(torch.tensor([[[0, 0, 0, 1, 1]]]), width=1, value=255)
        tensor([[[  0,   0, 255, 255,   1]]])
    """
    maps = labels.double().unsqueeze(1)
    highest, lowest = (sign * max_pool2d(sign * maps, 2 * width + 1, stride=1, padding=width) for sign in (1, -1))
    return labels.masked_fill((highest != lowest).squeeze(1), value)
