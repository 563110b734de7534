"""What a report says, whatever form it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ls_lightning.errors import ConfigError
from ls_lightning.sweep.answer import explain, headline
from ls_lightning.sweep.choose import Choice, choose
from ls_lightning.sweep.criterion import Criterion
from ls_lightning.sweep.groups import Group, group_jobs
from ls_lightning.sweep.jobs import COMPLETE, Job
from ls_lightning.sweep.measures import Measure
from ls_lightning.sweep.table import shown_measures, stage_of


@dataclass(frozen=True)
class Report:
    """All of it.

    Args:
        groups: what is counted.
        left_out: jobs that are not, each with its status and note.
        choices: the choice for each setting in which there is one.
        level: of the intervals.
        refused: why there is no choice in the other settings.
        measures: the metrics of the tables.
    """

    groups: Sequence[Group]
    left_out: Sequence[Job]
    choices: dict[str, Choice]
    level: float
    refused: dict[str, str]
    measures: Sequence[Measure]

    @property
    def jobs(self) -> list[Job]:
        """Counted or not."""
        return [*(job for group in self.groups for job in group.jobs), *self.left_out]

    @property
    def counts(self) -> str:
        """How many jobs there are of each kind."""
        counts = Counter(job.status for job in self.jobs)
        words = [f"{counts[COMPLETE]} complete", *(f"{n} {kind}" for kind, n in counts.items() if kind != COMPLETE)]
        return f"{len(self.jobs)} job{'s' * (len(self.jobs) != 1)}: {', '.join(words)}."

    @property
    def spread(self) -> str:
        """What the intervals are of."""
        jobs = [job for group in self.groups for job in group.jobs]
        follows = all(job.settings.get("data.split_seed") == job.seed for job in jobs)
        if follows and len({job.seed for job in jobs}) > 1:
            return "Each seed draws a split of its own, so intervals are of the training and of the split."
        return (
            "The seeds share one split of the data, so intervals are of the training, not of the sampling of the data."
        )

    @property
    def answers(self) -> list[tuple[str, str, list[str]]]:
        """For each setting its name, the headline and the paragraphs below."""
        found = [(key, headline(one, self.level), explain(one, self.level)) for key, one in self.choices.items()]
        return found + [(key, f"No answer: {why}", []) for key, why in self.refused.items()]


def make_report(
    jobs: Sequence[Job], criterion: Criterion, level: float = 0.95, columns: Sequence[str] | None = None
) -> Report:
    """Group the jobs and choose an eps in each setting.

    Raises:
        ConfigError: no job has what the criterion needs, though something was measured on validation; or one of the
            ``columns`` that were asked for.
    """
    groups, left_out = group_jobs(jobs)
    choices: dict[str, Choice] = {}
    refused: dict[str, str] = {}
    for setting in dict.fromkeys(group.setting for group in groups):
        try:
            choices[setting] = choose([group for group in groups if group.setting == setting], criterion)
        except ConfigError as error:
            refused[setting] = str(error)
    validated = any(column.startswith("val") for group in groups for job in group.jobs for column in job.values)
    if refused and not choices and validated:
        raise ConfigError(next(iter(refused.values())))
    measures = shown_measures(groups, stage_of(groups), columns, criterion.own)
    return Report(groups, left_out, choices, level, refused, measures)
