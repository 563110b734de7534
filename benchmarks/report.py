"""How long the report takes for a sweep of 2,000 jobs: reading, choosing, printing, and drawing.

Folders as training leaves them are made up (20 eps, 2 schedules, 5 label noises, 10 seeds; 600 steps in metrics.csv).
Run: ``python benchmarks/report.py`` or ``python benchmarks/report.py 500``; it writes its section of RESULTS.md.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from job_folders import measured, write_job
from results_page import machine, write_section

SCHEDULES, NOISES, SEEDS = ("constant", "linear"), (0.0, 0.1, 0.2, 0.3, 0.4), 10
PARTS = {
    "table, answer, `report.md` and `sweep.csv`": ("figures=none", "html=false"),
    "the same and `report.html`": ("figures=none",),
    "the same and figures in PNG and SVG": (),
}
TITLE = "## The report of a sweep\n\n`python benchmarks/report.py`"
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
    """Seconds of one core: what else runs on the machine changes little."""
    began = processor_time()
    command = [sys.executable, "-m", "ls_lightning.report", str(root), f"out={root}/report", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # stderr shows the progress
    return processor_time() - began


def processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        count = make(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
        rows = [(what, timed(Path(folder), *words)) for what, words in PARTS.items()]
        size = (Path(folder) / "report" / "report.html").stat().st_size / 2**20
    lines = [f"| {what} | {seconds:.1f} s |" for what, seconds in rows]
    text = "\n".join(
        [TITLE, "", f"{count:,} jobs; report.html has {size:.1f} MB.", "", "| | one core |", "|---|---|", *lines]
    )
    print(text)
    write_section("report", f"{text}\n\n{machine('matplotlib', 'plotly')}")
