"""What the smoothed cross-entropy costs on a CPU, forward and backward, beside torch's and the usual recipes.

One thread, the same input for all, who take turns in an order drawn anew. A time is that of the thread, which other
work on the machine does not stop; a ratio is the median over the turns of that to `F.cross_entropy(label_smoothing=)`.
Memory is the most that is allocated at once, by the events of torch's allocator, in sizes of the logits. The floor is a
copy of the logits, which reads and writes as many bytes as have to be. Writes the section `loss` of
``benchmarks/RESULTS.md``.
Run: ``python benchmarks/loss.py``; the columns you want: ``python benchmarks/loss.py 128x10 8192x10``
"""

import ctypes
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch
from results_page import machine, write_section
from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional import fused_quick, smoothed_cross_entropy, smoothed_kl_div
from ls_lightning.functional.native import loss as native_loss
from ls_lightning.metrics import SumMetric, default_metrics

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from peak_bytes import peak_bytes

SHAPES = ["128x10", "8192x10", "256x1000", "4096x1000", "2048x32000", "8x21x256x256"]
EPS, SECONDS = 0.1, 2.0
TORCH, OURS = "`F.cross_entropy`", "`smoothed_cross_entropy`"
COMPILED, UPCAST, CONSUMING = "torch, compiled", "`F.cross_entropy` of float32", "the same, `consume_logits=True`"
WITHOUT_C = "the same, `LS_LIGHTNING_NATIVE=0`"
MEASURED = ["128x10", "256x1000", "4096x1000", "2048x32000"]
FORMS_WITHOUT_C: dict[object, fused_quick.Form | None] = {}
LEAVING, BY_STATISTICS = "with `statistics=`", "the same, and `update_statistics` of each batch"
BY_LOGITS = "the loss, and `update(logits, target)` of each batch"

Loss = Callable[[Tensor, Tensor], Tensor]
Rows = dict[str, dict[str, str]]


def averaged(z: Tensor, y: Tensor) -> Tensor:
    """As timm's `LabelSmoothingCrossEntropy`: two terms from one log_softmax."""
    log_probs = z.log_softmax(1)
    true = log_probs.gather(1, y.unsqueeze(1)).squeeze(1)
    return ((EPS - 1) * true - EPS * log_probs.mean(1)).mean()


def divergence(z: Tensor, y: Tensor) -> Tensor:
    """The recipe of the Annotated Transformer: `KLDivLoss` with a distribution that is filled and scattered into."""
    share = torch.full_like(z, EPS / (z.shape[1] - 1)).scatter_(1, y.unsqueeze(1), 1 - EPS)
    return F.kl_div(z.log_softmax(1), share, reduction="sum") / y.numel()


def one_hot(z: Tensor, y: Tensor) -> Tensor:
    """The recipe with a one-hot target that is mixed with the uniform distribution."""
    target = F.one_hot(y, z.shape[1]).movedim(-1, 1).to(z.dtype)
    return F.cross_entropy(z, (1 - EPS) * target + EPS / z.shape[1])


def torchs(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, label_smoothing=EPS)


def upcast(z: Tensor, y: Tensor) -> Tensor:
    return torchs(z.float(), y)


def without_c(z: Tensor, y: Tensor) -> Tensor:
    """As where no loop in C was built; the gradient is made in the forward pass."""
    kept = native_loss.loop, fused_quick._FORMS
    native_loss.loop, fused_quick._FORMS = (lambda: None), FORMS_WITHOUT_C
    try:
        return smoothed_cross_entropy(z, y, eps=EPS)
    finally:
        native_loss.loop, fused_quick._FORMS = kept


def ways() -> dict[str, Loss]:
    found: dict[str, Loss] = {TORCH: torchs, "timm's formula": averaged, "`KLDivLoss` recipe": divergence}
    found["one-hot recipe"] = one_hot
    if shutil.which("g++"):
        found[COMPILED] = torch.compile(torchs, dynamic=False)
    found[OURS] = partial(smoothed_cross_entropy, eps=EPS)
    found[CONSUMING] = partial(smoothed_cross_entropy, eps=EPS, consume_logits=True)
    if native_loss.loop() is not None:
        found[WITHOUT_C] = without_c
    found["`smoothed_kl_div`"] = partial(smoothed_kl_div, eps=EPS)
    return found


def draw(shape: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits and class indices."""
    torch.manual_seed(0)
    sizes = [int(size) for size in shape.split("x")]
    return (torch.randn(sizes) * 3).to(dtype), torch.randint(sizes[1], (sizes[0], *sizes[2:]))


def step(loss: Loss, logits: Tensor, target: Tensor, consumed: bool) -> Tensor:
    """Forward and backward; the gradient. What is consumed must not be a leaf of the graph, so it is a view of one."""
    leaf = logits.requires_grad_()
    leaf.grad = None
    loss(leaf.view_as(leaf) if consumed else leaf, target).backward()
    gradient, leaf.grad = leaf.grad, None
    logits.requires_grad_(False)
    return gradient


def seconds(run: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        run()
    return (time.thread_time() - began) / times


def turns(runs: dict[str, Callable[[], object]], base: str) -> tuple[float, dict[str, float]]:
    """Seconds of the base, and the ratio of each run to it."""
    for run in runs.values():
        run()
    once = sum(seconds(run, 1) for run in runs.values())
    times = max(1, min(50, int(0.2 / once)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(max(5, min(41, int(SECONDS / (once * times))))):
        for name in Random(turn).sample(sorted(runs), len(runs)):  # who comes after whom moves the short ones
            found[name].append(seconds(runs[name], times))
    ratios = {
        name: statistics.median(a / b for a, b in zip(each, found[base], strict=True)) for name, each in found.items()
    }
    return statistics.median(found[base]), ratios


def compare(rows: Rows, shape: str, dtype: torch.dtype, base: str, losses: dict[str, Loss]) -> None:
    logits, target = draw(shape, dtype)
    out = torch.empty_like(logits)
    scratch = logits.clone()
    runs: dict[str, Callable[[], object]] = {
        name: partial(step, loss, scratch if name == CONSUMING else logits, target, name == CONSUMING)
        for name, loss in losses.items()
    }
    runs["floor: the logits copied"] = partial(out.copy_, logits)
    took, ratios = turns(runs, base)
    for name, ratio in ratios.items():
        rows.setdefault(name, {})[shape] = f"{ratio:.2f}" + (f" ({took * 1e3:.3g} ms)" if name == base else "")


def leader() -> SumMetric:
    """The member of the default metrics whose states all others read."""
    return dict(default_metrics().items(copy_state=False))["acc"]


def measured(rows: Rows, shape: str) -> None:
    """The loss with the default metrics of the same logits: by the statistics that it leaves, or by a second pass."""
    logits, target = draw(shape, torch.float32)
    left, again, found = leader(), leader(), torch.empty(4, target.numel())
    alone = partial(smoothed_cross_entropy, eps=EPS)

    def by_statistics() -> None:
        step(partial(alone, statistics=found), logits, target, False)
        left.update_statistics(found)

    def by_logits() -> None:
        step(alone, logits, target, False)
        again.update(logits, target)

    runs: dict[str, Callable[[], object]] = {OURS: partial(step, alone, logits, target, False)}
    runs[LEAVING] = partial(step, partial(alone, statistics=found), logits, target, False)
    runs |= {BY_STATISTICS: by_statistics, BY_LOGITS: by_logits}
    took, ratios = turns(runs, OURS)
    for name, ratio in ratios.items():
        rows.setdefault(name, {})[shape] = f"{ratio:.2f}" + (f" ({took * 1e3:.3g} ms)" if name == OURS else "")


def added() -> str:
    """What statistics cost that wait until there are many, as `CalibrationMonitor` has it."""
    rows, metric = 2**16, leader()
    found = torch.empty(4, rows)
    smoothed_cross_entropy(*draw(f"{rows}x10", torch.float32), EPS, statistics=found)
    times = [seconds(partial(metric.update_statistics, found), 1) for _ in range(21)]
    return f"`update_statistics` of {rows:,} rows at once takes {1e9 * statistics.median(times) / rows:.0f} ns a row."


def memory(rows: Rows, shape: str, losses: dict[str, Loss]) -> None:
    logits, target = draw(shape, torch.float32)
    for name, loss in losses.items():
        run = partial(step, loss, logits, target, name == CONSUMING)
        run()
        rows.setdefault(name, {})[shape] = f"{peak_bytes(run) / (4 * logits.numel()):.3f}"


def errors(shape: str, losses: dict[str, Loss]) -> str:
    """The largest error of each gradient against float64, by the largest gradient."""
    logits, target = draw(shape, torch.float32)
    exact = step(torchs, logits.double(), target, False)
    found = {name: (step(loss, logits, target, False) - exact).abs().max() for name, loss in losses.items()}
    return ", ".join(f"{name} {(error / exact.abs().max()).item():.1e}" for name, error in found.items())


def table(head: str, rows: Rows, shapes: list[str]) -> str:
    lines = [f"| {head} | " + " | ".join(shapes) + " |", "|---" * (1 + len(shapes)) + "|"]
    return "\n".join(
        lines + [f"| {name} | " + " | ".join(row.get(s, "") for s in shapes) + " |" for name, row in rows.items()]
    )


def keep_memory() -> None:
    """Let the C library keep what was freed: new tensors then need no new pages, which the system has to clear."""
    libc, m_trim_threshold, m_mmap_max = ctypes.CDLL(None), -1, -4
    if not (libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1)):
        raise RuntimeError("mallopt refused; this needs the GNU C library.")


def main(shapes: list[str]) -> None:
    torch.set_num_threads(1)
    losses, full, narrow, bytes_, kept, metrics = ways(), Rows(), Rows(), Rows(), Rows(), Rows()
    few = {name: losses[name] for name in (TORCH, OURS, CONSUMING, WITHOUT_C) if name in losses}
    for shape in shapes:
        compare(full, shape, torch.float32, TORCH, losses)
        compare(narrow, shape, torch.bfloat16, UPCAST, {UPCAST: upcast, **few})
        memory(bytes_, shape, {name: loss for name, loss in losses.items() if name != COMPILED})
        print(shape, {name: row[shape] for name, row in full.items()}, file=sys.stderr, flush=True)
    both = [shape for shape in shapes if shape in MEASURED]
    for shape in both:
        measured(metrics, shape)
    exact = {shape: errors(shape, {TORCH: torchs, OURS: losses[OURS]}) for shape in shapes if shape.endswith("x32000")}
    keep_memory()
    large = [shape for shape in shapes if math.prod(map(int, shape.split("x"))) >= 2**22]
    for shape in large:
        compare(kept, shape, torch.float32, TORCH, few)
    load, built = os.getloadavg()[1], "built, and used" if WITHOUT_C in losses else "not built here"
    text = f"""## The loss on a CPU

`python benchmarks/loss.py`: forward and backward, eps {EPS}, one thread; ratios to torch, beside which its time stands.
The loop in C, `functional/native/loss.c`, was {built}.
{machine("torch")}; {load:.0f} processes wanted the cores, which costs most where calls are many and short.

{table("float32", full, shapes)}

{table("bfloat16", narrow, shapes)}

{table("float32, the C library keeps freed memory (`mallopt`)", kept, large)}

{table("memory, in sizes of the logits", bytes_, shapes)}

{table("float32, the default metrics of each batch besides; ratios to the loss alone", metrics, both)}

{added()}

Largest error of a gradient against float64, by the largest gradient: {"; ".join(exact.values())} (2048x32000).
"""
    print(text)
    if shapes == SHAPES:
        write_section("loss", text)


if __name__ == "__main__":
    main(sys.argv[1:] or SHAPES)
