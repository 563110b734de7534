"""One optimizer for all networks of a stack, in which each has its own settings, clipping and state."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import Tensor, nn

from ls_lightning.stacked.network import packed, part_of

_OTHER_WAYS = ("foreach", "fused", "differentiable", "capturable")


class StackedOptimizer:
    """Parameters ``(M, ...)`` in an elementwise optimizer.

    Networks of equal settings that stand in a row are a group, whose parameters are slices of the stacked ones: views
    of the same memory, as it lies.

    Args:
        parameters: of the stacked network.
        settings: of each network, as its configuration has them.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Sequence[dict[str, Any]]) -> None:
        self._parameters = list(parameters)
        self._parts: list[tuple[slice, list[nn.Parameter]]] = []
        self._fused: list[Any] = []
        groups: list[dict[str, Any]] = []
        for part in _runs(settings):
            own = {key: value for key, value in settings[part.start].items() if not key.startswith("_")}
            slices = [nn.Parameter(packed(parameter.detach()[part])) for parameter in self._parameters]
            self._parts.append((part, slices))
            self._fused.append(own.get("fused"))
            groups.append({**own, **_fused(settings[part.start]), "params": slices})
        self.optimizer: torch.optim.Optimizer = instantiate(settings[0], _partial_=True)(groups)

    def take_gradients(self) -> None:
        """Show the optimizer the gradients of the stacked parameters."""
        for part, slices in self._parts:
            for own, parameter in zip(slices, self._parameters, strict=True):
                own.grad = None if parameter.grad is None else packed(parameter.grad[part])

    def state_of(self, state: dict[str, Any], member: int) -> dict[str, Any]:
        """What the optimizer of one network would have, out of ``optimizer.state_dict()``."""
        index = next(k for k, (part, _) in enumerate(self._parts) if part.start <= member < part.stop)
        group, place = state["param_groups"][index], member - self._parts[index][0].start
        numbers: list[int] = group["params"]
        own = {
            k: {name: _part(value, place) for name, value in state["state"][number].items()}
            for k, number in enumerate(numbers)
            if number in state["state"]
        }
        alone = {**group, "params": list(range(len(numbers)))}
        if "fused" in alone:
            alone["fused"] = self._fused[index]
        return {"state": own, "param_groups": [alone]}


def clip_members(parameters: Sequence[nn.Parameter], value: float, algorithm: str | None) -> None:
    """Clip the gradients ``(M, ...)`` of each network as torch clips those of one.

    Args:
        parameters: with gradients.
        value: the largest norm; for ``algorithm="value"`` the largest size of a number.
        algorithm: ``"norm"``, which None stands for, or ``"value"``.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if algorithm == "value":
        for gradient in gradients:
            gradient.clamp_(-value, value)
        return
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    factors = (value / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *(1,) * (gradient.ndim - 1)))


def _runs(settings: Sequence[dict[str, Any]]) -> Iterator[slice]:
    start = 0
    for _, run in groupby(settings):
        size = len(list(run))
        yield slice(start, start + size)
        start += size


def _fused(settings: dict[str, Any]) -> dict[str, bool]:
    """One kernel for all of an optimizer's arithmetic, where torch has it and no other way is asked for."""
    known = inspect.signature(get_class(settings["_target_"])).parameters
    return {"fused": True} if "fused" in known and not any(settings.get(way) for way in _OTHER_WAYS) else {}


def _part(value: object, member: int) -> object:
    """The steps are counted for all at once; every other tensor has the parameter's shape."""
    if not isinstance(value, Tensor):
        return value
    return part_of(packed(value), member) if value.ndim else torch.clone(value)
