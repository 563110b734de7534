"""The process of a stack: ``python -m hydra_plugins.ls_stacked_launcher._worker <folder>``.

Imports what training needs, waits for the jobs in the folder, and trains them. The launcher ends it if none come.
"""

import gc
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from hydra_plugins.ls_process_launcher._returned import RETURNED

JOBS = "jobs.json"


def main(folder: Path) -> int:
    """0 if all jobs are finished, 1 if some are not."""
    gc.disable()  # what is imported stays: to look through it again and again takes a fifth of the time
    from ls_lightning.stacked.job import StackedJob, run_stack

    gc.freeze()
    gc.enable()
    while not (folder / JOBS).exists():
        time.sleep(0.02)
    jobs = [StackedJob(**told) for told in json.loads((folder / JOBS).read_text())]
    folders = {job.num: Path(job.folder) for job in jobs}

    def done(num: int, result: dict[str, Any]) -> None:
        """What ``ls_lightning.train`` returns of a job."""
        nll = result["metrics"].get("val", {}).get("nll")
        partial = folders[num] / f"{RETURNED}.part"
        partial.write_bytes(pickle.dumps((nll, True)))
        partial.replace(folders[num] / RETURNED)

    return 1 if run_stack(jobs, done) else 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # there is nothing to tidy up, and torch takes its time
