"""The kernel of the smoothed loss: the same loss where Triton interprets it on a CPU, and what it builds for a GPU."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
import torch
from packaging.version import Version

from ls_lightning import functional
from ls_lightning.functional import triton_rows
from ls_lightning.functional.fused_rows import SmoothedTarget

HERE = Path(__file__).parent


def has_triton(needed):
    return find_spec("triton") is not None and Version(version("triton")) >= Version(needed)


needs_triton = pytest.mark.skipif(not has_triton("3.6"), reason="needs Triton 3.6: pip install triton")


def run_cases(**environment):
    """In a process, since Triton decides when it is imported whether to interpret."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "triton_cases.py"]
    done = subprocess.run(command, cwd=HERE, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(not has_triton("3.9"), reason="needs Triton 3.9: the interpreter of 3.6 fails with numpy 2.4")
def test_interpreted():
    run_cases(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    run_cases(TRITON_INTERPRET="0")


class Launch:
    """Takes the kernel's place, and says what Triton would build for the arguments on an H100."""

    def __init__(self):
        from triton.backends.compiler import GPUTarget
        from triton.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        self.kernel = triton_rows._kernels().rows_kernel
        self.target = GPUTarget("cuda", 90, 32)
        self.backend = make_backend(self.target)
        self.bind = create_function_from_signature(self.kernel.signature, self.kernel.params, self.backend)

    def __getitem__(self, grid):
        return self

    def __call__(self, *args, **options):
        # As triton.JITFunction.run does.
        bound, self.specialization, rest = self.bind(*args, **options, debug=False)
        self.packed = self.kernel._pack_args(self.backend, rest, bound, self.specialization, rest)

    @property
    def key(self):
        return str(self.specialization), str(self.packed[0])

    def ptx(self):
        from triton.compiler import ASTSource, compile

        options, signature, constants, attributes = self.packed
        source = ASTSource(self.kernel, signature, constants, attributes)
        return compile(source, target=self.target, options=options.__dict__).asm["ptx"]


def launched(shape, eps=0.1, dtype=torch.float32, layout="rows", add=True, statistics=None, **target):
    """What is built for logits `(rows, K)` or `(pixels, K)` of one image."""
    launch = Launch()
    rows, num_classes = shape
    logits = torch.empty(rows, num_classes, 1, dtype=dtype)
    if layout == "pixels":
        logits = torch.empty(1, num_classes, rows, dtype=dtype)
    place = (logits.shape[0], 1, logits.shape[2])
    smoothed = SmoothedTarget(
        label=torch.empty(place, dtype=torch.long),
        valid=torch.empty(place, dtype=torch.bool),
        eps=eps.view(place) if isinstance(eps, torch.Tensor) and eps.ndim else eps,
        others=False,
        prior=None,
        weight=None,
        own_weight=1.0,
        divergence=False,
        num_classes=num_classes,
    )._replace(**target)
    with mock.patch.object(triton_rows._kernels(), "rows_kernel", launch):
        rest = torch.float32, torch.rand(place), torch.empty_like(logits), add, statistics
        triton_rows.smoothed_rows(logits, smoothed, *rest)
    return launch


@needs_triton
def test_a_new_eps_is_no_new_kernel():
    memory = torch.linspace(0, 0.9, 40)
    numbers = [0.0, 0.1, 1e-9, 0.5, 1, torch.tensor(0.2), memory[3], memory[7].double()]
    assert len({launched((16, 1000), eps).key for eps in numbers}) == 1
    assert len({launched((16, 1000), memory[start : start + 16]).key for start in range(8)}) == 1


@needs_triton
def test_a_last_batch_of_any_size_is_no_new_kernel():
    sizes = {launched((rows, 1000)).key for rows in range(2, 40)}
    assert len(sizes) == 2  # of multiples of 16, and others


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "layout", "dtype"),
    [
        ((64, 1000), "rows", torch.bfloat16),
        ((64, 32000), "rows", torch.float32),
        ((4096, 21), "pixels", torch.float32),
        ((4096, 1000), "pixels", torch.bfloat16),
    ],
)
def test_memory_is_read_and_written_as_wide_as_it_goes(shape, layout, dtype, tmp_path):
    with mock.patch.dict(os.environ, TRITON_CACHE_DIR=str(tmp_path)):
        ptx = launched(shape, dtype=dtype, layout=layout).ptx()
    bits = sorted(set(re.findall(r"st\.global(?:\.v(\d))?\.b(\d+)", ptx)))
    assert ("4", "32") in bits
    narrow = "b16" if dtype == torch.bfloat16 else "none"
    assert f"st.global.{narrow}" not in ptx


@needs_triton
@pytest.mark.slow
def test_every_option_can_be_built(tmp_path):
    share, row = torch.rand(1, 50257, 1), torch.rand(64, 1, 1)
    options = {"prior": share, "weight": share, "own_weight": row, "others": True, "divergence": True}
    with mock.patch.dict(os.environ, TRITON_CACHE_DIR=str(tmp_path)):
        assert "st.global" in launched((64, 50257), torch.rand(64), dtype=torch.float16, **options).ptx()
        for num_classes in (10, 50257):
            left, none = (launched((64, num_classes), statistics=to).ptx() for to in (torch.rand(4, 64), None))
            assert left.count("st.global") > none.count("st.global")


@pytest.mark.parametrize("wanted", ["1", "0", None])
@pytest.mark.parametrize("on_a_gpu", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_who_goes_to_the_kernel(wanted, on_a_gpu, there, monkeypatch):
    logits = mock.Mock(is_cuda=on_a_gpu)
    monkeypatch.delenv("LS_LIGHTNING_TRITON", raising=False)
    if wanted is not None:
        monkeypatch.setenv("LS_LIGHTNING_TRITON", wanted)
    monkeypatch.setattr(triton_rows, "_kernels", lambda: sys if there else None)
    assert triton_rows.takes(logits) == (wanted == "1" and on_a_gpu and there)


def test_without_triton_torchs_operations_do_it(caplog, monkeypatch):
    triton_rows._kernels.cache_clear()
    monkeypatch.delattr(functional, "triton_kernels", raising=False)
    with mock.patch.dict(sys.modules, {"triton": None, "ls_lightning.functional.triton_kernels": None}):
        assert triton_rows._kernels() is None
    triton_rows._kernels.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("LS_LIGHTNING_TRITON=1 has no effect, torch's operations are used")
