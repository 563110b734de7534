"""What has to hold on a GPU besides speed, each said in a line; `gpu.py` writes them below its tables."""

import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F

from ls_lightning.functional import smoothed_cross_entropy, triton_rows
from ls_lightning.losses import SmoothedCrossEntropy
from ls_lightning.metrics import Accuracy, CalibrationError


def checks(device: torch.device) -> dict[str, str]:
    """What each found; one that fails says how, and the others go on."""
    os.environ["LS_LIGHTNING_TRITON"] = "1"
    named: dict[str, Callable[[torch.device], str]] = {
        "float16 with a gradient scaler": scaled_half_precision,
        "a step of loss and metrics without a wait for the device": nobody_waits,
        "statistics of rows, and metrics by them": statistics,
        "a schedule of eps": eps_schedule,
        "NCCL on one GPU": collective_start,
    }
    found = {}
    for name, check in named.items():
        try:
            found[name] = check(device)
        except Exception as error:
            found[name] = f"FAILED, {type(error).__name__}: {str(error).splitlines()[0]}"
    return found


def scaled_half_precision(device: torch.device) -> str:
    """Gradients of a mean over many rows, too small for float16 until a scaler multiplies the loss."""
    torch.manual_seed(0)
    rows, factor = 2**14, 2.0**16
    logits = (torch.randn(rows, 100, device=device) * 4).half().requires_grad_()
    target = torch.randint(100, (rows,), device=device)
    (smoothed_cross_entropy(logits, target, 0.1) * factor).backward()
    wide = logits.detach().double().requires_grad_()
    (F.cross_entropy(wide, target, label_smoothing=0.1) * factor).backward()
    torch.testing.assert_close(logits.grad, wide.grad.half(), rtol=2e-3, atol=1e-6)
    return "every gradient is float64's, rounded once"


def nobody_waits(device: torch.device) -> str:
    torch.manual_seed(0)
    model = nn.Linear(32, 100).to(device)
    loss = SmoothedCrossEntropy(eps=0.1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = [metric(num_classes=100).to(device) for metric in (Accuracy, CalibrationError)]
    x, y = torch.randn(256, 32, device=device), torch.randint(100, (256,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(x)
        loss(logits, y).backward()
        optimizer.step()
        for metric in kept:
            metric.update(logits.detach(), y)

    step()  # builds what is built once
    with syncs_are_errors(device):
        for _ in range(3):
            step()
    return "so it is" if device.type == "cuda" else "not seen without a GPU"


def statistics(device: torch.device) -> str:
    """Left by the kernel and by torch's operations, against those of a CPU; nobody waits for the device."""
    torch.manual_seed(0)
    logits, target = torch.randn(4096, 1000) * 5, torch.randint(1000, (4096,))
    wanted, found = torch.empty(4, 4096), torch.empty(4, 4096, device=device)
    smoothed_cross_entropy(logits, target, statistics=wanted)
    metric, expected = (CalibrationError().to(place) for place in (device, torch.device("cpu")))
    expected.update(logits, target)
    logits, target = logits.to(device), target.to(device)
    for way in ("1", "0"):
        os.environ["LS_LIGHTNING_TRITON"] = way
        try:
            smoothed_cross_entropy(logits, target, statistics=found)  # builds what is built once
            metric.update_statistics(found)
            metric.reset()
            with syncs_are_errors(device):
                smoothed_cross_entropy(logits, target, statistics=found.fill_(7))
                metric.update_statistics(found)
        finally:
            os.environ["LS_LIGHTNING_TRITON"] = "1"
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(metric.compute().cpu(), expected.compute(), rtol=0, atol=1e-6)
    return "as those of the CPU, to float32's rounding"


@contextmanager
def syncs_are_errors(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def eps_schedule(device: torch.device) -> str:
    """How many kernels a schedule builds after its first step: of ours, and of the compiled loss."""
    logits = torch.randn(64, 1000, device=device, requires_grad=True)
    target = torch.randint(1000, (64,), device=device)
    loss = SmoothedCrossEntropy(eps=0.1).to(device)
    made = importlib.import_module("torch._dynamo.testing").CompileCounter()
    for count, way in enumerate((loss, torch.compile(loss, backend=made, fullgraph=True))):
        before = 0
        for number in range(20):
            loss.set_eps(number / 40)
            way(logits, target).backward()
            before = (built(), made.frame_count)[count] if number == 0 else before
        more = (built(), made.frame_count)[count] - before
        if more:
            raise AssertionError(f"{more} kernels more after the first step")
    return "19 more values of eps build no kernel, ours or compiled"


def built() -> int:
    """How many variants of our kernel there are."""
    kernels = triton_rows._kernels() if torch.cuda.is_available() else None
    return 0 if kernels is None else sum(len(cache[0]) for cache in kernels.rows_kernel.device_caches.values())


def collective_start(device: torch.device) -> str:
    """A group of one rank, and a metric's states reduced in it."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting").as_uri()
        distributed.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        try:
            metric = CalibrationError(num_classes=10).to(device)
            metric.update(torch.randn(50, 10, device=device), torch.randint(10, (50,), device=device))
            value = metric.compute()
            distributed.all_reduce(value)
            float(value)
        finally:
            distributed.destroy_process_group()
    return f"{time.perf_counter() - began:.1f} s with {backend}, from nothing to a reduced metric"
