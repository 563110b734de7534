"""What each rank does, ``python online_broken_ddp.py FOLDER WHAT...``: train with soft labels learnt online.

``WHAT`` is ``break`` (an exception on both ranks amid the second epoch), ``resume`` (from what it leaves) or ``whole``.
"""

import os
import sys
import warnings

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from loss_family_ddp import Part
from nets import Net, trainer

import ls_lightning as ls


class Stop(Callback):
    """As where memory runs out in the ninth step."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 9:
            raise RuntimeError("out of memory")


def main(folder, what):
    smoothing, net = ls.LabelSmoothing(loss="online"), Net()
    keep = ModelCheckpoint(folder, filename=what, save_on_exception=True, enable_version_counter=False)
    options = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False, "max_epochs": 4}
    callbacks = [smoothing, keep, *([Stop()] if what == "break" else [])]
    path = f"{folder}/break.ckpt" if what == "resume" else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            trainer(folder, *callbacks, enable_checkpointing=True, **options).fit(
                net, datamodule=Part(batch_size=4), ckpt_path=path, weights_only=False
            )
        except RuntimeError as error:
            if str(error) != "out of memory":
                raise
    loss = smoothing._calls.loss
    own = {"matrix": loss.matrix, "counts": loss.counts, "said": [str(one.message) for one in said]}
    torch.save(own, f"{folder}/{what}{os.environ.get('LOCAL_RANK', 0)}.pt")


if __name__ == "__main__":
    for what in sys.argv[2:]:
        main(sys.argv[1], what)
