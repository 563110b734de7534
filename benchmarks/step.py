"""What the callbacks add to a step: digits, batches of 128, an MLP, on bare Lightning and with what people add to it.

Bare Lightning trains and validates and measures nothing; LabelSmoothing and CalibrationMonitor smooth and measure nine
values in validation; the usual way is `label_smoothing=`, torchmetrics' accuracy and ECE, and `self.log`. They take
turns; a step of training is the median of all, a batch of validation the median over epochs of the epoch's mean, since
the monitor measures several batches at once.
Run: ``python benchmarks/step.py [rounds]``; it writes its section of ``benchmarks/RESULTS.md``.
"""

import logging
import statistics
import sys
import time
import warnings
from itertools import pairwise

import lightning as L
import torch
from results_page import machine, write_section
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

import ls_lightning as ls

BATCH, EPOCHS, SKIPPED = 128, 12, 2


class Net(L.LightningModule):
    smoothing = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.train_ends: list[list[float]] = []
        self.val_seconds: list[float] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y, label_smoothing=self.smoothing)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        F.cross_entropy(self.net(x), y)

    def on_train_epoch_start(self):
        self.train_ends.append([])

    def on_train_batch_end(self, *args):
        self.train_ends[-1].append(time.perf_counter())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Usual(Net):
    smoothing = 0.1

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


class ValidationClock(L.Callback):
    """The time of the whole validation loop, by a callback that comes first at its start and last at its end."""

    def on_validation_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_validation_end(self, trainer, pl_module):
        pl_module.val_seconds.append(time.perf_counter() - self.start)


def loaders() -> tuple[DataLoader, DataLoader]:
    """The images repeated, so that an epoch has 56 batches."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32).repeat(4, 1) / 16, torch.tensor(y).repeat(4)
    data = TensorDataset(x, y)
    return DataLoader(data, BATCH, drop_last=True), DataLoader(data, BATCH, drop_last=True)


def run(net: Net, *callbacks: L.Callback) -> tuple[list[float], list[float]]:
    """Seconds of each training step, and of a batch of validation in each epoch."""
    torch.manual_seed(0)
    train, val = loaders()
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[ValidationClock(), *callbacks],
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(net, train, val)
    ends = net.train_ends[SKIPPED:]
    steps = [after - before for epoch in ends for before, after in pairwise(epoch)]
    return steps, [seconds / len(val) for seconds in net.val_seconds[SKIPPED:]]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ours = (ls.LabelSmoothing, ls.CalibrationMonitor)
    kinds = {
        "bare Lightning": (Net,),
        "`LabelSmoothing(0.1)`": (Net, lambda: ls.LabelSmoothing(eps=0.1)),
        "`LabelSmoothing(0.1)`, `CalibrationMonitor()`": (Net, lambda: ls.LabelSmoothing(eps=0.1), ours[1]),
        "the usual way: `label_smoothing=0.1`, torchmetrics, `self.log`": (Usual,),
    }
    found: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in kinds}
    for _ in range(rounds):
        for kind, (net, *parts) in kinds.items():
            for kept, more in zip(found[kind], run(net(), *(make() for make in parts)), strict=True):
                kept += more
    base = [statistics.median(times) for times in found["bare Lightning"]]
    lines = ["| | training step, µs | ratio | validation batch, µs | ratio |", "|---|---|---|---|---|"]
    for kind, times in found.items():
        cells = [f"{1e6 * (m := statistics.median(t)):.0f} | {m / b:.3f}" for t, b in zip(times, base, strict=True)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    text = (
        f"## What the callbacks add to a step\n\n`python benchmarks/step.py`: digits, batches of {BATCH}, an MLP of "
        f"128 units, one thread, medians of {rounds} rounds in turn.\n"
        f"{machine('torch', 'lightning', 'torchmetrics')}.\n\n"
    ) + "\n".join(lines)
    print(text)
    write_section("step", text)


if __name__ == "__main__":
    main()
