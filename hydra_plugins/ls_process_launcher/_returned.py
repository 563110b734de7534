"""The way of a task function's return value from the job's process to the sweeper: a file in the job's folder."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

RETURNED = "return_value.pickle"
RESULT = "result.json"


@dataclass
class Returned:
    """What a finished job left behind.

    Args:
        value: what its task function returned.
        has_result: whether the program also wrote a ``result.json``, without which the job does not count as finished.
    """

    value: Any
    has_result: bool


class StoreReturnValue(Callback):
    """Runs in the job's process, added by the launcher; the other ranks of the job leave the file alone."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status != JobStatus.COMPLETED or os.environ.get("LOCAL_RANK", "0") != "0":
            return
        folder = Path(config.hydra.runtime.output_dir)
        content = pickle.dumps((job_return.return_value, (folder / RESULT).exists()))
        partial = folder / f"{RETURNED}.part"
        partial.write_bytes(content)
        partial.replace(folder / RETURNED)


def read_returned(folder: Path) -> Returned | None:
    """None where no job has finished, or its file cannot be read."""
    try:
        value, has_result = pickle.loads((folder / RETURNED).read_bytes())
    except Exception:  # half a file, a class that is no longer there: the job is run again
        return None
    return Returned(value, has_result)
