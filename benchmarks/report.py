"""How long the report takes for a sweep of 2,000 jobs: reading, choosing, printing, and drawing.

Folders as training leaves them are made up (20 eps, 2 schedules, 5 label noises, 10 seeds; 600 steps in metrics.csv).
Run: ``python benchmarks/report.py`` or ``python benchmarks/report.py 500``
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from job_folders import measured, write_job

SCHEDULES, NOISES, SEEDS = ("constant", "linear"), (0.0, 0.1, 0.2, 0.3, 0.4), 10
METRICS = ("aurc", "mce", "rmsce", "underconfidence", "entropy", "ece_debiased", "over_part", "under_part")


def make(root: Path, count: int) -> int:
    grid = [round(0.02 * (k + 1), 2) for k in range(max(1, count // (len(SCHEDULES) * len(NOISES) * SEEDS)))]
    jobs = [(eps, form, noise, seed) for eps in grid for form in SCHEDULES for noise in NOISES for seed in range(SEEDS)]
    for number, (eps, schedule, noise, seed) in enumerate(track(jobs, "making folders")):
        values = {**measured(0.5 + (eps - 0.1) ** 2 + noise + 0.01 * seed), **dict.fromkeys(METRICS, 0.1)}
        job = {"schedule": schedule, "label_noise": noise, "val": values, "test": values, "scaled": values}
        write_job(root / str(number), eps, seed, **job, steps=150)
    return len(jobs)


def timed(root: Path, *words: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "ls_lightning.report", str(root), f"out={root}/report", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # stderr shows the progress
    return time.perf_counter() - began


if __name__ == "__main__":
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        count = make(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
        print(f"{count:,} jobs: table, answer, report.md and sweep.csv   {timed(Path(folder), 'figures=none'):5.1f} s")
        print(f"{count:,} jobs: the same and figures in PNG and SVG      {timed(Path(folder)):5.1f} s")
