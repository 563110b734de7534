"""What a sweep costs beside its jobs: start-up, imports, and jobs per minute against a plain shell loop.

Three ways to run the same 20 short jobs on digits take turns, five jobs at a time: a sequential shell loop of plain
runs; the process launcher, one job at a time; the process launcher with two jobs side by side. A job alone is also
watched from the start of its process to its first step, and its imports are summed up by package.
Run: ``python benchmarks/sweep.py``
"""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

ROUNDS, SEEDS = 4, 5
JOB = ["trainer=cpu", "trainer.max_epochs=10", "trainer.enable_progress_bar=false"]
TRAIN = [sys.executable, "-m", "ls_lightning.train"]


class FirstStep:
    """A callback that writes down when the first step begins; made in the job, by name."""

    def __new__(cls, path: str) -> object:
        import lightning as L

        class Probe(L.Callback):
            def on_train_batch_start(self, *args: object) -> None:
                if not Path(path).exists():
                    Path(path).write_text(str(time.time()))

        return Probe()


def timed(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def shell_loop(folder: Path, eps: float) -> float:
    words = " ".join([*TRAIN, *JOB, f"eps={eps}"])
    loop = (
        f"for seed in {' '.join(map(str, range(SEEDS)))}; do {words} seed=$seed hydra.run.dir=loop/$seed || exit; done"
    )
    return timed(["sh", "-c", loop], folder)


def sweep(folder: Path, eps: float, n_jobs: int) -> float:
    options = [f"eps={eps}", f"seed=range({SEEDS})", f"hydra.launcher.n_jobs={n_jobs}", "hydra.sweep.dir=sweep"]
    return timed([*TRAIN, "-m", *JOB, *options], folder)


WAYS = {
    "shell loop, one after the other": lambda folder, eps: shell_loop(folder, eps),
    "process launcher, n_jobs=1": lambda folder, eps: sweep(folder, eps, 1),
    "process launcher, n_jobs=2": lambda folder, eps: sweep(folder, eps, 2),
}


def race() -> None:
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(ROUNDS):
        for name, way in WAYS.items():
            print(f"\rround {turn + 1} of {ROUNDS}: {name:40}", end="", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                spent[name].append(way(Path(folder), round(0.05 * (turn + 1), 2)))
    print(file=sys.stderr)
    base = statistics.median(spent["shell loop, one after the other"])
    print(f"\n{ROUNDS * SEEDS} jobs on digits ({' '.join(JOB[:2])}), medians over {ROUNDS} rounds of {SEEDS} jobs")
    for name, seconds in spent.items():
        each = statistics.median(seconds)
        print(f"  {name:34} {60 * SEEDS / each:5.1f} jobs/min   {each / base:4.2f} of the loop's time")


def start_up() -> None:
    first, whole = [], []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            probe = ["+callbacks.probe._target_=sweep.FirstStep", "+callbacks.probe.path=first"]
            began = time.time()
            whole.append(timed([*TRAIN, *JOB, *probe, "hydra.run.dir=job"], Path(folder)))
            first.append(float((Path(folder) / "first").read_text()) - began)
    refused = [time.perf_counter()]
    for _ in range(5):
        subprocess.run([*TRAIN, "eps=2"], capture_output=True)
        refused.append(time.perf_counter())
    print("\nOne job, medians of 5")
    print(f"  start of the process to its first step   {statistics.median(first):5.2f} s")
    print(f"  the whole job                            {statistics.median(whole):5.2f} s")
    wrong = statistics.median(b - a for a, b in pairwise(refused))
    print(f"  a wrong value, refused before any import {wrong:5.2f} s")


def imports() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import ls_lightning.train, ls_lightning.job"]
    subprocess.run(command, capture_output=True)  # so that all is in the cache of files
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", report):
        spent[name.split(".")[0]] += int(own)
    print(f"\nImports of a job: {sum(spent.values()) / 1e6:.2f} s in {report.count('import time:')} modules")
    for name, micros in spent.most_common(8):
        print(f"  {name:16} {micros / 1e6:5.2f} s")


if __name__ == "__main__":
    cores = len(os.sched_getaffinity(0))
    names = ("torch", "lightning", "hydra-core")
    print(f"{platform.machine()}, {cores} cores,", ", ".join(f"{name} {version(name)}" for name in names))
    imports()
    start_up()
    race()
