"""Networks of one architecture as one network, whose parameters have a dimension more."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from typing_extensions import override


class Block(nn.Module):
    """Networks of one architecture: parameters and buffers ``(m, ...)``.

    Args:
        networks: m of them, on the CPU; they are not changed.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(networks))
        self._names, self._buffer_names = list(parameters), list(buffers)
        self.stacked = nn.ParameterList([nn.Parameter(value.detach()) for value in parameters.values()])
        for k, value in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{k}", value)
        self._template = [copy.deepcopy(networks[0]).to("meta")]  # in a list: not a part of this module

    @override
    def train(self, mode: bool = True) -> Block:
        self._template[0].train(mode)
        super().train(mode)
        return self

    def forward(self, x: Tensor, shared: bool = False) -> Tensor:
        """Logits ``(m, B, K)`` of inputs ``(m, B, ...)``, or of inputs ``(B, ...)`` that the networks share."""
        parameters = dict(zip(self._names, self.stacked, strict=True))
        logits: Tensor = vmap(self._call, in_dims=(0, 0, None if shared else 0))(parameters, self._buffers_by_name(), x)
        return logits

    def state_of(self, member: int) -> dict[str, Tensor]:
        """The state dict of one of the networks."""
        tensors = dict(zip(self._names, self.stacked, strict=True)) | self._buffers_by_name()
        return {name: value.detach()[member].clone() for name, value in tensors.items()}

    def _buffers_by_name(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(f"buffer_{k}") for k, name in enumerate(self._buffer_names)}

    def _call(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template[0], (parameters, buffers), (x,))
        return logits


def optimizer_state_of(state: dict[str, object], group: int, member: int) -> dict[str, object]:
    """What the optimizer of one network would have, out of that of all blocks.

    Args:
        state: ``state_dict()`` of an elementwise optimizer with one group a block.
        group: the block.
        member: of the block.
    """
    groups: list[dict[str, object]] = state["param_groups"]  # type: ignore[assignment]
    numbers: list[int] = groups[group]["params"]  # type: ignore[assignment]
    every: dict[int, dict[str, object]] = state["state"]  # type: ignore[assignment]
    own = {
        k: {name: _part(value, member) for name, value in every[number].items()}
        for k, number in enumerate(numbers)
        if number in every
    }
    return {"state": own, "param_groups": [{**groups[group], "params": list(range(len(numbers)))}]}


def _part(value: object, member: int) -> object:
    """The steps are counted for all at once; every other tensor has the parameter's shape."""
    if not isinstance(value, Tensor):
        return value
    return value[member].clone() if value.ndim else torch.clone(value)
