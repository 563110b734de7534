"""UnknownScores: how sure a model is of each input, known and unknown, and what that tells of the two."""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.distributed as dist
from torch import Tensor

from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.functional.detection import detection_auroc, detection_fpr
from ls_lightning.functional.outputs import Spec
from ls_lightning.functional.ranking import Ranking, Score, rank_chunks

_TPR = 0.95


class UnknownScores:
    """The scores of all inputs, float64 on the CPU, one number an input.

    The maximum softmax probability is kept as log-odds, which has its order, but does not saturate at 1.

    Args:
        max_logit: keep the largest logit, too; of probabilities there is none.
    """

    def __init__(self, max_logit: bool = True) -> None:
        self._max_logit = max_logit
        self._known: dict[Score, list[Tensor]] = defaultdict(list)
        self._unknown: dict[Score, list[Tensor]] = defaultdict(list)

    def add(self, found: Outputs, known: bool) -> None:
        """Keep the scores of a batch.

        Raises:
            ValueError: the task is multi-label, where an input has no one class.
        """
        if found.options["task"] == "multilabel":
            raise ValueError(
                "OutOfScope measures inputs with one class each, got a multi-label loss. Leave the callback away, or "
                "say which call is measured: target=."
            )
        spec = Spec(**found.options)
        scores: tuple[Score, ...] = ("msp",)
        if self._max_logit and (spec.task, spec.input) == ("multiclass", "logits"):
            scores = ("msp", "max_logit")
        for score in scores:
            for part in rank_chunks(found.logits, found.target, Ranking(spec, score)):
                sure = torch.where(part.invalid, torch.nan, -part.log_odds)[part.counted | part.invalid]
                (self._known if known else self._unknown)[score].append(sure.cpu())

    def measure(self) -> dict[str, float]:
        """What was found; with several ranks each has its own known inputs and all the unknown ones."""
        values = {}
        for score, parts in self._unknown.items():
            unknown, known = torch.cat(parts), _of_all_ranks(self._known[score])
            name = "" if score == "msp" else f"_{score}"
            if score == "msp":
                # sorted: the same bits, in whatever order they came
                values["oos_confidence"] = unknown.sort().values.sigmoid().mean().item()
                values["oos_n"] = float(len(unknown))
            values[f"oos_auroc{name}"] = detection_auroc(known, unknown)
            values[f"oos_fpr95{name}"] = detection_fpr(known, unknown, _TPR)
        return values


def _of_all_ranks(parts: list[Tensor]) -> Tensor:
    mine = torch.cat([torch.empty(0, dtype=torch.float64), *parts])
    if not (dist.is_available() and dist.is_initialized()):
        return mine
    gathered: list[Tensor] = [mine] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return torch.cat(gathered)
