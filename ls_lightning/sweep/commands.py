"""The command lines that would give the evidence that is lacking."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from ls_lightning.sweep.choose import Choice
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.jobs import Job
from ls_lightning.sweep.settings import read_yaml

_OWN = re.compile(r"[+~]*(eps|seed|name|ckpt_path|(loss|schedule)\.(eps|start|end))=|hydra\.")

_CONFIG_DIR = "command-line"


def widen_command(choice: Choice) -> str | None:
    """The sweep that continues the grid beyond the best eps; None where that is inside of it.

    Above, two more steps of the grid's last width (below 1); below, half and a quarter of the smallest eps.
    """
    grid = choice.grid
    if choice.edge is None:
        return None
    if choice.edge == "low":
        more = [0.0, grid[0] / 4, grid[0] / 2]
    else:
        step = grid[-1] - (grid[-2] if len(grid) > 1 else 0)
        more = [grid[-1] + step, grid[-1] + 2 * step]
        if max(more) >= 1:
            more = [(grid[-1] + 1) / 2]
    return sweep_command(choice.best, more, [job.seed for job in choice.best.jobs])


def seeds_command(choice: Choice, count: int) -> str:
    """The sweep that trains what was compared with ``count`` seeds more."""
    used = {job.seed for candidate in choice.candidates for job in candidate.group.jobs}
    first = max(used) + 1
    asked = choice.asked
    eps = sorted({asked.eps, *([choice.reference.eps] if choice.reference else [])})
    return sweep_command(asked, eps, range(first, first + count))


def baseline_command(choice: Choice) -> str:
    """The sweep of plain training that is lacking."""
    return sweep_command(choice.chosen, [0.0], [job.seed for job in choice.chosen.jobs])


def first_command(choice: Choice) -> str:
    """A first sweep around what was trained: usual eps, 0 among them, and three seeds."""
    tried = set(choice.grid)
    return sweep_command(choice.chosen, [eps for eps in (0.0, 0.05, 0.1) if eps not in tried], range(3))


def sweep_command(like: Group, eps: Sequence[float], seeds: Sequence[int]) -> str:
    """A sweep with the loss, schedule and other overrides of a group, and another eps and seeds."""
    job = like.jobs[0]
    kept = [word for word in job.overrides if not _OWN.match(word)]
    if not job.overrides:
        form = re.match(r"\w+", like.schedule.replace("-", "_"))
        kept = [f"{key}={job.result[key]}" for key in ("model", "data") if isinstance(job.result.get(key), str)]
        kept += [f"schedule={form[0]}"] if form and like.smooths else []
    if "." not in job.loss and not any(word.startswith("loss=") for word in kept):
        kept.insert(0, f"loss={job.loss}")
    words = [f"eps={','.join(f'{value:.4g}' for value in eps)}", f"seed={_seeds(list(seeds))}", *kept]
    return shlex.join(["python", "-m", "ls_lightning.train", "-m", *_own_files(job), *words])


def _own_files(job: Job) -> list[str]:
    """What let the sweep of a job find configuration files of the user's own."""
    stored: Any = read_yaml(job.folder.parent / "multirun.yaml")
    try:
        sources = stored["hydra"]["runtime"]["config_sources"]
        found = {source["provider"]: source["path"] for source in sources if source["schema"] == "file"}
    except (TypeError, KeyError):
        return []
    words = [f"--config-dir={found[_CONFIG_DIR]}"] if _CONFIG_DIR in found else []
    return words + [f"hydra.searchpath=[file://{path}]" for name, path in found.items() if "searchpath" in name]


def _seeds(seeds: list[int]) -> str:
    """``range(5,8)`` for three or more in a row, else one by one."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))
