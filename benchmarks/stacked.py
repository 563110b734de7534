"""What a sweep of 25 small jobs costs as one model: against a single job, and against a process for each.

Digits, MLP, 60 epochs, 5 eps times 5 seeds. Ways take turns, each a command as a user types it, from the start of its
process to its end: one job with and without pictures (a stacked job draws none); 25 jobs stacked, in one process and
divided between two; and 5 jobs one by one through the process launcher, whose time is also given times 5. Besides the
time of the clock the processor's is shown, which other programs on the machine disturb less; that of the process
launcher's jobs, which are no children of it, cannot be seen from here.
Run: ``python benchmarks/stacked.py``; it writes the section `stacked` of ``benchmarks/RESULTS.md``. On a GPU
``python benchmarks/stacked.py 3 gpu``, with small convolutional networks: the section `stacked_gpu`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from results_page import machine, write_section

ROUNDS = 3
TRAIN = [sys.executable, "-m", "ls_lightning.train"]
GPU = "gpu" in sys.argv[2:]
OPTIONS = [*(["trainer=gpu", "model=cnn"] if GPU else ["trainer=cpu"]), "trainer.enable_progress_bar=false"]
STACKED = ["hydra/launcher=stacked", f"hydra.launcher.gpu={GPU}"]
SWEEP = [*TRAIN, "-m", *OPTIONS, "eps=0,0.05,0.1,0.2,0.3", "hydra.sweep.dir=sweep"]
WAYS = {
    "1 job, with pictures": [*TRAIN, *OPTIONS, "eps=0.1", "hydra.run.dir=job"],
    "1 job": [*TRAIN, *OPTIONS, "eps=0.1", "~callbacks.pictures", "hydra.run.dir=job"],
    "25 jobs stacked": [*SWEEP, "seed=range(5)", *STACKED],
    "25 jobs stacked, `n_jobs=2`": [*SWEEP, "seed=range(5)", *STACKED, "hydra.launcher.n_jobs=2"],
    "5 jobs as processes": [*SWEEP, "seed=0", "~callbacks.pictures", "hydra/launcher=process"],
}


class Cost(NamedTuple):
    """Seconds of the clock, and of the processors."""

    clock: float
    processor: float


def run(command: list[str]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), os.times()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        clock, after = time.perf_counter() - began, os.times()
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
        finished = len(list(Path(folder).rglob("result.json")))
        expected = 25 if "seed=range(5)" in command else 5 if "seed=0" in command else 1
        if finished != expected:
            raise RuntimeError(f"{command} finished {finished} jobs of {expected}.")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(clock, used)


def table(costs: dict[str, list[Cost]]) -> str:
    medians = {way: Cost(*map(statistics.median, zip(*found, strict=True))) for way, found in costs.items()}
    processes = medians["5 jobs as processes"]
    medians["25 jobs as processes (5 times the 5)"] = Cost(5 * processes.clock, 0.0)
    one, pictured = medians["1 job"], medians["1 job, with pictures"]
    lines = ["| | seconds | of 1 job | of 1 job with pictures | processor seconds |", "|---|---|---|---|---|"]
    for way, cost in medians.items():
        ratios = f"{cost.clock / one.clock:.2f} | {cost.clock / pictured.clock:.2f}"
        processor = "" if "processes" in way else f"{cost.processor:.1f}"
        lines.append(f"| {way} | {cost.clock:.1f} | {ratios} | {processor} |")
    return "\n".join(lines)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
    load = [os.getloadavg()[0]]
    for _ in range(rounds):
        for way, command in WAYS.items():
            costs[way].append(run(command))
            load.append(os.getloadavg()[0])
            print(f"{way}: {costs[way][-1].clock:.1f} s", flush=True)
    found = table(costs)
    print(found)
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    name, place, network, typed = (
        ("stacked_gpu", " on a GPU", "a CNN", " gpu") if GPU else ("stacked", "", "an MLP", "")
    )
    write_section(
        name,
        f"""## A sweep as one model{place}

`python benchmarks/stacked.py {rounds}{typed}`: 60 epochs of {network} on digits, medians of rounds: {rounds},
OMP_NUM_THREADS {threads}, load average {min(load):.1f} to {max(load):.1f}.
{machine("torch", "lightning", "ls-lightning")}.

{found}
""",
    )


if __name__ == "__main__":
    main()
