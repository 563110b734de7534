"""Does feedback reach, in one run, the ECE of the best eps of a grid? ``python benchmarks/feedback.py [seeds]``

Regimes of scikit-learn's digits, the network and the optimizer of the command line, 60 epochs; each seed has a split of
its own. The best eps is chosen as a person would who has run the whole grid: by its ECE on test, averaged over seeds,
which favours the grid. The last column is the paired difference to it, with its standard error over the seeds.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import lightning as L
import torch

import ls_lightning as ls
from ls_lightning.schedules import Feedback, Linear
from ls_lightning.zoo import DigitsData
from ls_lightning.zoo.classifier import Classifier
from ls_lightning.zoo.models import MLP

GRID = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
REGIMES: dict[str, dict[str, Any]] = {
    "clean": {},
    "overconfident: data.input_noise=0.5": {"input_noise": 0.5},
    "noisy training labels: data.label_noise=0.4": {"label_noise": 0.4},
    "noisy validation labels: data.input_noise=0.5 data.val_label_noise=0.2": {
        "input_noise": 0.5,
        "val_label_noise": 0.2,
    },
}
WAYS: dict[str, Callable[[], Any]] = {
    "feedback": lambda: Feedback(),
    "feedback, per class": lambda: Feedback(per_class=True),
    "feedback, held_out=0.2": lambda: Feedback(held_out=0.2),
    "linear 0.1 -> 0": lambda: Linear(0.1, 0.0),
}


class Run(NamedTuple):
    acc: float
    ece: float
    gap: float
    eps: float


def run(seed: int, data: dict[str, Any], **smoothing: Any) -> Run:
    L.seed_everything(seed, verbose=False)
    digits = DigitsData(split_seed=seed, **data)
    callback, monitor = ls.LabelSmoothing(**smoothing), ls.CalibrationMonitor()
    trainer = L.Trainer(
        max_epochs=60,
        accelerator="cpu",
        callbacks=[callback, monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    net = Classifier(MLP((1, 8, 8), 10), optimizer=lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.01))
    trainer.fit(net, datamodule=digits)
    trainer.test(net, datamodule=digits, verbose=False)
    found = monitor.results["test"]
    return Run(100 * found["acc"], 100 * found["ece"], 100 * found["gap"], callback.eps)


@cache
def constant(seed: int, noise: tuple[tuple[str, float], ...], eps: float) -> Run:
    return run(seed, dict(noise), eps=eps)


def show(name: str, runs: list[Run], best: list[Run] | None = None) -> None:
    acc, ece, gap, eps = (statistics.mean(column) for column in zip(*runs, strict=True))
    line = f"  {name:26} {acc:6.1f} {ece:6.1f} {gap:+7.1f} {eps:7.3f}"
    if best is not None:
        differences = [mine.ece - its.ece for mine, its in zip(runs, best, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        line += f"   {statistics.mean(differences):+5.1f} ± {error:.1f}"
    print(line, flush=True)


def main(seeds: int) -> None:
    began = time.time()
    for name, data in REGIMES.items():
        print(f"\n{name}\n  {'':26} {'acc %':>6} {'ECE %':>6} {'gap %':>7} {'eps':>7}   ECE - best of grid")
        noise = tuple((key, sd) for key, sd in data.items() if key != "val_label_noise")  # a constant eps sees none
        grid = {eps: [constant(seed, noise, eps) for seed in range(seeds)] for eps in GRID}
        best = min(grid.values(), key=lambda runs: statistics.mean(one.ece for one in runs))
        for eps, runs in grid.items():
            show(f"eps={eps:g}{'  (best)' if runs is best else ''}", runs)
        for way, schedule in WAYS.items():
            show(way, [run(seed, data, schedule=schedule()) for seed in range(seeds)], best)
    print(f"\n{seeds} seeds, {time.time() - began:.0f} s")


if __name__ == "__main__":
    import logging
    import warnings

    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", ".*logging interval")
    warnings.filterwarnings("ignore", ".*LeafSpec")
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
