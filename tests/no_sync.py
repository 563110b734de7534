"""A mode that finds what makes the host wait for a GPU, on a machine without one."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ls_lightning.functional import waiting


class NoSync(TorchDispatchMode):
    """Raises at an operation that would make the host wait for the device."""

    banned = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default", "is_nonzero")

    def __enter__(self):
        self.ready, waiting.READY = waiting.READY, frozenset()
        return super().__enter__()

    def __exit__(self, *error):
        waiting.READY = self.ready
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if any(word in name for word in self.banned):
            raise AssertionError(f"{name} waits for the device")
        if "index" in name and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in (args[1] if len(args) > 1 else ()) or ()
        ):
            raise AssertionError(f"{name} with a mask waits for the device")
        return func(*args, **(kwargs or {}))
