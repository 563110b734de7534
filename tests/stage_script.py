"""``python stage_script.py FOLDER DEVICES``: what the monitor and the temperature find on ranks of which some have no
batch.
"""

import json
import os
import sys

import torch
from nets import Data, Net, trainer
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

import ls_lightning as ls
from ls_lightning.metrics import AURC, ClasswiseCalibrationError, full_metrics


class Some(IterableDataset):
    """The first ranks share the samples, the last has none."""

    def __init__(self, size, ranks):
        self.set = Data(size).set
        self.ranks = ranks

    def __iter__(self):
        rank = int(os.environ.get("LOCAL_RANK", 0))
        sharing = max(1, self.ranks - 1)
        yield from (self.set[i] for i in range(rank, len(self.set), sharing) if rank < sharing)


class Both(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.criterion(self(batch[0]), batch[1])

    test_step = validation_step


def several(num_classes=None, **options):
    """Four states: two shared by all that can, one list, one of torchmetrics."""
    found = full_metrics(num_classes=num_classes, **options)
    shared = {"num_classes": num_classes, **options}
    found.add_metrics({"classwise": ClasswiseCalibrationError(**shared), "exact": AURC(mode="exact", **shared)})
    found.add_metrics({"f1": MulticlassF1Score(num_classes)})
    return MetricCollection(dict(found.items()))


def main(folder, devices):
    options = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    found = {}
    for name, loaders in {
        "some": [DataLoader(Some(50, devices), 8)],
        "none_of_the_second": [DataLoader(Data(20).set, 8), DataLoader(Some(31, devices), 8)],
    }.items():
        monitor, scaling = (
            ls.CalibrationMonitor(metrics=several),
            ls.TemperatureScaling(dataloader_idx=len(loaders) - 1),
        )
        reductions = []
        t = trainer(folder, monitor, scaling, **options)
        reduce = t.strategy.reduce
        t.strategy.reduce = lambda tensor, *a, **k: reductions.append(tensor.numel()) or reduce(tensor, *a, **k)  # noqa: B023
        t.validate(Both(), loaders, verbose=False)
        sums = max(reductions) if reductions else 0
        found[name] = {"val": monitor.results, "T": scaling.summary(), "sums": reductions.count(sums)}
        t.test(Both(), loaders, verbose=False)
        found[name]["test"] = scaling.results
    rank = int(os.environ.get("LOCAL_RANK", 0))
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]))
