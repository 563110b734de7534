"""What a user's script does on each rank, ``python ddp_script.py FOLDER DEVICES [STRATEGY]``: all ranks write down what
they saw.
"""

import json
import os
import sys
import warnings

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from nets import Data, LogProbNet, Net, trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

import ls_lightning as ls
from ls_lightning.schedules import Linear


class Loaders(Data):
    def __init__(self, *loaders):
        super().__init__()
        self.loaders = loaders

    def val_dataloader(self):
        return list(self.loaders)

    test_dataloader = val_dataloader


class Either(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.loss(batch)

    test_step = validation_step


class Dense(Either):
    def __init__(self):
        super().__init__(nn.CrossEntropyLoss(ignore_index=255))

    def forward(self, x):
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


class Flat(Dense):
    """Several rows a sample."""

    def loss(self, batch):
        return self.criterion(self(batch[0]).movedim(1, -1).reshape(-1, 5), batch[1].flatten())


class Binary(Either):
    def __init__(self):
        super().__init__(nn.BCEWithLogitsLoss())

    def loss(self, batch):
        return self.criterion(self(batch[0]), F.one_hot(batch[1], 5).double())


class Backwards(Sampler):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __iter__(self):
        return iter(range(self.size - 1, -1, -1))


def samples(n):
    return Data(n).set


def dense():
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(5, (26, 2, 3), generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.3] = 255
    return TensorDataset(torch.randn(26, 6, 2, 3, dtype=torch.float64, generator=generator), y)


CASES = {
    "plain": (Either, [DataLoader(samples(50), 8)]),
    "log_probs": (LogProbNet, [DataLoader(samples(50), 7)]),
    "one_batch": (Either, [DataLoader(samples(50), 50)]),
    "two": (Either, [DataLoader(samples(20), 8), DataLoader(samples(31), 8)]),
    "fewer_than_ranks": (Either, [DataLoader(samples(2), 8)]),
    "shuffled": (Either, [DataLoader(samples(50), 8, shuffle=True)]),
    "dense": (Dense, [DataLoader(dense(), 4)]),
    "flat": (Flat, [DataLoader(dense(), 4)]),
    "binary": (Binary, [DataLoader(samples(50), 8)]),
}


def measured(devices):
    found = {}
    for name, (cls, loaders) in CASES.items():
        for stage in ("validate", "test"):
            monitor = ls.CalibrationMonitor()
            t = trainer(None, monitor, **devices)
            getattr(t, stage)(cls(), datamodule=Loaders(*loaders), verbose=False)
            logged = {key: value.item() for key, value in t.callback_metrics.items() if "author" not in key}
            found[f"{name}_{stage}"] = {"results": exact(monitor.results), "logged": exact(logged)}
    return found


def exact(found):
    """Every bit of the numbers."""
    if isinstance(found, dict):
        return {key: exact(value) for key, value in found.items()}
    return float(found).hex()


def trained(devices, folder):
    found = {}
    for name in ("ours", "torch"):
        eps = 0.0 if name == "ours" else 0.2
        smoothing = [ls.LabelSmoothing(eps=0.2)] if name == "ours" else []
        net = Net(nn.CrossEntropyLoss(label_smoothing=eps))
        trainer(folder, *smoothing, **devices).fit(net, datamodule=Data(50))
        found[name] = [p.tolist() for p in net.parameters()], net.seen
    monitor, smoothing = ls.CalibrationMonitor(), ls.LabelSmoothing(schedule=Linear(0.3, 0.0))
    checkpoint = ModelCheckpoint(folder, monitor="val/ece", filename="best")
    stop = EarlyStopping("val/nll", patience=0, min_delta=100)
    t = trainer(folder, smoothing, monitor, checkpoint, stop, max_epochs=5, enable_checkpointing=True, **devices)
    t.fit(Net(), datamodule=Data(50))
    found["stopped"] = t.current_epoch
    found["best"] = checkpoint.best_model_score.item()
    found["best_path"] = os.path.basename(checkpoint.best_model_path)
    found["eps"] = smoothing.eps
    found["steps"] = t.global_step
    found["num_smoothed"] = smoothing.num_smoothed
    return found


def warned(devices):
    monitor = ls.CalibrationMonitor()
    loader = DataLoader(samples(50), 8, sampler=Backwards(50))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(None, monitor, **devices).validate(Either(), datamodule=Loaders(loader), verbose=False)
    return [str(w.message) for w in caught if "CalibrationMonitor" in str(w.message)], monitor.results["val"]["n"]


def compiled(devices):
    """The same training, compiled and not."""

    class Plain(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            self.loss(batch)

    found = []
    for wrap in (lambda net: net, lambda net: torch.compile(net, backend="aot_eager")):
        net, smoothing = Plain(), ls.LabelSmoothing(schedule=Linear(0.3, 0.0))
        monitor = ls.CalibrationMonitor()
        trainer(None, smoothing, monitor, **devices).fit(wrap(net), datamodule=Data(50))
        found.append(([p.tolist() for p in net.parameters()], monitor.results))
    return found


def spawned(folder, devices):
    net = Net()
    callbacks = ls.LabelSmoothing(eps=0.2), ls.CalibrationMonitor()
    trainer(folder, *callbacks, devices=devices, strategy="ddp_spawn").fit(net, datamodule=Data(50))
    return [p.tolist() for p in net.parameters()]


def main(folder, devices, strategy):
    if strategy == "ddp_spawn":
        with open(f"{folder}/spawned.json", "w") as file:
            json.dump(spawned(folder, devices), file)
        return
    options = {"devices": devices, "strategy": strategy}
    found = {"measured": measured(options), "trained": trained(options, folder), "warned": warned(options)}
    found["compiled"] = compiled(options) if devices == 2 else None
    rank = int(os.environ.get("LOCAL_RANK", 0))
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
