"""TemperatureScaling: what one number, fitted on validation data, makes of a model's calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from typing_extensions import override

from ls_lightning.callbacks.beside import first_of
from ls_lightning.callbacks.calibration_monitor import CalibrationMonitor
from ls_lightning.callbacks.scaled_logits import ScaledLogits
from ls_lightning.callbacks.stage_metrics import Build, Measured, StageMetrics, by_loader, log_values
from ls_lightning.callbacks.step_outputs import Outputs, Read, Stage, StepOutputs
from ls_lightning.callbacks.temperature_fit import FitOnValidation
from ls_lightning.functional.temperature import BOUNDS, TemperatureFit
from ls_lightning.metrics import default_metrics
from ls_lightning.tap import Select


class TemperatureScaling(L.Callback):
    r"""Fit a temperature on validation logits, and measure the test data with it, beside the plain values.

    .. math:: \arg\min_T \; -\frac{1}{N} \sum_i \log \mathrm{softmax}(z_i / T)_{y_i}

    The baseline that smoothing has to beat: it moves confidence and leaves accuracy as it is. Every validation fits
    T anew, to 1e-6 and to the same bits on any number of ranks, so T in a checkpoint is always that of its
    weights. A test without a validation before it takes T from ``ckpt_path``. Logged are ``ls/temperature``,
    ``val_scaled/nll`` (the NLL left on validation, which ``ModelCheckpoint(monitor=...)`` may watch) and
    ``test_scaled/ece``, ... beside ``test/ece``, ....

    Args:
        bounds: the least and the greatest temperature.
        dataloader_idx: the validation loader to fit on, if there are several.
        max_values: logits to keep, over all ranks; the usual 2**26 are 256 MiB in float32. Of more, e.g. in
            segmentation, a sample of the rows is used, and said so.
        seed: which rows.
        offload: keep the logits on the CPU rather than on the device, whose memory is free in validation; each step
            then waits for the device.
        metrics: as for :class:`~ls_lightning.CalibrationMonitor`; None takes those of the monitor beside it, else
            :func:`~ls_lightning.metrics.default_metrics`.
        target: as for the monitor; None takes what that measures.
        read: the same.
        strict: False warns and fits nothing where True raises a LookupError; counts if ``target`` or ``read`` is
            given or there is no monitor.

    Attributes:
        fit: temperature, n, nll_before, nll_after and at_boundary of the last fit; None before it.
        results: scaled metrics, ``{"test": {"acc": ..., "n": ...}}``.

    Raises:
        ValueError: ``bounds``, ``max_values`` or ``dataloader_idx`` is out of range.
        LookupError: a step did not call a loss, or called several.

    Example:
        >>> scaling = TemperatureScaling()
        >>> trainer = L.Trainer(callbacks=[CalibrationMonitor(), scaling], logger=False)
        >>> scaling.temperature is None  # until trainer.fit or trainer.validate
        True

    Source: Guo et al. 2017, arXiv:1706.04599. Choosing epochs by the NLL after scaling: Berta et al. 2025,
    arXiv:2501.19195.
    """

    def __init__(
        self,
        bounds: Sequence[float] = BOUNDS,
        dataloader_idx: int = 0,
        max_values: int = 2**26,
        seed: int = 0,
        offload: bool = False,
        metrics: Build | None = None,
        target: str | Select | None = None,
        read: Read | None = None,
        strict: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(dataloader_idx, bool) or not isinstance(dataloader_idx, int) or dataloader_idx < 0:
            raise ValueError(f"dataloader_idx must be an integer, 0 or larger, got {dataloader_idx!r}.")
        self.metrics = metrics
        self.dataloader_idx = dataloader_idx
        self.results: dict[str, dict[str, float]] = {}
        self.measured: dict[str, Measured] = {}
        self._fit = FitOnValidation(bounds, max_values, seed, offload)
        self._own = StepOutputs("TemperatureScaling", target or "auto", read, strict)
        self._takes_own = target is not None or read is not None
        self._outputs = self._own
        self._scaler: ScaledLogits | None = None
        self._stage_metrics = StageMetrics(default_metrics, 0)
        self._weights_of = 0
        self._validated: Any = None  # the checkpoint that was fitted on by trainer.validate
        self._keeps = False

    @property
    def fit(self) -> TemperatureFit | None:
        """The last fit."""
        return self._fit.found

    @property
    def temperature(self) -> float | None:
        """T of the last fit; None before it."""
        return None if self.fit is None else self.fit.temperature

    def module(self) -> ScaledLogits:
        """What applies T: ``nn.Sequential(net, scaling.module())``; to probabilities, if the module's loss took those.

        Raises:
            RuntimeError: nothing was fitted.
        """
        if self.fit is None:
            raise RuntimeError("no temperature was fitted yet: call trainer.fit or trainer.validate first.")
        return ScaledLogits(self.fit.temperature, self._fit.input)

    def summary(self) -> dict[str, Any] | None:
        """The fit as plain values, as in ``result.json``; None before it."""
        if self.fit is None:
            return None
        temperature, *rest = self.fit
        return {"T": temperature, **dict(zip(TemperatureFit._fields[1:], rest, strict=True)), "share": self._fit.share}

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":  # a checkpoint is loaded after this
            self._fit.found = None
            self._validated = None

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module, "val")
        if self.dataloader_idx >= self._outputs.num_loaders:
            raise ValueError(
                f"dataloader_idx must name one of the {self._outputs.num_loaders} validation loaders, counted from 0, "
                f"got {self.dataloader_idx}."
            )
        self._fit.start()

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        found = self._outputs.of_batch(pl_module, batch, outputs, batch_idx, dataloader_idx)
        if found is not None and dataloader_idx == self.dataloader_idx and not trainer.sanity_checking:
            self._fit.add(trainer, found)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or self._outputs.given_up:
            return
        self._fit.fit(trainer, pl_module.device)
        nll = math.nan if self.fit is None else self.fit.nll_after
        log_values(trainer, pl_module, "ls", {"ls": {"temperature": self.temperature or math.nan}})
        log_values(trainer, pl_module, "val_scaled", {"val_scaled": {"nll": nll}})
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._validated = trainer.ckpt_path
            self._fit.warn_of_boundary()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._outputs.close()

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fit.warn_of_boundary()

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.results, self.measured = {}, {}
        self._scaler = None
        if self.fit is None:
            rank_zero_warn(
                "TemperatureScaling has no temperature, so nothing is scaled. Validate before testing, or test with "
                "the ckpt_path of a run that had this callback."
            )
            return
        weights_of = self._weights_of if trainer.ckpt_path and not self._keeps else trainer.global_step
        if weights_of != self._fit.step:
            rank_zero_warn(
                f"T = {self.temperature:.4g} was fitted at step {self._fit.step}, and the weights are of step "
                f"{weights_of}. Validate before testing."
            )
        self._open(trainer, pl_module, "test")
        self._scaler = ScaledLogits(self.fit.temperature).to(pl_module.device)

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._scaler is None:
            return
        found = self._outputs.of_batch(pl_module, batch, outputs, batch_idx, dataloader_idx)
        if found is not None:
            self._stage_metrics.update(dataloader_idx, scaled_outputs(found, self._scaler))

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._scaler is None or self._outputs.given_up:
            return
        self.measured = by_loader("test", self._stage_metrics.measure(trainer, pl_module.device))
        self.results = {key: one.values for key, one in self.measured.items()}
        scaled = {key.replace("test", "test_scaled", 1): values for key, values in self.results.items()}
        log_values(trainer, pl_module, "test_scaled", scaled)

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._outputs.close()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._forget()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._forget()

    @override
    def state_dict(self) -> dict[str, Any]:
        found = self.summary()
        return {} if found is None else {**found, "step": self._fit.step, "input": self._fit.input}

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._keeps = self.fit is not None and trainer.ckpt_path == self._validated
        if not self._keeps:
            self._fit.found = None  # of other weights; what the checkpoint has is loaded after this
            self._weights_of = checkpoint.get("global_step", 0)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._keeps:
            return
        self._fit.found = TemperatureFit(state_dict["T"], *(state_dict[name] for name in TemperatureFit._fields[1:]))
        self._fit.share = state_dict["share"]
        self._fit.step = state_dict["step"]
        self._fit.input = state_dict.get("input", "logits")

    def _open(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Stage) -> None:
        monitor = first_of(trainer, CalibrationMonitor)
        self._outputs = self._own if monitor is None or self._takes_own else monitor.step_outputs
        self._outputs.open(trainer, pl_module, stage)
        build = self.metrics or (default_metrics if monitor is None else monitor.build)
        self._stage_metrics = StageMetrics(build, self._outputs.num_loaders)

    def _forget(self) -> None:
        self._outputs.forget()
        self._fit.start()
        self._scaler = None


def scaled_outputs(found: Outputs, scaler: ScaledLogits) -> Outputs:
    """With logits divided by T, in float32 or better."""
    logits = found.logits
    options = {name: value for name, value in found.options.items() if name != "input"}
    if found.options.get("input") == "probs":
        wide = logits.float() if logits.device.type == "mps" else logits.double()  # mps has no float64
        logits = torch.logit(wide.clamp(0, 1))
    return found._replace(logits=scaler(logits.float() if logits.dtype.itemsize < 4 else logits), options=options)
