"""What is optimised: names, directions, and the values that a finished job has for them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from hydra.core.utils import JobReturn

from hydra_plugins.ls_optuna_sweeper._errors import SweeperError
from ls_lightning.sweep.results import read_result

_UP = {"acc", "accuracy"}
_DOWN = {"nll", "loss", "brier", "ece", "mce", "rmsce", "aurc", "eaurc", "augrc", "overconfidence", "underconfidence"}
Direction = Literal["minimize", "maximize"]


class NotFiniteError(ValueError):
    """The job ended, but with nan or infinity."""


@dataclass(frozen=True)
class Objectives:
    """One entry an objective.

    Args:
        names: metrics; without names of the user's, ``value``.
        directions: ``"minimize"`` or ``"maximize"``.
        named: whether the user gave the names.
    """

    names: list[str]
    directions: list[Direction]
    named: bool

    def values(self, job: JobReturn) -> list[float]:
        """Of a completed job: from what its function returned, else from the ``result.json`` in its folder.

        Raises:
            NotFiniteError: a value is nan or infinite.
            SweeperError: the job has no such value.
        """
        returned = job.return_value
        folder = Path(job.hydra_cfg.hydra.runtime.output_dir)  # type: ignore[union-attr]
        values = self._by_name(returned, folder) if self.named else self._in_order(returned)
        for name, value in zip(self.names, values, strict=True):
            if not math.isfinite(value):
                raise NotFiniteError(f"{name} is {value}")
        return values

    def _by_name(self, returned: Any, folder: Path) -> list[float]:
        found = _measured(folder)
        if isinstance(returned, Mapping):
            found.update(returned)
        elif not found:  # an app without names: its values are the objectives in their order
            return self._in_order(returned)
        missing = [name for name in self.names if name not in found]
        if missing:
            raise SweeperError(
                f"the objective {missing[0]} is not among what {folder} has: {', '.join(sorted(map(str, found)))}. "
                "Name one of these; jobs that are finished are not run again."
            )
        return [_number(found[name], name) for name in self.names]

    def _in_order(self, returned: Any) -> list[float]:
        if isinstance(returned, Mapping):
            values = list(returned.values())
        elif isinstance(returned, Sequence) and not isinstance(returned, str):
            values = list(returned)
        else:
            values = [returned]
        if len(values) != len(self.names):
            raise SweeperError(
                f"the function must return {len(self.names)} number(s) for {', '.join(self.names)}, got {returned!r}. "
                "Give hydra.sweeper.direction as many directions, or name hydra.sweeper.objectives."
            )
        return [_number(value, name) for value, name in zip(values, self.names, strict=True)]


def parse_objectives(objectives: Any, direction: Any) -> Objectives:
    """Read ``hydra.sweeper.objectives`` and ``hydra.sweeper.direction``.

    Args:
        objectives: None, a name, a list of names, or ``{name: direction}``.
        direction: of returned values: None, a direction, or a list of them.

    Raises:
        SweeperError: a direction is unknown, or an objective is measured on test data.

    Example:
        >>> found = parse_objectives(["val/acc", "val/ece"], None)
        >>> found.directions
        ['maximize', 'minimize']
    """
    if objectives is None:
        directions = list(direction) if isinstance(direction, list) else [direction or "minimize"]
        names = ["value"] if len(directions) == 1 else [f"value_{k}" for k in range(len(directions))]
        return Objectives(
            names, [_direction(name, given) for name, given in zip(names, directions, strict=True)], False
        )
    if direction is not None:
        raise SweeperError(
            "hydra.sweeper.direction is for returned values; objectives have theirs: objectives={val/acc: maximize}."
        )
    if isinstance(objectives, str):
        objectives = [objectives]
    given = dict(objectives) if isinstance(objectives, dict) else dict.fromkeys(objectives)
    if not given:
        raise SweeperError("hydra.sweeper.objectives needs a name such as val/nll, got none.")
    for name in given:
        if str(name).replace("_", "/").split("/")[0] == "test":
            raise SweeperError(
                f"{name} cannot be an objective: what is chosen on test data cannot be judged by it. "
                f"Use val{str(name).removeprefix('test')}."
            )
    return Objectives([str(name) for name in given], [_direction(str(name), way) for name, way in given.items()], True)


def _direction(name: str, given: Any) -> Direction:
    if given is None:
        words = {part.lower() for part in name.replace("_", "/").split("/")}
        if bool(words & _UP) == bool(words & _DOWN):
            raise SweeperError(
                f"which way is {name} better? Say hydra.sweeper.objectives={{{name}: maximize}}, or minimize."
            )
        return "maximize" if words & _UP else "minimize"
    if given not in get_args(Direction):
        raise SweeperError(f"the direction of {name} must be minimize or maximize, got {given}.")
    return cast(Direction, given)


def _measured(folder: Path) -> dict[str, Any]:
    """The metrics of ``result.json`` by the names under which they are logged."""
    try:
        result = read_result(folder) or {}
    except ValueError:  # another program's file of this name
        return {}
    found = {}
    for stage, metrics in result.get("metrics", {}).items():
        split, _, loader = stage.partition("/")  # "val/dataloader_idx_0" is logged as val/ece/dataloader_idx_0
        for name, value in metrics.items():
            found["/".join(filter(None, [split, name, loader]))] = math.nan if value is None else value
    return found


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise SweeperError(f"{name} must be a number, got {value!r}.") from None
