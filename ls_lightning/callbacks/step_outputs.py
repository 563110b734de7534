"""StepOutputs: the logits and targets of a validation or test step, whatever the module calls its loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import lightning as L
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DistributedSampler

from ls_lightning.callbacks.only_call import OnlyCall
from ls_lightning.callbacks.only_call import Read as Read
from ls_lightning.callbacks.step_context import enter_with_step, nothing
from ls_lightning.tap import LossCall, Select, Tap

Stage = Literal["val", "test"]

_MISSING = -100  # what metrics and fits leave out unless they are told otherwise


class Outputs(NamedTuple):
    """What is measured of a batch, without the repeats of the sampler.

    Attributes:
        logits: detached; rows may be several a sample.
        target: class indices, or 0 and 1.
        options: ``task``, and where they are known ``ignore_index`` and ``input``, as the metrics take them.
        samples: how many samples of the data set the rows are of.
        statistics: what a smoothing loss has left of the rows, ``(4, S)``; the logits then are a shape without data.
    """

    logits: Tensor
    target: Tensor
    options: dict[str, Any]
    samples: int
    statistics: Tensor | None = None

    @property
    def num_classes(self) -> int | None:
        """K, or the number of labels; None for binary."""
        return None if self.options["task"] == "binary" else int(self.logits.shape[1])


class StepOutputs:
    """Sees with which logits and targets the module calls its loss; several callbacks may share one.

    Args:
        owner: the name of the callback, for messages.
        target: which call counts, see :class:`~ls_lightning.CalibrationMonitor`.
        read: in place of the calls, see there.
        strict: False warns once where True raises a LookupError.
    """

    def __init__(
        self, owner: str, target: str | Select = "auto", read: Read | None = None, strict: bool = True
    ) -> None:
        self.owner = owner
        self.target = target
        self.read = read
        self.num_loaders = 0
        self._only = OnlyCall(owner, target, read, strict)
        self._taps: dict[str, Tap] = {}
        self._stage: Stage | None = None
        self._real: list[int | None] = []
        self._sizes: list[tuple[int, int] | None] = []
        self._calls: list[LossCall] = []
        self._last: tuple[tuple[int, int], Outputs | None] | None = None
        self._undo: Callable[[], None] = nothing

    @property
    def given_up(self) -> bool:
        """Whether nothing is measured, as a warning has said."""
        return self._only.given_up

    def open(
        self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Stage, loaders: list[Any] | None = None
    ) -> None:
        """Begin a stage; a second callback that opens it changes nothing. Own ``loaders`` repeat no sample."""
        if self._stage == stage:
            return
        self.close()
        self._stage = stage
        theirs = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
        ranks = trainer.world_size if loaders is None else 1
        loaders = CombinedLoader(theirs, "sequential").flattened if loaders is None else loaders
        self.num_loaders = len(loaders)
        self._real = [self._real_samples(loader, ranks) for loader in loaders]
        self._sizes = [_sizes(loader) for loader in loaders]
        if self.read is None:
            if stage not in self._taps:
                self._taps[stage] = Tap(pl_module, self._see, self.target)
            self._undo = enter_with_step(trainer, stage, self._taps[stage].step)

    def close(self) -> None:
        """End the stage; nothing of it is kept."""
        self._undo()
        self._undo = nothing
        self._stage = None
        self._real, self._sizes = [], []
        self._calls = []
        self._last = None

    def forget(self) -> None:
        """Close, and let go of the module."""
        self.close()
        self._taps.clear()

    def of_batch(
        self, pl_module: L.LightningModule, batch: Any, outputs: Any, batch_idx: int, dataloader_idx: int
    ) -> Outputs | None:
        """What the step that has just ended was about; None if that cannot be known.

        Raises:
            LookupError: the step called no loss, or several.
        """
        if self.given_up:
            return None
        if self._last is not None and self._last[0] == (batch_idx, dataloader_idx):
            return self._last[1]
        calls, self._calls = self._calls, []
        stage = self._stage or "val"
        seen = self._taps[stage].calls if stage in self._taps else 0
        call = self._only.of_step(calls, seen, stage, pl_module, batch, outputs)
        found = None if call is None else self._without_repeats(*read_call(call), batch_idx, dataloader_idx)
        self._last = (batch_idx, dataloader_idx), found
        return found

    def _see(self, call: LossCall) -> None:
        self._calls.append(call)

    def _without_repeats(
        self, logits: Tensor, target: Tensor, options: dict[str, Any], batch_idx: int, dataloader_idx: int
    ) -> Outputs:
        rows, real, sizes = len(logits), self._real[dataloader_idx], self._sizes[dataloader_idx]
        if sizes is None:
            return Outputs(logits, target, options, rows)
        size, total = sizes
        samples = min(size, total - batch_idx * size)
        if real is None:
            return Outputs(logits, target, options, samples)
        left = min(samples, max(0, real - batch_idx * size))
        keep = rows * left // samples
        return Outputs(logits[:keep], target[:keep], options, left)

    def _real_samples(self, loader: Any, world_size: int) -> int | None:
        """How many samples of this rank are not repeats; None where nothing is repeated, or nobody can know."""
        if world_size == 1:
            return None
        sampler = getattr(loader, "sampler", None)
        if type(sampler) is not DistributedSampler:
            rank_zero_warn(
                f"{self.owner} cannot tell which samples {type(sampler).__name__} repeats on {world_size} ranks, so "
                "values may count some twice. Use a map-style dataset and leave the sampler to Lightning."
            )
            return None
        # Shuffled or not, repeats are appended before the positions are dealt out in turn.
        total = len(sampler.dataset)  # type: ignore[arg-type]
        return max(0, math.ceil((total - sampler.rank) / sampler.num_replicas))


def _sizes(loader: Any) -> tuple[int, int] | None:
    """The samples of a batch, and of this rank; None where nobody can know."""
    size: int | None = getattr(loader, "batch_size", None)
    sampler: Any = getattr(loader, "sampler", None)
    return None if size is None or not hasattr(sampler, "__len__") else (size, len(sampler))


def read_call(call: LossCall) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits, hard target, and the options of the metrics that fit them."""
    logits, target = call.batch()
    if logits.requires_grad or target.requires_grad:
        logits, target = logits.detach(), target.detach()
    options: dict[str, Any] = {"input": "probs"} if call.input == "probs" else {}
    kind = call.kind
    if kind == "binary" or (kind is None and logits.shape == target.shape):
        weight = call.options.get("weight")
        if isinstance(weight, Tensor):  # of 0: a label that is not there
            missing = weight.broadcast_to(call.logits.shape).reshape(logits.shape) == 0
            target = target.float().masked_fill(missing, _MISSING)
        task = "multilabel" if logits.ndim > 1 and logits.shape[1] > 1 else "binary"
        return logits, target, {**options, "task": task}
    if target.is_floating_point() and target.shape == logits.shape:
        target = target.argmax(1)
    return logits, target, {"task": "multiclass", "ignore_index": call.options.get("ignore_index", -100)}
