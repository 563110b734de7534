"""What a search found: a line, a table, a file."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.ls_optuna_sweeper._objectives import Objectives

RESULTS = "optimization_results.yaml"


def best_so_far(study: optuna.Study, objectives: Objectives) -> str:
    """One line for those who watch."""
    best = _best(study, objectives)
    counted = _counted(study)
    if not best:
        return f"after {counted}: no result yet"
    if len(objectives.names) > 1:
        return f"after {counted}: {len(best)} on the Pareto front"
    return f"after {counted}: best is {best[0].number}, {_line(best[0], objectives)}"


def summary(study: optuna.Study, objectives: Objectives, folder: Path) -> str:
    """The best trial, or a table of those on the Pareto front, best of the first objective first."""
    best = _best(study, objectives)
    if not best:
        return f"\n{_counted(study)}: no result."
    title = "Best" if len(objectives.names) == 1 else "Pareto front"
    names = list(best[0].params)
    rows = [["trial", *objectives.names, *names]]
    rows += [
        [
            str(trial.number),
            *(f"{value:.6g}" for value in trial.values),
            *(_short(trial.params[name]) for name in names),
        ]
        for trial in best
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"\n{title} of {_counted(study)}:", *table, str(folder / RESULTS)])


def write_summary(study: optuna.Study, objectives: Objectives, folder: Path) -> None:
    """``optimization_results.yaml``, with the keys that Hydra's own optuna sweeper writes, and the trials' numbers."""
    best = _best(study, objectives)
    found: dict[str, Any] = {"name": "optuna"}
    if len(objectives.names) == 1 and best:
        found.update(best_params=best[0].params, best_value=best[0].values[0], best_trial=best[0].number)
    elif len(objectives.names) > 1:
        found["solutions"] = [{"params": t.params, "values": t.values, "trial": t.number} for t in best]
    found["objectives"] = dict(zip(objectives.names, objectives.directions, strict=True))
    found["trials"] = _counts(study)
    partial = folder / f"{RESULTS}.part"
    OmegaConf.save(OmegaConf.create(found), partial)
    partial.replace(folder / RESULTS)


def _best(study: optuna.Study, objectives: Objectives) -> list[FrozenTrial]:
    """Complete trials only: optuna's own best may be a pruned one's last report."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    sign = -1 if objectives.directions[0] == "maximize" else 1
    if len(objectives.names) == 1:
        return [min(complete, key=lambda trial: sign * trial.values[0])] if complete else []
    return sorted(study.best_trials, key=lambda trial: sign * trial.values[0])


def _counts(study: optuna.Study) -> dict[str, int]:
    states = Counter(trial.state for trial in study.get_trials(deepcopy=False))
    words = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return {word: states[state] for state, word in words.items() if states[state]}


def _counted(study: optuna.Study) -> str:
    counts = _counts(study)
    detail = (
        "" if list(counts) in (["complete"], []) else f" ({', '.join(f'{n} {word}' for word, n in counts.items())})"
    )
    return f"{sum(counts.values())} trials{detail}"


def _line(trial: FrozenTrial, objectives: Objectives) -> str:
    values = [f"{name} {value:.6g}" for name, value in zip(objectives.names, trial.values, strict=True)]
    return " ".join([*values, *(f"{name}={_short(value)}" for name, value in trial.params.items())])


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
