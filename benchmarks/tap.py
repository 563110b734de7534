"""What the tap costs: the time of a step that makes about 1,000 calls of torch, with and without it.

Bare Lightning; a module that calls the smoothed loss itself, beside a callback that does nothing, which Lightning calls
all the same; LabelSmoothing, which beyond that pays for the tap; and a ``TorchFunctionMode`` around every step of the
bare module, the other way to see a loss however it is called. They take turns; medians over all their steps.
Run: ``python benchmarks/tap.py``
"""

import logging
import os
import platform
import statistics
import time
import warnings

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning as ls
from ls_lightning.callbacks.step_context import enter_with_step

STEPS, ROUNDS, SKIPPED = 120, 8, 20


class Net(L.LightningModule):
    """A forward pass of many cheap operations, so that what is added to each of them shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 10)
        self.ends: list[float] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        for _ in range(332):
            x = torch.tanh(torch.add(torch.mul(x, 0.99), 0.01))
        return self.loss(self.layer(x), y)

    def loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, y)

    def on_train_batch_end(self, *args: object) -> None:
        self.ends.append(time.perf_counter())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Smooth(Net):
    def __init__(self) -> None:
        super().__init__()
        self.smoothed = ls.losses.SmoothedCrossEntropy(0.1)

    def loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.smoothed(logits, y)


class Count(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


class AlwaysOn(L.Callback):
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        enter_with_step(trainer, "train", Count)


def durations(net: Net, *callbacks: L.Callback) -> list[float]:
    """Seconds from the end of one step to the end of the next; the first ones warm up and are left out."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(STEPS * 8, 16), torch.randint(10, (STEPS * 8,)))
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, DataLoader(data, 8))
    return [end - start for start, end in zip(net.ends, net.ends[1:], strict=False)][SKIPPED:]


def calls_of_a_step() -> int:
    with Count() as count:
        Net().training_step([torch.randn(8, 16), torch.randint(10, (8,))], 0)
    return count.calls


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    kinds = {
        "bare Lightning": (Net,),
        "smoothed itself": (Smooth, L.Callback),
        "LabelSmoothing": (Net, ls.LabelSmoothing),
        "function mode": (Net, AlwaysOn),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, parts in kinds.items():
            times[kind] += durations(*(make() for make in parts))
    bare = statistics.median(times["bare Lightning"])
    print(f"{calls_of_a_step()} calls of torch a step, median of {len(times['bare Lightning'])} steps each\n")
    print(f"{'':16}{'ms/step':>9}{'quartiles':>16}{'ratio':>8}")
    for kind, found in times.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(found, n=4))
        print(f"{kind:16}{middle:9.3f}{f'{low:.3f}-{high:.3f}':>16}{middle / bare / 1e3:8.3f}")
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, lightning {L.__version__}")


if __name__ == "__main__":
    main()
