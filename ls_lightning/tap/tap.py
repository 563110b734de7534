"""Tap: see every call of a classification loss in the steps of one module."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from ls_lightning.tap.call import Handle, LossCall, Quick, Select
from ls_lightning.tap.named import Named
from ls_lightning.tap.seam import Opening, places


class Tap:
    """Sees every call of a classification loss in the steps of one module.

    Args:
        module: the root, usually a LightningModule.
        handle: called with each :class:`LossCall`. If it has an attribute ``quick`` that is a function, that is called
            with logits and target where the module has called ``cross_entropy`` with nothing else, and answers in its
            place where it returns a tensor.
        target: ``"auto"`` for all calls of torch's losses; a predicate on the :class:`LossCall`; or the dotted path
            of a loss module or function of any kind, e.g. ``"criterion"``, whose calls are then the ones that count.

    Raises:
        LookupError: ``target`` is a path that leads nowhere.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> class Net(nn.Module):
        ...     def training_step(self, logits, y):
        ...         return F.cross_entropy(logits, y)
        >>> net, seen = Net(), []
        >>> tap = Tap(net, seen.append)
        >>> with tap.step():
        ...     loss = net.training_step(torch.zeros(2, 3), torch.tensor([0, 2]))
        >>> seen[0].function, seen[0].logits.shape
        ('cross_entropy', torch.Size([2, 3]))
    """

    def __init__(self, module: nn.Module, handle: Handle, target: str | Select = "auto") -> None:
        self.handle = handle
        self.calls = 0
        self._select = target if callable(target) else None
        self.quick: Quick | None = getattr(handle, "quick", None) if target == "auto" else None
        named = isinstance(target, str) and target != "auto"
        self._context = Named(self, module, str(target)) if named else Opening(self, places(module))

    def step(self) -> AbstractContextManager[None]:
        """A context that sees the calls made inside; afterwards everything is as it was."""
        return self._context

    def offer(self, call: LossCall) -> Tensor | None:
        """The handler's answer to a call."""
        # A count in compiled code recompiles a function that is called several times a step.
        if self._select is not None or not is_dynamo_compiling():
            if self.calls:
                call = call._replace(position=self.calls)
            self.calls += 1
        if self._select is not None and not self._select(call):
            return None
        return self.handle(call)
