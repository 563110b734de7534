"""What a user's script does on each rank, ``python loss_family_ddp.py FOLDER DEVICES``: train with every loss."""

import os
import sys

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Data, Net, trainer
from torch.utils.data import DataLoader, Subset

import ls_lightning as ls
from ls_lightning.losses import NegativeSmoothing

NAMES = ("prior", "confidence_penalty", "max_suppression", "focal", "margin", "relaxation", "online")
LOSSES = {
    **dict(zip(NAMES, NAMES, strict=True)),
    "negative": NegativeSmoothing(-0.4, warmup=0.5),
}


class Part(Data):
    """Each rank a part of its own, so that the steps are those of one process."""

    def train_dataloader(self):
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(Subset(self.set, range(rank, len(self.set), ranks)), self.batch_size)


def main(folder, devices):
    found = {}
    options = {"devices": devices, "strategy": "ddp", "use_distributed_sampler": False} if devices > 1 else {}
    for name, loss in LOSSES.items():
        smoothing, net = ls.LabelSmoothing(loss=loss), Net()
        keep = ModelCheckpoint(f"{folder}/{name}", filename="{step}", save_top_k=-1, every_n_train_steps=2)
        t = trainer(folder, smoothing, keep, enable_checkpointing=True, **options)
        t.fit(net, datamodule=Part(batch_size=16 // devices))
        found[name] = [p.detach() for p in net.parameters()], smoothing._calls.loss
    torch.save(found, f"{folder}/{os.environ.get('LOCAL_RANK', 0)}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
