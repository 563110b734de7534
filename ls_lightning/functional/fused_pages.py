"""Memory for a gradient that the system hands out in large pages."""

import ctypes
import sys

import torch
from torch import Tensor

_LARGE = 2**24
_PAGE, _MADV_HUGEPAGE = 2**21, 14


def empty_like(values: Tensor) -> Tensor:
    """Return what [`torch.empty_like`] does; where Linux allows it, in pages of 2 MB.

    Writing to a large new tensor for the first time takes longer than to compute what is written: the system
    provides it page by page, and by default a page is 4 KB.
    """
    memory = torch.empty_like(values)
    size = memory.numel() * memory.element_size()
    if size >= _LARGE and values.device.type == "cpu" and sys.platform == "linux":
        begin = -(-memory.data_ptr() // _PAGE) * _PAGE
        end = (memory.data_ptr() + size) // _PAGE * _PAGE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_HUGEPAGE)  # only advice
    return memory
