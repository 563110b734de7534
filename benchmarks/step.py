"""What the callbacks add to a step: digits, batches of 128, an MLP, on bare Lightning and with what people add to it.

Bare Lightning trains and validates and measures nothing; LabelSmoothing and CalibrationMonitor smooth and measure nine
values in validation; the usual way is `label_smoothing=`, torchmetrics' accuracy and ECE, and `self.log`. Rows between
say what LabelSmoothing is made of. A job is what `python -m ls_lightning.train` runs, with every step in `metrics.csv`.
The fits take turns of eight steps; times are the processor's, and lower quartiles, which the load of a machine moves
least: of the steps, and of the means of a validation, since the monitor measures several batches at once. Where a fit
lies in memory makes its steps up to 2 % slower or faster, and so does being the first of them: so there are several
rounds of new fits, each begins with another one, and what counts are medians of the rounds.
Within a step nothing of ours is in the processor's caches; a loop says what it takes where it is.
Run: ``python benchmarks/step.py [rounds]``; it writes its section of ``benchmarks/RESULTS.md``.
"""

import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from results_page import machine, write_section
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from turns import Turn, Turns

import ls_lightning as ls
from ls_lightning.assemble import build_data, build_model
from ls_lightning.config import register_schema, settle
from ls_lightning.functional import smoothed_cross_entropy
from ls_lightning.job import quieten, run_job

BATCH, SKIPPED, EPOCHS, JOB_EPOCHS, LOOPS = 128, 20, 6, 24, 2048
Seconds = Mapping[str, list[float]]
SETTINGS = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Net(L.LightningModule):
    smoothing = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.net(x), y)

    def loss(self, logits, y):
        return F.cross_entropy(logits, y, label_smoothing=self.smoothing)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class ByTorch(Net):
    smoothing = 0.1


class ByUs(Net):
    def loss(self, logits, y):
        return smoothed_cross_entropy(logits, y, 0.1)


class Usual(ByTorch):
    def __init__(self) -> None:
        super().__init__()
        self.accuracy, self.ece = MulticlassAccuracy(10, average="micro"), MulticlassCalibrationError(10)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.log("val/loss", F.cross_entropy(logits, y))
        self.accuracy(logits, y)
        self.ece(logits, y)
        self.log("val/acc", self.accuracy)
        self.log("val/ece", self.ece)


class Untapped(ls.LabelSmoothing):
    """Sees no call: what its hooks cost."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self._undo()
        self._first = False


class ValidationClock(L.Callback):
    """The processor's time for a validation, by a callback that comes first at its start and last at its end."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def on_validation_start(self, trainer, pl_module):
        self.start = time.thread_time()

    def on_validation_end(self, trainer, pl_module):
        self.seconds.append((time.thread_time() - self.start) / sum(trainer.num_val_batches))


def loaders() -> tuple[DataLoader, DataLoader]:
    """The images repeated, so that an epoch has 56 batches."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32).repeat(4, 1) / 16, torch.tensor(y).repeat(4)
    data = TensorDataset(x, y)
    return DataLoader(data, BATCH, drop_last=True), DataLoader(data, BATCH, drop_last=True)


def fit(name: str, epochs: int, seconds: list[float], net: type[Net], *ours: Callable[[], L.Callback]) -> None:
    torch.set_num_threads(1)
    callbacks = [ValidationClock(seconds), *(make() for make in ours), Turn(name)]
    L.Trainer(callbacks=callbacks, max_epochs=epochs, **SETTINGS).fit(net(), *loaders())


def composed(name: str, epochs: int, folder: Path) -> tuple[DictConfig, dict[str, str]]:
    """The configuration of a job, as Hydra would hand it on, and the option chosen in each group."""
    typed = ["trainer=cpu", f"trainer.max_epochs={epochs}", "trainer.enable_progress_bar=false", "eps=0.1"]
    typed += ["callbacks.pictures=null", f"+callbacks.turn={{_target_: turns.Turn, name: {name}}}", f"name={name}"]
    with initialize_config_module("ls_lightning.conf", version_base="1.3"):
        cfg = compose("config", typed, return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(cfg.copy())
        choices = dict(cfg.hydra.runtime.choices)
        del cfg["hydra"]
    return settle(cfg, typed, choices), choices


def job(name: str, epochs: int, folder: Path, bare: bool) -> None:
    """A job of the command line, or its network and loader on bare Lightning."""
    torch.set_num_threads(1)
    cfg, choices = composed(name, epochs, folder)
    if not bare:
        run_job(cfg, folder, choices)
        return
    data = build_data(cfg)
    trainer = L.Trainer(callbacks=[Turn(name)], max_epochs=epochs, limit_val_batches=0, **SETTINGS)
    trainer.fit(build_model(cfg, data), datamodule=data)


def steps_of(fits: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of the steps of fits that take turns."""
    Turn.turns = Turns(list(fits))
    Turn.turns.run(fits)
    return {name: seconds[SKIPPED:] for name, seconds in Turn.turns.seconds.items()}


def turned(kinds: Mapping[str, Any], number: int) -> dict[str, Any]:
    """In the order of that round."""
    names = list(kinds)
    first = number % len(names)
    return {name: kinds[name] for name in [*names[first:], *names[:first]]}


def table(names: Sequence[str], *columns: Sequence[Seconds]) -> list[str]:
    """Medians over rounds: of lower quartiles in microseconds, and of their ratios to those of the first name."""
    lines = []
    for name in names:
        cells = []
        for rounds in columns:
            found = [1e6 * statistics.quantiles(one[name], n=4)[0] for one in rounds]
            base = [1e6 * statistics.quantiles(one[names[0]], n=4)[0] for one in rounds]
            ratio = statistics.median(t / b for t, b in zip(found, base, strict=True))
            cells.append(f"{statistics.median(found):.0f} | {ratio:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def compare_callbacks(rounds: int) -> list[str]:
    smoothing = partial(ls.LabelSmoothing, eps=0.1)
    kinds = {
        "bare Lightning": (Net,),
        "a callback without hooks": (Net, L.Callback),
        "`LabelSmoothing(0.1)` that sees no call": (Net, partial(Untapped, eps=0.1)),
        "the loss of `LabelSmoothing(0.1)`, called by the module": (ByUs,),
        "`LabelSmoothing(0.1)`": (Net, smoothing),
        "`LabelSmoothing(0.1)`, `CalibrationMonitor()`": (Net, smoothing, ls.CalibrationMonitor),
        "`LabelSmoothing(0.1)`, `CalibrationMonitor(train=True)`": (
            Net,
            smoothing,
            partial(ls.CalibrationMonitor, train=True),
        ),
        "`label_smoothing=0.1` of torch": (ByTorch,),
        "the usual way: that, torchmetrics, `self.log`": (Usual,),
    }
    steps, validations = [], []
    for number in range(rounds):
        validations.append({kind: [] for kind in kinds})
        fits = {kind: partial(fit, kind, EPOCHS, validations[-1][kind], *parts) for kind, parts in kinds.items()}
        steps.append(steps_of(turned(fits, number)))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    head = ["| | training step, µs | ratio | validation batch, µs | ratio |", "|---|---|---|---|---|"]
    return [*head, *table(list(kinds), steps, validations)]


class Loop(L.Callback):
    """Within a fit, the loss of a batch again and again, with all that callbacks do for it and nothing of the step."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx != SKIPPED:  # which is that of a first step no more
            return
        logits, y = torch.randn(BATCH, 10, requires_grad=True), batch[1]
        others = [callback for callback in trainer.callbacks if callback is not self]
        since = time.thread_time()
        for _ in range(LOOPS):
            with trainer.precision_plugin.train_step_context():
                loss = F.cross_entropy(logits, y)
            for callback in others:
                if callable(callback.on_train_batch_end):
                    callback.on_train_batch_end(trainer, pl_module, {"loss": loss}, batch, batch_idx)
        self.seconds.append((time.thread_time() - since) / LOOPS)


def compare_warm(rounds: int) -> list[str]:
    torch.set_num_threads(1)
    smoothing = partial(ls.LabelSmoothing, eps=0.1)
    kinds = {
        "`LabelSmoothing(0.1)`": (smoothing,),
        "`LabelSmoothing(0.1)`, `CalibrationMonitor(train=True)`": (
            smoothing,
            partial(ls.CalibrationMonitor, train=True),
        ),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind, ours in turned(kinds, number).items():
            callbacks = [*(make() for make in ours), Loop(seconds[kind])]
            L.Trainer(callbacks=callbacks, max_epochs=1, limit_val_batches=0, **SETTINGS).fit(Net(), *loaders())
    plain, both = (1e6 * statistics.median(found) for found in seconds.values())
    return [
        f"The loss of a batch of {BATCH} in a loop, with what callbacks do for it: {plain:.1f} µs with "
        f"`LabelSmoothing(0.1)`, {both:.1f} with `CalibrationMonitor(train=True)` beside it: its metrics take "
        f"{both - plain:.1f} µs, all additions of {LOOPS} batches included."
    ]


def compare_job(rounds: int) -> list[str]:
    kinds = {"bare Lightning": True, "a job": False}
    steps = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            jobs = {name: partial(job, name, JOB_EPOCHS, Path(folder, name), bare) for name, bare in kinds.items()}
            steps.append(steps_of(turned(jobs, number)))
    head = ["| `python -m ls_lightning.train` | training step, µs | ratio |", "|---|---|---|"]
    return [*head, *table(list(kinds), steps)]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 18
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quieten()
    register_schema()
    text = (
        f"## What the callbacks add to a step\n\n`python benchmarks/step.py`: digits, batches of {BATCH}, an MLP of "
        f"128 units, one thread; medians of {rounds} rounds of {EPOCHS} epochs, in turns of eight steps, of lower "
        f"quartiles of the processor's time.\n"
        f"{machine('torch', 'lightning', 'torchmetrics')}.\n\n"
    ) + "\n".join([*compare_callbacks(rounds), "", *compare_warm(rounds), "", *compare_job(rounds)])
    print(text)
    write_section("step", text)


if __name__ == "__main__":
    main()
