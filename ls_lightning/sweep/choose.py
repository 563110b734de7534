"""Choose one eps on validation data, and ask the test data what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ls_lightning.errors import ConfigError, did_you_mean
from ls_lightning.sweep.criterion import Criterion
from ls_lightning.sweep.estimate import Estimate, difference, mean_interval
from ls_lightning.sweep.groups import Group, baseline_of
from ls_lightning.sweep.student import seeds_needed

ALPHA = 0.05
_ROUNDING = 1e-6  # relative; a loss of one's own at eps 0 is mostly cross-entropy, added up in another order


@dataclass(frozen=True)
class Candidate:
    """A group that may be chosen.

    Args:
        group: which.
        cost: its criterion on validation.
        excess: by how much that is above the best one's, paired where seeds match.
    """

    group: Group
    cost: Estimate
    excess: Estimate

    @property
    def as_good_as_best(self) -> bool:
        """Whether the excess is at most one standard error of itself, or a rounding error."""
        error = 0.0 if math.isnan(self.excess.se) else self.excess.se
        return self.excess.mean <= max(error, _ROUNDING * abs(self.cost.mean))


@dataclass(frozen=True)
class Choice:
    """The answer for one setting.

    Args:
        criterion: that was minimised on validation.
        candidates: all that have it, by eps.
        best: the lowest mean on validation.
        chosen: the smallest eps (below 0: nearest to 0) that the one-standard-error rule cannot tell from the best;
            of several with eps 0 plain training.
        baseline: plain training; None if it was not run.
        asked: the group whose difference to ``reference`` was tested: the chosen one, or the best of those that
            smooth if plain training was chosen.
        reference: the baseline, or without one the smallest other eps; None if there is nothing to compare with.
        effect: criterion of ``asked`` minus that of ``reference`` on ``stage``, at the level ``1 - alpha``.
        alpha: 0.05 shared among all candidates but the reference (Bonferroni), since the best of them was taken.
        stage: ``test``, or ``val`` where nothing was tested.
        passed_over: groups that could not be chosen: they lack the criterion, or have one seed where others have more.
    """

    criterion: Criterion
    candidates: tuple[Candidate, ...]
    best: Group
    chosen: Group
    baseline: Group | None
    asked: Group
    reference: Group | None
    effect: Estimate | None
    alpha: float
    stage: str
    passed_over: tuple[Group, ...] = ()

    @property
    def separated(self) -> bool:
        """Whether the data tell ``asked`` from ``reference``."""
        return self.effect is not None and self.effect.separated

    @property
    def more_seeds(self) -> int | None:
        """How many seeds are lacking to tell them apart with 80 % power; None if unknown or out of reach."""
        if self.effect is None or self.effect.n < 2:
            return None
        needed = seeds_needed(self.effect.mean, self.effect.sd, alpha=self.alpha)
        return None if needed is None else max(1, needed - self.effect.n)

    @property
    def edge(self) -> str | None:
        """``"high"`` or ``"low"`` if the best eps is the last one on that side of its grid; 0 has nothing below."""
        sizes = [abs(eps) for eps in self.grid]
        if self.best.eps == 0 or len(sizes) < 2:
            return None
        if abs(self.best.eps) == sizes[-1]:
            return "high"
        return "low" if abs(self.best.eps) == sizes[0] else None

    @property
    def grid(self) -> list[float]:
        """The eps tried with the loss and schedule of the best, and plain training's, by their size."""
        mine = (self.best.loss, self.best.schedule)
        alike = [c.group for c in self.candidates if (c.group.loss, c.group.schedule) == mine or not c.group.smooths]
        return sorted({group.eps for group in alike}, key=abs)


def choose(groups: Sequence[Group], criterion: Criterion) -> Choice:
    """Choose among the groups of one setting.

    The best mean on validation is found first. Of all groups whose paired difference to it is at most one standard
    error of that difference, the smallest eps is taken: a difference within the noise is no reason to smooth more,
    and what smoothing erases from the logits (order of confidences, similarity of classes) grows with eps.

    Args:
        groups: of one setting.
        criterion: to minimise.

    Raises:
        ConfigError: no group has the criterion on validation, or none anything at all.

    Source: Breiman et al. 1984, section 3.4.3, for the rule; here with the standard error of the paired difference,
    since the spread that all candidates share with a seed says nothing about which is better.
    """
    if not any(column.startswith("val") for group in groups for job in group.jobs for column in job.values):
        raise ConfigError(
            "nothing was measured on validation data, and an eps chosen on test data would flatter itself."
        )
    costs = {index: _costs(group, criterion, "val") for index, group in enumerate(groups)}
    able = [(groups[index], found) for index, found in costs.items() if found]
    if not able:
        lacking = criterion.columns("val")
        there = sorted({column for group in groups for job in group.jobs for column in job.values if "val/" in column})
        hint = did_you_mean(lacking[0], there) or f" There are {', '.join(there[:12])}{', ...' * (len(there) > 12)}."
        raise ConfigError(f"select={criterion.text} needs {', '.join(lacking)}, which no finished job has.{hint}")
    if any(len(found) > 1 for _, found in able):
        able = [(group, found) for group, found in able if len(found) > 1]
    best, best_costs = min(able, key=lambda item: mean_interval(list(item[1].values())).mean)
    candidates = tuple(
        Candidate(group, mean_interval(list(found.values())), difference(found, best_costs))
        for group, found in sorted(able, key=lambda item: item[0].eps)
    )
    fitting = [one for one in candidates if one.as_good_as_best]
    chosen = min(fitting, key=lambda one: (abs(one.group.eps), one.group.smooths, one.cost.mean)).group
    baseline = baseline_of(best, groups)
    asked, reference = _contrast(candidates, chosen, baseline)
    stage = "test" if any(_costs(group, criterion, "test") for group, _ in able) else "val"
    alpha = ALPHA / max(1, len(candidates) - 1)
    effect = None if reference is None else _effect(asked, reference, criterion, stage, alpha)
    chosen_from = [group for group, _ in able]
    passed_over = tuple(group for group in groups if group not in chosen_from)
    return Choice(criterion, candidates, best, chosen, baseline, asked, reference, effect, alpha, stage, passed_over)


def _contrast(candidates: Sequence[Candidate], chosen: Group, baseline: Group | None) -> tuple[Group, Group | None]:
    reference = baseline
    if reference is None:
        others = [one.group for one in candidates if one.group is not chosen]
        return chosen, min(others, key=lambda group: group.eps, default=None)
    if chosen.smooths:
        return chosen, reference
    plain = next(one.cost.mean for one in candidates if one.group is chosen)
    smoothing = [
        one
        for one in candidates
        if one.group.smooths and not (one.group.eps == 0 and math.isclose(one.cost.mean, plain, rel_tol=_ROUNDING))
    ]
    if not smoothing:
        return chosen, None
    return min(smoothing, key=lambda one: one.cost.mean).group, chosen


def _effect(asked: Group, reference: Group, criterion: Criterion, stage: str, alpha: float) -> Estimate | None:
    after, before = _costs(asked, criterion, stage), _costs(reference, criterion, stage)
    return difference(after, before, 1 - alpha) if after and before else None


def _costs(group: Group, criterion: Criterion, stage: str) -> dict[int, float]:
    found = {job.seed: criterion.cost(job, stage) for job in group.jobs}
    return {seed: cost for seed, cost in found.items() if not math.isnan(cost)}
