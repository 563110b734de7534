"""A segmentation data set that is generated: which shape does each pixel belong to?"""

from typing import Unpack

import torch
from torch import Tensor

from .checks import check_choice, check_int, check_scale
from .data_generated import GeneratedData, GeneratedOptions
from .shapes import SHAPES, draw_shapes, mask_border


class ShapesData(GeneratedData):
    """Noisy pictures of overlapping shapes: inputs ``(N, 1, S, S)``, targets int64 ``(N, S, S)``, 255 at borders.

    Args:
        task: ``"multiclass"``, 0 is background and 1 to 3 are diamond, disc and square; or ``"binary"``, targets
            float32, 1 in any shape.
        size: S, height and width, in pixels, at least 8.
        num_shapes: shapes of each picture, at least 1; the later lie over the earlier.
        input_noise: standard deviation of the noise, in units of the brightest shape, at least 0.
        border: pixels so near to another label are ignored; 0 ignores none.
        **options: see `GeneratedData`.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> data = ShapesData(num_train=4)
        >>> data.setup()
        >>> data.num_classes, data.input_shape, data.ignore_index
        (4, (1, 24, 24), 255)
    """

    ignore_index = 255

    def __init__(
        self,
        *,
        task: str = "multiclass",
        size: int = 24,
        num_shapes: int = 3,
        input_noise: float = 0.3,
        border: int = 1,
        **options: Unpack[GeneratedOptions],
    ) -> None:
        super().__init__(check_choice("task", task, ("multiclass", "binary")), **options)
        self.size = check_int("size", size, least=8)
        self.num_shapes = check_int("num_shapes", num_shapes)
        self.input_noise = check_scale("input_noise", input_noise)
        self.border = check_int("border", border, least=0)
        self.classes = SHAPES if task == "multiclass" else (SHAPES[0], "shape")
        self.num_classes = len(self.classes)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures and label maps."""
        pixels, labels = draw_shapes(count, self.size, self.num_shapes, self.input_noise, rng)
        return pixels, mask_border(labels.clamp(max=self.num_classes - 1), self.border, self.ignore_index)
