"""Label smoothing for a module of another package: TorchGeo's segmentation of satellite images, one class a pixel.

    pip install ls-lightning torchgeo
    python examples/third_party_torchgeo.py

Trains SemanticSegmentationTask twice on a few made-up images of fields, on hard labels and on smoothed ones. The task
is used as it comes, with its own loss, which ignores the pixels that nobody has labelled; so do the smoothed loss and
the metrics. Prints what it measures on the pixels of images that the network was not trained on. The gap is mean
confidence minus accuracy: above 0 the network is overconfident.
"""

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.trainers import SemanticSegmentationTask

import ls_lightning as ls

CROPS = 3  # classes 1 to 3; 0 is a pixel without a label


def field(generator: torch.Generator, size: int = 32) -> dict[str, Tensor]:
    """An image of a few fields, whose crops look alike, and what a hasty annotator made of it."""
    corners = torch.rand(6, 2, generator=generator) * size
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    region = torch.cdist(pixels, corners).argmin(1)
    crop = torch.randint(1, CROPS + 1, (6,), generator=generator)[region].view(size, size)
    image = torch.eye(CROPS)[crop - 1].movedim(-1, 0) + 2 * torch.randn(3, size, size, generator=generator)
    mask = crop.roll((1, 1), (0, 1))
    mask[:4] = 0
    return {"image": image, "mask": mask}


def loader(images: int, seed: int, shuffle: bool = False) -> DataLoader[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return DataLoader([field(generator) for _ in range(images)], batch_size=8, shuffle=shuffle)  # type: ignore[arg-type]


def train(title: str, *smoothing: ls.LabelSmoothing) -> None:
    L.seed_everything(0, verbose=False)
    task = SemanticSegmentationTask("fcn", num_classes=CROPS + 1, num_filters=16, ignore_index=0, lr=0.003)
    calibration = ls.CalibrationMonitor()
    trainer = L.Trainer(
        max_epochs=50,
        accelerator="cpu",
        callbacks=[*smoothing, calibration],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, loader(6, seed=0, shuffle=True), loader(8, seed=1))
    found = calibration.results["val"]
    print(f"{title:14} accuracy {found['acc']:.1%}   ECE {found['ece']:.1%}   gap {found['gap']:+.1%}")


train("hard labels")
train("eps 0.05", ls.LabelSmoothing(loss="kl", eps=0.05))
