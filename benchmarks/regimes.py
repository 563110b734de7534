"""What every loss and schedule does to accuracy and calibration, in several regimes, against plain cross-entropy.

    python benchmarks/regimes.py                                        # scikit-learn's digits and breast cancer
    python benchmarks/regimes.py mnist=<folder> cifar10=<folder>        # subsets, CIFAR-10 with human labels

Each row is `python -m ls_lightning.train` with the settings that it names, run in this process, so that its figures are
those of the command line. A seed decides weights, order, split and noise alike; differences are paired by it, with a
95 % t interval. `mnist=` is a folder with `mnist.npz`; `cifar10=` one with `cifar10n.npz` and
`cifar10/{train,test}/<class>/<official index>.jpg`.

Keys: `seeds=5` (images: 3), `only=clean,noisy` (regimes), `methods=ce,feedback` (rows that contain one of these),
`out=table.md`, and `cache=outputs/regimes.jsonl`, where every run is kept: a run broken off goes on.
"""

import json
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_module
from image_subsets import cifar10_subset, mnist_subset
from regime_table import table
from results_page import machine

from ls_lightning.config import register_schema, settle
from ls_lightning.job import run_job

PLAIN = "loss=none"
LOSSES = (
    *("loss=ce eps=0.05", "loss=ce eps=0.1", "loss=ce eps=0.2", "loss=kl eps=0.1", "loss=soft_ce eps=0.5"),
    *("loss=prior eps=0.1", "loss=online eps=0.5", "loss=negative eps=-0.4 loss.warmup=0.5"),
    *("loss=confidence_penalty eps=0.1", "loss=max_suppression eps=0.1", "loss=margin eps=0.1 loss.margin=10"),
    *("loss=relaxation eps=0.1", "loss=focal loss.gamma=3"),
)
SCHEDULES = (
    *(f"loss=ce eps=0.1 schedule={name}" for name in ("linear", "cosine", "two_stage", "step", "warmup", "coslog")),
    *("loss=ce eps=0.1 schedule=sequence", "loss=ce eps=0.05 schedule=scaled schedule.factor=0.25"),
    *("loss=ce schedule=feedback", "loss=ce schedule=feedback schedule.held_out=0.2"),
)
BINARY = ("loss=bce eps=0.05", "loss=bce eps=0.1", "loss=bce eps=0.2", "loss=bce eps=0.1 schedule=linear")
FEW = (
    *("loss=ce eps=0.1", "loss=online eps=0.5", "loss=negative eps=-0.4 loss.warmup=0.5"),
    *("loss=ce eps=0.1 schedule=linear", "loss=ce schedule=feedback"),
)
FEWER = tuple(row for row in FEW if "negative" not in row)  # 25 minutes of one core are not enough for more
_QUIET = (
    *("trainer=cpu", "trainer.enable_progress_bar=false", "~logger", "~callbacks.pictures", "~callbacks.checkpoint"),
    "~callbacks.train_loss",
)


class Regime(NamedTuple):
    """Settings of the data, and what is compared on it."""

    settings: str
    methods: tuple[str, ...]
    plain: str = PLAIN


DIGITS = {
    "clean": Regime("data=digits", LOSSES + SCHEDULES),
    "overconfident": Regime("data=digits data.input_noise=0.5", LOSSES + SCHEDULES),
    "noisy": Regime("data=digits data.label_noise=0.4", LOSSES + SCHEDULES),
    "binary": Regime("data=breast_cancer", BINARY, "loss=bce eps=0"),
}
_IMAGES = "data=npz data.path={{{}}} model=cnn model.channels=[16,32] trainer.max_epochs=20"
_CLEAN, _HUMAN = _IMAGES.format("mnist"), _IMAGES.format("cifar10") + " data.noisy_labels={cifar10n}"
MNIST = {
    "mnist clean": Regime(_CLEAN, FEW),
    "mnist noisy": Regime(f"{_CLEAN} data.label_noise=0.4", FEW),
}
CIFAR10 = {
    "cifar10 clean": Regime(f"{_HUMAN} data.noisy_labels_key=clean_label", FEW),
    "cifar10 aggre": Regime(f"{_HUMAN} data.noisy_labels_key=aggre_label", FEWER),
    "cifar10 random1": Regime(f"{_HUMAN} data.noisy_labels_key=random_label1", FEWER),
    "cifar10 worse": Regime(f"{_HUMAN} data.noisy_labels_key=worse_label", FEWER),
}


def train(settings: str, seed: int, folder: Path) -> dict[str, Any]:
    """What the command line gives with these settings."""
    overrides = [*settings.split(), f"seed={seed}", f"data.split_seed={seed}", *_QUIET]
    if "feedback" not in settings:  # nothing else learns from validation; the last one fits the temperature
        overrides.append("trainer.check_val_every_n_epoch=${trainer.max_epochs}")
    with initialize_config_module("ls_lightning.conf", version_base="1.3"):
        cfg = compose("config", [*overrides, f"trainer.default_root_dir={folder}"])
    began = time.time()
    found = run_job(settle(cfg, overrides), folder, {})
    scaled = found["temperature"]
    return {
        "plain": found["metrics"]["test"],
        "scaled": scaled["metrics"]["test"],
        "T": scaled["T"],
        "eps": found.get("feedback", {}).get("eps"),
        "noise": found.get("label_noise"),
        "seconds": round(time.time() - began, 1),
    }


class Cache:
    """Runs in a file of JSON lines, by regime, settings and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.runs = {(run["settings"], run["seed"]): run for run in map(json.loads, lines)}

    def add(self, settings: str, seed: int, run: dict[str, Any]) -> dict[str, Any]:
        """Keep a run at once: the next one may be broken off."""
        run = {"settings": settings, "seed": seed, "torch": torch.__version__, **run}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(run) + "\n")
        self.runs[settings, seed] = run
        return run


def measure(regimes: dict[str, Regime], seeds: int, cache: Cache, files: dict[str, Path]) -> str:
    """Train what the cache lacks, and return the tables."""
    rows = [(regime, method) for regime in regimes.values() for method in (regime.plain, *regime.methods)]
    found: dict[tuple[Regime, str], list[dict[str, Any]]] = {row: [] for row in rows}
    todo = [(*row, seed) for row in rows for seed in range(seeds)]
    for done, (regime, method, seed) in enumerate(todo, 1):
        settings = f"{regime.settings} {method}"
        run = cache.runs.get((settings, seed))
        if run is None:
            with TemporaryDirectory() as folder:
                run = cache.add(settings, seed, train(settings.format(**files), seed, Path(folder)))
            acc, ece = (100 * run["plain"][key] for key in ("acc", "ece"))
            said = f"accuracy {acc:.1f} %, ECE {ece:.1f} %, {run['seconds']} s"
            print(f"[{done}/{len(todo)}] {settings} seed={seed}: {said}", file=sys.stderr, flush=True)
        found[regime, method].append(run)
    minutes = sum(run["seconds"] for runs in found.values() for run in runs) / 60
    foot = f"{len(todo)} runs, {seeds} seeds, {minutes:.0f} minutes in one thread: {machine('torch', 'lightning')}."
    names = {name: path.name for name, path in files.items()}
    return "\n\n".join([*(_section(name, regime, names, found) for name, regime in regimes.items()), foot])


def _section(name: str, regime: Regime, names: dict[str, str], found: dict[tuple[Regime, str], Any]) -> str:
    rows = {method: found[regime, method] for method in (regime.plain, *regime.methods)}
    wrong = [run["noise"]["train"] for run in rows[regime.plain] if run["noise"]]
    said = f"; {100 * mean(wrong):.0f} % of the training labels are wrong" if any(wrong) else ""
    return f"### {name}\n\n`{regime.settings.format(**names)}`{said}\n\n{table(rows, regime.plain)}"


def chosen(regimes: dict[str, Regime], only: str, methods: str) -> dict[str, Regime]:
    """The regimes and rows that were asked for; all if nothing was."""
    unknown = set(filter(None, only.split(","))) - set(regimes)
    if unknown:
        sys.exit(f"only must name some of {', '.join(regimes)}, got {', '.join(sorted(unknown))}.")
    words = methods.split(",")
    return {
        name: regime._replace(methods=tuple(row for row in regime.methods if any(word in row for word in words)))
        for name, regime in regimes.items()
        if not only or name in only.split(",")
    }


def main(options: dict[str, str]) -> None:
    """Measure the digits, or the images that are given."""
    given = {"cache": "outputs/regimes.jsonl", **options}
    unknown = given.keys() - {"mnist", "cifar10", "seeds", "only", "methods", "out", "cache"}
    if unknown:
        sys.exit(f"{min(unknown)} is not a key; see the head of {__file__}.")
    cache, regimes, files = Path(given["cache"]), dict[str, Regime](), dict[str, Path]()
    if folder := given.get("mnist"):
        regimes |= MNIST
        files["mnist"] = mnist_subset(Path(folder), cache.parent)
    if folder := given.get("cifar10"):
        regimes |= CIFAR10
        files |= {"cifar10": cifar10_subset(Path(folder), cache.parent), "cifar10n": Path(folder, "cifar10n.npz")}
    regimes = chosen(regimes or DIGITS, given.get("only", ""), given.get("methods", ""))
    page = measure(regimes, int(given.get("seeds", 3 if files else 5)), Cache(cache), files)
    print(page)
    if "out" in given:
        Path(given["out"]).write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    register_schema()
    main(dict(word.partition("=")[::2] for word in sys.argv[1:]))
