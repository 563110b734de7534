import os
import signal
import warnings

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch counts the cores: two workers share them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import lightning  # noqa: F401  its logger keeps the stderr of its first import: let that not be a single test's
import torch

collect_ignore = ["triton_cases.py"]  # for a process of its own

# A shell ignores Ctrl-C for what it starts in the background, and so would all programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.option.loadscopereorder = False  # of xdist: its own order has the files of few long tests at the end


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no worker is left alone with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _quiet_lightning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Before 2.11 torch.compile breaks the graph at a property of a named tuple, or refuses where it may not."""
    if torch.__version__ >= (2, 11):
        return (yield)
    from torch._dynamo.exc import TorchDynamoException

    try:
        return (yield)
    except TorchDynamoException:
        pytest.skip(f"torch {torch.__version__} cannot compile this as one graph; 2.11 can")
