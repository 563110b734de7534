"""Let PyPI's torchvision, which is built for CUDA, import beside a CPU build of torch.

Its compiled part does not load there, and then the import fails for want of two operators, also in torchmetrics and
all that imports it. The tests here call neither: it is enough that their names exist. :func:`install` is called at
the start of Python by the file that ``run`` writes into its environment.
"""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_finder = _BeforeTorchvision()


def install():
    """Declare the operators as soon as torchvision is imported."""
    sys.meta_path.insert(0, _finder)
