"""The checkpoint of one member, as it would have saved it alone."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from ls_lightning.stacked.members import Member, only
from ls_lightning.sweep.folder import LAST


def save_member(
    trainer: L.Trainer, member: Member, network: dict[str, Tensor], optimizer: dict[str, Any], seconds: float
) -> None:
    """Write ``checkpoints/last.ckpt``: the progress of the stack, the states of the member.

    Args:
        trainer: of the stack.
        member: whose it is.
        network: its state dict.
        optimizer: the state dict of its optimizer.
        seconds: how long it took to come here.
    """
    path = member.folder / LAST
    classifier = member.classifier
    classifier.model.to(next(iter(network.values())).dtype).load_state_dict(network)
    saving = only(member.callbacks, ModelCheckpoint)
    saving.best_model_path = str(path)
    states = {callback.state_key: state for callback in member.callbacks if (state := callback.state_dict())}
    checkpoint = {
        **trainer._checkpoint_connector.dump_checkpoint(weights_only=True),
        "state_dict": classifier.state_dict(),
        "callbacks": {**states, "Elapsed": {"seconds": seconds}},
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
        classifier.CHECKPOINT_HYPER_PARAMS_NAME: classifier._hparams_name,
        classifier.CHECKPOINT_HYPER_PARAMS_KEY: dict(classifier.hparams),
    }
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(checkpoint, partial)
    partial.replace(path)
