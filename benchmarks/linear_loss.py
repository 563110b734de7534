"""What the last layer and its loss cost, forward and backward, for a large vocabulary: time and memory.

The logits and then the loss, torch's own function of both, and ours take turns on the same input, float32, one thread;
times are medians. Memory is what torch has allocated at most at once beyond input and weight, by the events of its
allocator. Writes the section `linear_loss` of ``benchmarks/RESULTS.md``.
Run: ``python benchmarks/linear_loss.py``, with other sizes NxHxK: ``python benchmarks/linear_loss.py 4096x512x50257``
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from results_page import machine, write_section
from torch import Tensor
from torch.nn import functional as F

from ls_lightning.functional import linear_smoothed_cross_entropy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from peak_bytes import peak_bytes

SIZES, ROUNDS, EPS = ["2048x256x32000"], 7, 0.1
BASE = "linear, then `F.cross_entropy`"

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def separate(input: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(input, weight), target, label_smoothing=EPS)


def ways() -> dict[str, Loss]:
    found: dict[str, Loss] = {BASE: separate}
    torchs = getattr(F, "linear_cross_entropy", None)  # since torch 2.13
    if torchs is not None:
        found["`F.linear_cross_entropy`"] = partial(torchs, label_smoothing=EPS)
        found["the same in chunks, which it does for eps 0 only"] = partial(
            torchs, options=torch.nn.LinearCrossEntropyOptions()
        )
    each = partial(linear_smoothed_cross_entropy, eps=EPS, reduction="none")
    found["`linear_smoothed_cross_entropy`"] = partial(linear_smoothed_cross_entropy, eps=EPS)
    found['the same, `reduction="none"`'] = lambda input, weight, target: each(input, weight, target).mean()
    return found


def step(loss: Loss, input: Tensor, weight: Tensor, target: Tensor) -> None:
    input.grad = weight.grad = None
    loss(input, weight, target).backward()


def seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def table(size: str) -> str:
    samples, hidden, classes = map(int, size.split("x"))
    torch.manual_seed(0)
    input = torch.randn(samples, hidden, requires_grad=True)
    weight = (torch.randn(classes, hidden) / hidden**0.5).requires_grad_()
    target = torch.randint(classes, (samples,))
    runs = {name: partial(step, loss, input, weight, target) for name, loss in ways().items()}
    memory = {}
    for name, run in runs.items():  # the first run of each, which warms up
        input.grad = weight.grad = None
        memory[name] = peak_bytes(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS):
        for name, run in runs.items():
            print(f"\r{size}, round {turn + 1} of {ROUNDS}: {name:50}", end="", file=sys.stderr, flush=True)
            times[name].append(seconds(run))
    print(file=sys.stderr)
    lines = [f"| N={samples}, H={hidden}, K={classes} | ms | ratio | MB | ratio |", "|---|---|---|---|---|"]
    base = statistics.median(times[BASE])
    for name, found in times.items():
        middle = statistics.median(found)
        share = memory[name] / memory[BASE]
        lines.append(f"| {name} | {1e3 * middle:.0f} | {middle / base:.2f} | {memory[name] / 1e6:.0f} | {share:.3f} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    text = "## A last layer with its smoothed cross-entropy\n\n"
    text += f"`python benchmarks/linear_loss.py`: forward and backward, eps {EPS}, float32, one thread, medians of "
    text += f"{ROUNDS} turns; memory beside input and weight, gradients included.\n{machine('torch')}.\n\n"
    text += "\n\n".join(table(size) for size in sys.argv[1:] or SIZES)
    print(text)
    write_section("linear_loss", text)


if __name__ == "__main__":
    main()
