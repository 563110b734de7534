"""The losses by the clear formulation alone, the judge of the fast one, and whether the fast one was taken."""

from contextlib import contextmanager
from unittest import mock

import torch

from ls_lightning.functional import (
    fused_ce,
    fused_express,
    fused_quick,
    fused_smoothing,
    fused_tiny,
    fused_vmap,
    smoothing,
)
from ls_lightning.functional.native import loss as native_loss

LAYOUTS = {
    "few classes": lambda k: torch.randn(40, k),
    "pixels": lambda k: torch.randn(3, k, 4, 6),
    "few pixels": lambda k: torch.randn(30, k, 1),
    "channels last": lambda k: torch.randn(3, k, 4, 6).to(memory_format=torch.channels_last),
    "transposed": lambda k: torch.randn(k, 40).t(),
    "tokens": lambda k: torch.randn(4, 7, k).transpose(1, 2),
    "every other row": lambda k: torch.randn(80, k)[::2],
    "some columns": lambda k: torch.randn(40, k + 3)[:, 1 : k + 1],
    "some pixels": lambda k: torch.randn(3, k, 4, 6)[..., 1:4],
    "expanded": lambda k: torch.randn(1, k).expand(40, k),
}


@contextmanager
def clear():
    """Inside, no call goes the fast way."""
    not_quick = mock.patch.object(smoothing, "quick_loss", return_value=None)
    with not_quick, mock.patch.object(fused_smoothing, "_is_plain", return_value=False):
        yield


@contextmanager
def counted():
    """Lists the passes over logits that the fast way makes inside: whether each wrote a gradient."""
    passes = []

    def spied(own, position):
        def spy(*args):
            passes.append(args[position] is not None and args[position] is not False)
            return own(*args)

        return spy

    with (
        mock.patch.object(fused_ce, "smoothed_rows", spied(fused_ce.smoothed_rows, 5)),
        mock.patch.object(fused_express, "run_loop", spied(fused_express.run_loop, 3)),
        mock.patch.object(fused_quick, "run_form", spied(fused_quick.run_form, 2)),
        mock.patch.object(fused_tiny, "_compute", spied(fused_tiny._compute, 6)),
        mock.patch.object(fused_vmap, "smoothed_rows", spied(fused_vmap.smoothed_rows, 5)),
    ):
        yield passes


def value_and_gradient(loss, logits, *args, upstream=None, **options):
    """The loss and what it does to logits that are no leaf, whose strides are kept."""
    leaf = logits.detach().clone().requires_grad_()
    seen = leaf.as_strided(logits.size(), logits.stride()) if leaf.stride() != logits.stride() else leaf * 1
    seen.retain_grad()
    value = loss(seen, *args, **options)
    value.backward(value.new_ones(value.shape) if upstream is None else upstream)
    return value.detach(), seen.grad


def without_loop(monkeypatch):
    """As on a machine without a compiler."""
    monkeypatch.setattr(native_loss, "loop", lambda: None)
    monkeypatch.setattr(fused_quick, "_FORMS", {})
