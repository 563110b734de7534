"""What a sweep costs beside its jobs: start-up, imports, and jobs per minute against a plain shell loop.

Ways to run the same 10 short jobs on digits take turns, five jobs at a time: a sequential shell loop of plain runs; the
process launcher with a fresh process a job, one at a time and two side by side; the same with jobs that are forked from
a process that has done the imports (`hydra.launcher.warm`). A job alone is also watched from the start of its process
to its first step, and the imports of a fresh and of a forked job are summed up by package.
Run: ``python benchmarks/sweep.py``; it writes the section `sweep` of ``benchmarks/RESULTS.md``.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from results_page import machine, write_section

ROUNDS, SEEDS = 2, 5
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


def timed(command: list[str], folder: Path, **variables: str) -> float:
    began = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **variables}
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


def sweep(folder: Path, eps: float, n_jobs: int, warm: bool) -> float:
    options = [f"eps={eps}", f"seed=range({SEEDS})", "hydra.sweep.dir=sweep"]
    launcher = [f"hydra.launcher.n_jobs={n_jobs}", f"hydra.launcher.warm={str(warm).lower()}"]
    return timed([*TRAIN, "-m", *JOB, *options, *launcher], folder)


WAYS = {
    "shell loop, one after the other": lambda folder, eps: shell_loop(folder, eps),
    "fresh processes, n_jobs=1": lambda folder, eps: sweep(folder, eps, 1, warm=False),
    "fresh processes, n_jobs=2": lambda folder, eps: sweep(folder, eps, 2, warm=False),
    "warm, n_jobs=1": lambda folder, eps: sweep(folder, eps, 1, warm=True),
    "warm, n_jobs=2": lambda folder, eps: sweep(folder, eps, 2, warm=True),
}


LOOP = next(iter(WAYS))


def race() -> str:
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(ROUNDS):
        for name, way in WAYS.items():
            print(f"\rround {turn + 1} of {ROUNDS}: {name:40}", end="", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                spent[name].append(way(Path(folder), round(0.05 * (turn + 1), 2)))
    print(file=sys.stderr)
    base = statistics.median(spent[LOOP])
    lines = [
        f"{ROUNDS * SEEDS} jobs on digits each way (`{' '.join(JOB[:2])}`), medians of {ROUNDS} rounds of {SEEDS}.",
        "",
        "| | jobs per minute | time, of the loop's |",
        "|---|---|---|",
    ]
    for name, seconds in spent.items():
        each = statistics.median(seconds)
        lines.append(f"| {name} | {60 * SEEDS / each:.1f} | {each / base:.2f} |")
    return "\n".join(lines)


def start_up() -> str:
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
    wrong = statistics.median(b - a for a, b in pairwise(refused))
    return (
        f"A job alone, medians of 5: {statistics.median(first):.1f} s to its first step, "
        f"{statistics.median(whole):.1f} s in all; a wrong value is refused after {wrong:.1f} s."
    )


def imports(warm: bool) -> str:
    """What a job of a sweep imports after its process has begun."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("once", "sweep"):  # first, so that all is in the cache of files
            words = [*JOB, "eps=0.1", f"hydra.launcher.warm={str(warm).lower()}", f"hydra.sweep.dir={name}"]
            timed([*TRAIN, "-m", *words], Path(folder), PYTHONPROFILEIMPORTTIME="1")
        report = (Path(folder) / "sweep" / "0" / "job.log").read_text()
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", report):
        spent[name.split(".")[0]] += int(own)
    parts = ", ".join(f"{name} {micros / 1e6:.2f} s" for name, micros in spent.most_common(6))
    kind = "warm" if warm else "fresh"
    return (
        f"Imports of a {kind} job: {sum(spent.values()) / 1e6:.2f} s, {report.count('import time:')} modules: {parts}."
    )


if __name__ == "__main__":
    parts = [imports(warm=False), imports(warm=True), start_up(), race()]
    text = "\n\n".join(["## What a sweep costs beside its jobs", "`python benchmarks/sweep.py`", *parts, ""])
    text += f"\n{machine('torch', 'lightning', 'hydra-core')}\n"
    print(text)
    write_section("sweep", text)
