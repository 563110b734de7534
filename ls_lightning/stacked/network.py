"""Networks of one architecture as one network, whose parameters have a dimension more."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class StackedNetwork(nn.Module):
    """Networks of one architecture: parameters and buffers ``(M, ...)``.

    Linear layers are one batched product each, and dropout draws what each network draws alone, on a CPU; other layers
    are mapped over the networks by ``torch.func``, batch norm with the running statistics of each among them.

    Args:
        networks: M of them, on the CPU, whose layers are those of their ``net``; they are not changed.

    Attributes:
        draws: whether there is dropout in them.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(networks))
        self._names, self._buffer_names = list(parameters), list(buffers)
        self.stacked = nn.ParameterList(
            [nn.Parameter(packed(packed(value.detach()).contiguous())) for value in parameters.values()]
        )
        for k, value in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{k}", value)
        template = copy.deepcopy(networks[0].get_submodule("net")).to("meta")
        names = [*self._names, *self._buffer_names]
        self._layers = [  # in a list: not a part of this module
            (layer, {key.removeprefix(f"net.{child}."): key for key in names if key.startswith(f"net.{child}.")})
            for child, layer in template.named_children()
        ]
        self._count = len(networks)
        self.draws = any(isinstance(layer, nn.Dropout) for layer in template.modules())
        self._generators: list[torch.Generator] = []

    def forward(self, x: Tensor, shared: bool = False) -> Tensor:
        """Logits ``(M, B, K)`` of inputs ``(M, B, ...)``, or of inputs ``(B, ...)`` that the networks share."""
        tensors = self._by_name()
        x = x.expand(self._count, *x.shape) if shared else x
        for layer, keys in self._layers:
            if layer.training != self.training:  # Lightning sets the flag of modules that it knows
                layer.train(self.training)
            x = self._pass(layer, {own: tensors[key] for own, key in keys.items()}, x)
        return x

    def seed(self, seeds: Sequence[int]) -> None:
        """Give the dropout of each network its numbers; before each step, where there is any."""
        if not self._generators:
            self._generators = [torch.Generator(self.stacked[0].device) for _ in seeds]
        for seed, generator in zip(seeds, self._generators, strict=True):
            generator.manual_seed(seed)

    def state_of(self, member: int) -> dict[str, Tensor]:
        """The state dict of one of the networks."""
        return {name: part_of(value.detach(), member) for name, value in self._by_name().items()}

    def _by_name(self) -> dict[str, Tensor]:
        buffers = {name: self.get_buffer(f"buffer_{k}") for k, name in enumerate(self._buffer_names)}
        return dict(zip(self._names, self.stacked, strict=True)) | buffers

    def _pass(self, layer: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        if isinstance(layer, nn.Flatten):
            return x.flatten(2)
        if isinstance(layer, nn.Linear):
            weight = tensors["weight"].mT
            return torch.baddbmm(tensors["bias"].unsqueeze(1), x, weight) if "bias" in tensors else x.bmm(weight)
        if isinstance(layer, nn.ReLU):
            return x.relu()
        if isinstance(layer, nn.Dropout):
            return _drop(x, layer.p, self._generators) if layer.training else x
        found: Tensor = vmap(lambda own, rows: functional_call(layer, own, (rows,)))(tensors, x)
        return found


def part_of(stacked: Tensor, member: int) -> Tensor:
    """What one network has of a tensor ``(M, ...)``."""
    return stacked[member].clone(memory_format=torch.contiguous_format)


def packed(value: Tensor) -> Tensor:
    """A parameter ``(M, ...)`` as it lies in memory; twice is as it was.

    Matrices ``(M, out, in)`` lie as ``(M, in, out)``, so that their products and gradients need no copies.
    """
    return value.mT if value.ndim == 3 else value


def _drop(x: Tensor, p: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Dropout as torch computes it on a CPU, with numbers of each network's own."""
    kept = torch.empty_like(x)
    for own, generator in zip(kept, generators, strict=True):
        own.bernoulli_(1 - p, generator=generator)
    return x * kept.div_(1 - p)
