"""The choice in sentences that a person can act on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ls_lightning.sweep.choose import ALPHA, Choice
from ls_lightning.sweep.commands import baseline_command, first_command, seeds_command, widen_command
from ls_lightning.sweep.estimate import Estimate
from ls_lightning.sweep.groups import Group
from ls_lightning.sweep.measures import MEASURES, Measure
from ls_lightning.sweep.student import MOST_SEEDS
from ls_lightning.sweep.undertrained import undertrained


def headline(choice: Choice, level: float = 0.95) -> str:
    """One sentence: the eps, what it does to ECE and accuracy on test, and what temperature scaling alone does.

    "eps 0.05 with linear decay: ECE 11.9 -> 1.5 %, accuracy +1.4 ±0.3 points over 5 seeds; temperature scaling alone
    gives 2.5 %."
    """
    group, base, stage = choice.chosen, choice.baseline, choice.stage
    name = group.label
    if len({candidate.group.loss for candidate in choice.candidates}) > 1:
        name = f"{group.loss}, {name}"
    if base is None or base is group:
        levels = _levels(group, stage, choice.criterion.own)
        return f"{name}: {levels} over {_seeds(len(group.jobs))}{_scaling(group, stage)}."
    ece, before = group.estimate(f"{stage}/ece"), base.estimate(f"{stage}/ece")
    parts = [] if ece is None or before is None else [f"ECE {100 * before.mean:.1f} -> {100 * ece.mean:.1f} %"]
    for measure in choice.criterion.own:
        before, after = (one.estimate(f"{stage}/{measure.key}") for one in (base, group))
        if before is not None and after is not None:
            parts.insert(0, f"{measure.label} {measure.show(before.mean)} -> {measure.show(after.mean)}")
    gain = group.difference(base, f"{stage}/acc", level)
    if gain is not None:
        parts.append(f"accuracy {MEASURES['acc'].show(gain.mean, gain.half, signed=True)} points")
    return f"{name}: {', '.join(parts)} over {_over(gain, group)}{_scaling(base, stage)}."


def _levels(group: Group, stage: str, own: Sequence[Measure]) -> str:
    found = [
        (measure, group.estimate(f"{stage}/{measure.key}")) for measure in (*own, MEASURES["ece"], MEASURES["acc"])
    ]
    return ", ".join(f"{m.label} {m.show(e.mean, e.half)} {m.unit}".rstrip() for m, e in found if e is not None)


def _scaling(plain: Group, stage: str) -> str:
    scaled = plain.estimate(f"{stage}_scaled/ece")
    if scaled is None:
        return ""
    at_bound = sum(bool((job.result.get("temperature") or {}).get("at_boundary")) for job in plain.jobs)
    doubt = f" (T at the end of its range in {at_bound} of {len(plain.jobs)}: do not trust it)" if at_bound else ""
    return f"; temperature scaling alone gives {100 * scaled.mean:.1f} %{doubt}"


def _over(found: Estimate | None, group: Group) -> str:
    if found is None:
        return _seeds(len(group.jobs))
    return _seeds(found.n) if found.paired else f"{_seeds(found.n)}, which do not match"


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def explain(choice: Choice, level: float = 0.95) -> list[str]:
    """What the test data say of it, how it was chosen, and what evidence is lacking, a paragraph each."""
    found = [
        _verdict(choice),
        _difference(choice, level),
        _how(choice),
        undertrained(choice),
        _edge(choice),
        _passed_over(choice),
    ]
    if choice.stage == "val":
        found.append(
            "Nothing was measured on test data, so all numbers are of the validation data that chose: they flatter it."
        )
    return [paragraph for paragraph in found if paragraph]


def _how(choice: Choice) -> str:
    label = choice.criterion.label
    cost = {candidate.group: candidate for candidate in choice.candidates}
    count = len(choice.candidates)
    among = f"among {count} combinations of loss, schedule and eps" if count > 1 else "with nothing to choose from"
    best = f"Chosen on validation by {label}, {among}: the lowest mean has {_named(choice, choice.best)}"
    best += f" ({cost[choice.best].cost.mean:.4f})"
    if choice.chosen is choice.best:
        smaller = any(candidate.group.eps < choice.best.eps for candidate in choice.candidates)
        return best + (", and no smaller eps is within one standard error of it." if smaller else ".")
    excess = cost[choice.chosen].excess
    return (
        f"{best}, but {_named(choice, choice.chosen)} is within one standard error of it "
        f"(+{excess.mean:.4f}, standard error {excess.se:.4f}). Of two that the data cannot tell apart the smaller eps "
        "is taken: it changes the model less, and what smoothing erases from the logits grows with eps."
    )


def _named(choice: Choice, group: Group) -> str:
    many = len({candidate.group.loss for candidate in choice.candidates}) > 1
    return f"{group.loss}, {group.label}" if many else group.label


def _difference(choice: Choice, level: float) -> str:
    if choice.reference is None:
        return ""
    words = []
    for measure in (*choice.criterion.own, *(MEASURES[key] for key in ("nll", "acc", "ece", "brier", "aurc"))):
        found = choice.asked.difference(choice.reference, f"{choice.stage}/{measure.key}", level)
        if found is not None:
            unit = " points" if measure.unit else ""
            words.append(f"{measure.label} {measure.show(found.mean, found.half, signed=True)}{unit}")
    if not words:
        return ""
    first = choice.asked.difference(choice.reference, f"{choice.stage}/acc", level) or choice.effect
    how = "paired over" if first is not None and first.paired else "unpaired,"
    n = 0 if first is None else first.n
    return (
        f"{_named(choice, choice.asked)} minus {_named(choice, choice.reference)} on {choice.stage}, {how} "
        f"{_seeds(n)}, {100 * level:g} % intervals: {'; '.join(words)}."
    )


def _verdict(choice: Choice) -> str:
    if choice.reference is None:
        return f"There is nothing to compare it with. Train other eps:\n{first_command(choice)}"
    lacking = ""
    if choice.baseline is None:
        lacking = f"\nPlain training (eps 0) was not run; it is what smoothing has to beat:\n{baseline_command(choice)}"
    effect, label = choice.effect, choice.criterion.label
    if effect is None:
        return f"{label} was not measured on {choice.stage} for both, so it cannot be said which is better.{lacking}"
    if math.isnan(effect.half):
        return (
            f"No eps is better than another on this evidence: a single seed says nothing about the spread. "
            f"Train at least 4 more:\n{seeds_command(choice, 4)}{lacking}"
        )
    allowing = f", which allows for having taken the best of {len(choice.candidates)}" if choice.alpha < ALPHA else ""
    interval = f"{effect.mean:+.4f} ±{effect.half:.4f} ({100 * (1 - choice.alpha):.3g} % interval{allowing})"
    if choice.separated:
        better = choice.asked if effect.mean < 0 else choice.reference
        return (
            f"The difference in {label} on {choice.stage} is more than noise: {interval}, in favour of "
            f"{_named(choice, better)}.{lacking}"
        )
    noise = f"No eps is better than another on this evidence: {label} on {choice.stage} differs by {interval}."
    return f"{noise} {_seeds_lacking(choice)}{lacking}"


def _seeds_lacking(choice: Choice) -> str:
    more = choice.more_seeds
    if choice.effect is not None and choice.effect.n == 2:
        return f"Two seeds say little about the spread. Train at least 3 more:\n{seeds_command(choice, 3)}"
    if more is None:
        return f"A difference this small would need more than {MOST_SEEDS} seeds to be found: take the smaller eps."
    return (
        f"If the difference is as large as it looks, {_seeds(more)} more would find it with 80 % power:\n"
        f"{seeds_command(choice, more)}"
    )


def _passed_over(choice: Choice) -> str:
    """Of very many the first few."""
    if not choice.passed_over:
        return ""
    names = [f"{_named(choice, group)} ({_seeds(len(group.jobs))})" for group in choice.passed_over]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    why = f"they lack {choice.criterion.label} on validation, or have one seed where others have more"
    return f"Not chosen from: {'; '.join(names[:6])}{more}: {why}."


def _edge(choice: Choice) -> str:
    command = widen_command(choice)
    if command is None:
        return ""
    side = "largest" if choice.edge == "high" else "smallest"
    return f"The best eps on validation, {choice.best.eps:g}, is the {side} that was tried: widen the grid.\n{command}"
