"""What measuring costs: our metrics, torchmetrics' CalibrationError with Accuracy, and torch-uncertainty's of both.

Each pass reads N samples of K classes in batches of 1,000; the kinds take turns, batch by batch, and times are
medians of the passes' means: the processor's time, which the load of a machine moves least, but over ranks.
Memory is what the process grows by over a pass, each in a process of its own (Linux).
Run: ``python benchmarks/metrics.py``, with other sizes: ``python benchmarks/metrics.py 100000x10 5000x1000``; it
writes the section `metrics` of ``benchmarks/RESULTS.md``.
"""

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from results_page import machine, write_section
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from ls_lightning.callbacks.batch_buffer import BatchBuffer
from ls_lightning.callbacks.stage_metrics import adder
from ls_lightning.metrics import (
    Accuracy,
    BrierScore,
    CalibrationError,
    CalibrationGap,
    NegativeLogLikelihood,
    OverconfidenceError,
    default_metrics,
)

BATCH, PASSES, RANKS = 1000, 3, (1, 2, 4)


def seven(num_classes: int) -> MetricCollection:
    """The default metrics that are read off the sums of the bins."""
    members = {"ece": CalibrationError(), "mce": CalibrationError(norm="max"), "gap": CalibrationGap()}
    members |= {"acc": Accuracy(), "nll": NegativeLogLikelihood(), "brier": BrierScore(), "over": OverconfidenceError()}
    return MetricCollection(members, compute_groups=[list(members)])


def default(num_classes: int) -> MetricCollection:
    return default_metrics(num_classes=num_classes)


class Monitored:
    """The default metrics as `CalibrationMonitor` feeds them: small batches wait for each other."""

    def __init__(self, num_classes: int) -> None:
        self.metrics = default(num_classes)
        self.buffer = BatchBuffer(adder(self.metrics))
        self.update, self.values = self.buffer.add, self.metrics.values

    def compute(self) -> dict[str, torch.Tensor]:
        self.buffer.flush()
        return self.metrics.compute()


def torchmetrics_pair(num_classes: int) -> MetricCollection:
    return MetricCollection([MulticlassCalibrationError(num_classes), MulticlassAccuracy(num_classes)])


def torch_uncertainty_pair(num_classes: int) -> MetricCollection:
    from torch_uncertainty.metrics import CalibrationError

    return MetricCollection(
        [CalibrationError(task="multiclass", num_classes=num_classes), MulticlassAccuracy(num_classes)]
    )


BASE = "torchmetrics, pair"
KINDS: dict[str, Callable[[int], MetricCollection | Monitored]] = {
    BASE: torchmetrics_pair,
    "ours, 7": seven,
    "ours, default (8)": default,
    "ours, monitor (8)": Monitored,
}
if find_spec("torch_uncertainty"):
    KINDS["torch-uncertainty, pair"] = torch_uncertainty_pair


def data(samples: int, num_classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, num_classes, generator=generator) * 2
    target = torch.randint(num_classes, (samples,), generator=generator)
    return list(zip(torch.split(logits, BATCH), torch.split(target, BATCH), strict=True))


def state_bytes(metrics: MetricCollection | Monitored) -> int:
    """Bytes of all states; one that is shared counts once."""
    found = {}
    for metric in metrics.values(copy_state=False):
        for name in metric._defaults:
            state = getattr(metric, name)
            for tensor in [state] if isinstance(state, torch.Tensor) else state:
                found[tensor.data_ptr()] = tensor.nbytes
    return sum(found.values())


def measure(samples: int, num_classes: int) -> dict[str, tuple[float, float, int]]:
    """Microseconds to update by a batch, milliseconds to compute, bytes of state."""
    batches = data(samples, num_classes)
    updates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    computes: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(PASSES):
        metrics = {kind: make(num_classes) for kind, make in KINDS.items()}
        spent = dict.fromkeys(KINDS, 0.0)
        for logits, target in batches:
            for kind, metric in metrics.items():
                start = time.thread_time()
                metric.update(logits, target)
                spent[kind] += time.thread_time() - start
        for kind, seconds in spent.items():  # a mean: the monitor lets most batches wait
            updates[kind].append(seconds / len(batches))
        sizes = {kind: state_bytes(metric) for kind, metric in metrics.items()}
        for kind, metric in metrics.items():
            start = time.thread_time()
            metric.compute()
            computes[kind].append(time.thread_time() - start)
    median = statistics.median
    return {kind: (1e6 * median(updates[kind]), 1e3 * median(computes[kind]), sizes[kind]) for kind in KINDS}


def growth(rank: int, kind: str, samples: int, num_classes: int, file: str) -> None:
    """Write by how many bytes the process's peak grows over a pass of batches that are made one at a time."""
    warnings.simplefilter("ignore")
    make = KINDS[kind]
    make(num_classes).update(torch.randn(BATCH, num_classes), torch.zeros(BATCH).long())
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forget the peak so far, which a started process inherits
    before, metrics = peak_bytes(), make(num_classes)
    for _ in range(samples // BATCH):
        metrics.update(torch.randn(BATCH, num_classes), torch.randint(num_classes, (BATCH,)))
    metrics.compute()
    with open(file, "w") as out:
        out.write(str(peak_bytes() - before))


def peak_bytes() -> int:
    return next(1024 * int(line.split()[1]) for line in read("/proc/self/status").splitlines() if "VmHWM" in line)


def sync(rank: int, ranks: int, folder: str, samples: int) -> None:
    """Write the milliseconds of a computation that reduces over ranks, with equal shares of 10 classes' samples."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{ranks}", rank=rank, world_size=ranks)
    batches = data(samples // ranks, 10)
    for kind, make in KINDS.items():
        times = []
        for _ in range(PASSES):
            metrics = make(10)
            for batch in batches:
                metrics.update(*batch)
            dist.barrier()
            start = time.perf_counter()
            metrics.compute()
            times.append(time.perf_counter() - start)
        if rank == 0:
            with open(f"{folder}/{kind}{ranks}", "w") as out:
                out.write(str(1e3 * statistics.median(times)))
    dist.destroy_process_group()


def read(file: str) -> str:
    with open(file) as content:
        return content.read()


def table(samples: int, num_classes: int) -> str:
    """A row for each kind: what an update, a computation and the state cost."""
    lines = [
        f"| N={samples:,}, K={num_classes:,} | us a batch | ratio | compute ms | state KB | peak MB |",
        "|---" * 6 + "|",
    ]
    found = measure(samples, num_classes)
    base = found[BASE][0]
    with tempfile.TemporaryDirectory() as folder:
        for kind, (update, compute, size) in found.items():
            mp.spawn(growth, (kind, samples, num_classes, f"{folder}/growth"))
            peak = int(read(f"{folder}/growth")) / 1e6
            numbers = f"{update:.0f} | {update / base:.2f} | {compute:.1f} | {size / 1e3:.1f} | {peak:.1f}"
            lines.append(f"| {kind} | {numbers} |")
    return "\n".join(lines)


def ranks_table(samples: int) -> str:
    """A row for each kind: milliseconds to reduce over ranks and compute."""
    head = " | ".join(f"{ranks} ranks" if ranks > 1 else "alone" for ranks in RANKS)
    lines = [f"| N={samples:,}, K=10: ms to compute with gloo | {head} |", "|---" * (len(RANKS) + 1) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for ranks in RANKS:
            mp.spawn(sync, (ranks, folder, samples), nprocs=ranks)
        for kind in KINDS:
            times = " | ".join(f"{float(read(f'{folder}/{kind}{ranks}')):.1f}" for ranks in RANKS)
            lines.append(f"| {kind} | {times} |")
    return "\n".join(lines)


def main(sizes: list[tuple[int, int]]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    packages = ["torch", "torchmetrics", *(["torch-uncertainty"] if find_spec("torch_uncertainty") else [])]
    load = [os.getloadavg()[0]]
    tables = [table(*size) for size in sizes] + [ranks_table(sizes[0][0])]
    load.append(os.getloadavg()[0])
    text = "## Metrics of validation\n\n"
    command = " ".join(["python benchmarks/metrics.py", *sys.argv[1:]])
    text += f"`{command}`: batches of {BATCH:,}, one thread, medians of {PASSES} passes in which\n"
    text += "the kinds take turns, of the processor's time (over ranks, of all time);\n"
    text += f"load average {min(load):.1f} to {max(load):.1f}. {machine(*packages)}.\n\n"
    text += "A pair is `CalibrationError` with `MulticlassAccuracy`. The eight are accuracy, NLL, Brier, ECE, MCE,\n"
    text += "gap, overconfidence and AURC; in the monitor, small batches wait for each other.\n\n"
    text += "\n\n".join(tables)
    print(text)
    write_section("metrics", text)


if __name__ == "__main__":
    given = [tuple(int(part) for part in size.split("x")) for size in sys.argv[1:]]
    main([(samples, num_classes) for samples, num_classes in given] or [(1_000_000, 10), (50_000, 1000)])
