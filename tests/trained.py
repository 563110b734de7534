"""A module that keeps what it was trained on, and what that scores; ``python trained.py FOLDER DEVICES``: on ranks."""

import json
import os
import sys

import torch
from nets import Data, Net, trainer
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

import ls_lightning as ls


class Recorder(Net):
    """Keeps what it was trained on, epoch by epoch."""

    def on_train_epoch_start(self):
        self.batches = []
        self.epochs = [*getattr(self, "epochs", []), self.batches]

    def keep(self, logits, y):
        self.batches.append((logits.detach().clone().double(), y.clone()))

    def loss(self, batch):
        x, y = batch
        logits = self(x)
        if self.trainer.training:
            self.keep(logits, y)
        return self.criterion(logits, y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)


def judged(batches):
    """By torch and torchmetrics."""
    logits, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    p = logits.softmax(1)
    return {
        "acc": multiclass_accuracy(p, y, p.shape[1], average="micro").item(),
        "nll": F.cross_entropy(logits, y).item(),
        "brier": (p - F.one_hot(y, p.shape[1])).square().sum(1).mean().item(),
        "ece": multiclass_calibration_error(p, y, p.shape[1], n_bins=15).item(),
        "mce": multiclass_calibration_error(p, y, p.shape[1], n_bins=15, norm="max").item(),
        "gap": (p.amax(1) - (p.argmax(1) == y).double()).mean().item(),
        "n": len(y),
    }


def main(folder, devices):
    net, monitor = Recorder(), ls.CalibrationMonitor(train=True)
    callbacks = ls.LabelSmoothing(eps=0.2), monitor
    t = trainer(folder, *callbacks, devices=devices, strategy="ddp")
    t.fit(net, datamodule=Data(25))  # one of them is trained on twice
    found = {
        "logits": [logits.tolist() for logits, _ in net.batches],
        "y": [y.tolist() for _, y in net.batches],
        "results": monitor.results,
        "logged": {key: value.item() for key, value in t.callback_metrics.items()},
    }
    rank = int(os.environ.get("LOCAL_RANK", 0))
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
