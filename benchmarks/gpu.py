"""What the smoothed cross-entropy costs on a GPU, forward and backward, beside torch's, compiled, Liger's and others'.

All take turns on the same input, with a cache that other data has gone through; a time is the median, by the device's
events. The floor is a copy of the logits, which reads and writes as many bytes as have to be: a percentage is that of
its speed. Memory is the most that is allocated at once beside the logits, in their size. Whatever is not installed is
left out. The checks of `gpu_checks.py` follow. Writes the section `gpu` of ``benchmarks/RESULTS.md``; without a GPU it
says so, writes nothing and ends with 2.
Run: ``python benchmarks/gpu.py``; the numbers of classes you want: ``python benchmarks/gpu.py 1000 32000``
"""

import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_checks import checks
from results_page import machine, write_section
from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional import smoothed_cross_entropy, triton_rows

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from peak_bytes import peak_bytes

EPS = 0.1
ROWS = {2: 2**24, 10: 2**22, 1000: 2**17, 32000: 2**13, 128256: 2**11, 262144: 2**10}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FLOOR, TORCH, OURS = "the logits copied", "`F.cross_entropy`", "`smoothed_cross_entropy`"

Loss = Callable[[Tensor, Tensor], Tensor]
Rows = dict[str, dict[str, str]]


class Way(NamedTuple):
    """A loss; whether our kernel may be used; whether it overwrites the logits."""

    loss: Loss
    triton: bool = False
    consumes: bool = False


def ways(device: torch.device, compiled: bool) -> dict[str, Way]:
    torchs, ours = partial(F.cross_entropy, label_smoothing=EPS), partial(smoothed_cross_entropy, eps=EPS)
    consuming = partial(ours, consume_logits=True)
    found = {TORCH: Way(torchs), f"{OURS}, torch's operations": Way(ours)}
    if compiled:
        torch._dynamo.reset()
        found |= {f"{TORCH}, compiled": Way(torch.compile(torchs)), f"{OURS}, compiled": Way(torch.compile(ours))}
    if has_kernel(device):
        found |= {f"{OURS}, Triton": Way(ours, True), "the same, `consume_logits=True`": Way(consuming, True, True)}
    for name, way in {"Liger-Kernel": liger, "flash-attention": flash, "apex": apex}.items():
        try:
            found[name] = way()
        except ImportError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
    return found


def has_kernel(device: torch.device) -> bool:
    os.environ["LS_LIGHTNING_TRITON"] = "1"
    return triton_rows.takes(torch.empty(0, device=device))


def liger() -> Way:
    module = importlib.import_module("liger_kernel.transformers")
    return Way(module.LigerCrossEntropyLoss(label_smoothing=EPS), consumes=True)


def flash() -> Way:
    module = importlib.import_module("flash_attn.losses.cross_entropy")
    return Way(module.CrossEntropyLoss(label_smoothing=EPS))


def apex() -> Way:
    module = importlib.import_module("apex.contrib.xentropy")
    return Way(lambda z, y: module.SoftmaxCrossEntropyLoss.apply(z, y, EPS, -100, False).float().mean())


def draw(rows: int, num_classes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(rows, num_classes, device=device, dtype=dtype).mul_(3)
    return logits, torch.randint(num_classes, (rows,), device=device)


def step(way: Way, logits: Tensor, target: Tensor) -> Tensor:
    """Forward and backward; the gradient. What is consumed must not be a leaf of the graph, so it is a view of one."""
    os.environ["LS_LIGHTNING_TRITON"] = str(int(way.triton))
    leaf = logits.detach().requires_grad_()
    way.loss(leaf.view_as(leaf) if way.consumes else leaf, target).backward()
    return leaf.grad


def milliseconds(run: Callable[[], object], trash: Tensor) -> float:
    trash.zero_()  # the cache holds this now
    if trash.device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def times(runs: dict[str, Callable[[], object]], trash: Tensor, turns: int) -> dict[str, float]:
    """The median over turns; what fails, for want of memory or support, is left out."""
    works = {name: run for name, run in runs.items() if warm(name, run)}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, run in works.items():
            found[name].append(milliseconds(run, trash))
    return {name: statistics.median(each) for name, each in found.items()}


def warm(name: str, run: Callable[[], object]) -> bool:
    try:
        for _ in range(3):
            run()
    except (RuntimeError, ValueError, TypeError) as error:
        print(f"left out: {name}: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def peak(run: Callable[[], object], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_bytes(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def compare(speed: Rows, memory: Rows, error: Rows, size: tuple[int, int], dtype: torch.dtype, trash: Tensor) -> None:
    """Fill in a column of each table."""
    device, column, (rows, num_classes) = trash.device, f"{size[0]}x{size[1]}", size
    found = ways(device, compiled=device.type == "cuda")
    logits, target = draw(rows, num_classes, dtype, device)
    out, scratch = torch.empty_like(logits), logits.clone()
    runs: dict[str, Callable[[], object]] = {FLOOR: partial(out.copy_, logits)}
    runs |= {name: partial(step, way, scratch if way.consumes else logits, target) for name, way in found.items()}
    took = times(runs, trash, 30 if device.type == "cuda" else 3)
    for name, each in took.items():
        speed.setdefault(name, {})[column] = f"{each:.3g} ({100 * took[FLOOR] / each:.0f} %)"
    for name in took.keys() & found.keys():
        share = peak(runs[name], device) / (logits.numel() * dtype.itemsize)
        memory.setdefault(name, {})[column] = f"{share:.2f}"
    few, exact = (logits[:64], target[:64]), step(found[TORCH], logits[:64].double(), target[:64])
    for name in took.keys() & found.keys():
        gradient = step(found[name], few[0].clone(), few[1])
        error.setdefault(name, {})[column] = f"{((gradient - exact).abs().max() / exact.abs().max()).item():.1e}"


def table(head: str, rows: Rows, order: list[str]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in sorted(rows, key=order.index):
        lines.append(f"| {name} | " + " | ".join(rows[name].get(column, "") for column in columns) + " |")
    return "\n".join(lines)


def report(device: torch.device, sizes: dict[int, int], dtypes: list[torch.dtype], trash: int = 2**28) -> str:
    """All tables and checks as Markdown; `sizes` says how many rows for a number of classes."""
    flushed, blocks = torch.empty(trash, dtype=torch.int8, device=device), []
    for dtype in dtypes:
        speed, memory, error = Rows(), Rows(), Rows()
        for num_classes, rows in sizes.items():
            compare(speed, memory, error, (rows, num_classes), dtype, flushed)
            column = f"{rows}x{num_classes}"
            print(dtype, column, {name: row.get(column) for name, row in speed.items()}, file=sys.stderr, flush=True)
        order, name = list(speed), str(dtype).removeprefix("torch.")
        blocks.append(table(f"{name}: ms (% of a copy's speed)", speed, order))
        blocks.append(table(f"{name}: memory, in sizes of the logits", memory, order))
        blocks.append(table(f"{name}: largest error of a gradient, by the largest", error, order))
    said = "\n".join(f"* {name}: {found}" for name, found in checks(device).items())
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    return f"""## The loss on a GPU

`python benchmarks/gpu.py`: forward and backward, eps {EPS}, medians of turns, beside a copy of the logits.
{what}, {machine("torch")}.

{chr(10).join(f"{block}{chr(10)}" for block in blocks)}
{said}
"""


def main(arguments: list[str]) -> int:
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a GPU, and torch sees none: nothing was written.", file=sys.stderr)
        return 2
    wanted = [int(argument) for argument in arguments] or list(ROWS)
    sizes = {num_classes: ROWS.get(num_classes, max(1, 2**28 // num_classes)) for num_classes in wanted}
    text = report(torch.device("cuda"), sizes, DTYPES)
    print(text)
    if wanted == list(ROWS):
        write_section("gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
