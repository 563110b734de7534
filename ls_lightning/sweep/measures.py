"""What is known of the metrics by name: words, direction, form. A metric that is not here is still read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A metric.

    Args:
        key: as in ``result.json``.
        label: as in tables and figures.
        unit: what its share of 1 is shown in, ``"%"``, or nothing.
        best: ``"low"``, ``"high"``, or ``"zero"`` for a signed one; None if it has no better side.
        digits: behind the point; usually 1 of a percentage and 3 of another number.
    """

    key: str
    label: str
    unit: str = ""
    best: str | None = "low"
    digits: int | None = None

    @property
    def scale(self) -> float:
        """From what is stored to what is shown."""
        return 100.0 if self.unit == "%" else 1.0

    def cost(self, value: float) -> float:
        """The same information as a number that is better when it is lower; accuracy becomes the error rate."""
        return _COSTS[self.best](value)

    def show(self, value: float, half: float = math.nan, *, signed: bool = False) -> str:
        """A number, with half of its interval if there is one.

        Example:
            >>> MEASURES["ece"].show(0.1194, 0.0031), MEASURES["nll"].show(0.1)
            ('11.9 ±0.3', '0.100')
        """
        digits = self.digits if self.digits is not None else 1 if self.unit else 3
        plus = "+" if signed or self.best == "zero" else ""
        text = f"{self.scale * value:{plus}.{digits}f}"
        text = text.replace("-", "", 1) if float(text) == 0 and not plus else text
        return text if math.isnan(half) else f"{text} ±{self.scale * half:.{digits}f}"


STAGE = re.compile(r"^(val|valid|validation|test|eval)[/_]")
"""What stands before a metric's name where it was logged."""
_ALIASES = {"accuracy": "acc"}
_COSTS: dict[str | None, Callable[[float], float]] = {
    "low": lambda value: value,
    "high": lambda value: 1 - value,
    "zero": abs,
    None: lambda value: math.nan,
}

_ALL = (
    Measure("acc", "accuracy", "%", "high"),
    Measure("nll", "NLL"),
    Measure("ece", "ECE", "%"),
    Measure("ece_debiased", "ECE debiased", "%"),
    Measure("gap", "gap", "%", "zero"),
    Measure("overconfidence", "overconf.", "%"),
    Measure("brier", "Brier"),
    Measure("aurc", "AURC", "%", digits=2),
    Measure("underconfidence", "underconf.", "%"),
    Measure("over_part", "over part", "%"),
    Measure("under_part", "under part", "%"),
    Measure("mce", "MCE", "%"),
    Measure("rmsce", "RMSCE", "%"),
    Measure("rmsce_debiased", "RMSCE debiased", "%"),
    Measure("ace", "adaptive ECE", "%"),
    Measure("classwise_ece", "class-wise ECE", "%"),
    Measure("smece", "smECE", "%"),
    Measure("eaurc", "E-AURC", "%", digits=2),
    Measure("augrc", "AUGRC", "%", digits=2),
    Measure("entropy", "entropy", "", None),
    Measure("reliability", "Brier reliability"),
    Measure("resolution", "Brier resolution", "", None),
    Measure("uncertainty", "Brier uncertainty", "", None),
    Measure("oos_confidence", "OOS confidence", "%", None),
    Measure("oos_auroc", "OOS AUROC", "%", "high"),
    Measure("oos_fpr95", "OOS FPR95", "%"),
    Measure("oos_auroc_max_logit", "OOS AUROC of max logit", "%", "high"),
    Measure("oos_fpr95_max_logit", "OOS FPR95 of max logit", "%"),
)
MEASURES: dict[str, Measure] = {measure.key: measure for measure in _ALL}
_HIGH = {"acc", "accuracy", "f1", "fbeta", "auroc", "auc", "ap", "map", "iou", "miou", "jaccard", "dice", "precision"}
_HIGH |= {"recall", "kappa", "mcc"}
_LOW = {"loss", "err", "error", "nll", "ce", "brier", "ece", "mse", "rmse", "mae", "wer", "cer", "perplexity", "fpr"}
SHOWN = (
    "acc",
    "nll",
    "ece",
    "ece_debiased",
    "gap",
    "overconfidence",
    "brier",
    "aurc",
    "oos_confidence",
    "oos_auroc",
    "oos_fpr95",
)
"""The columns of the table, as far as they were measured."""


def measure_of(key: str, best: str | None = None) -> Measure:
    """What is known of a metric, of ours or of the user's own.

    Args:
        key: as in ``result.json``.
        best: the better side of one of the user's own; None reads it from the name, if that says it.

    Example:
        >>> measure_of("ece").label, measure_of("macro_f1").best, measure_of("score").best
        ('ECE', 'high', None)
    """
    if key in MEASURES:
        return MEASURES[key]
    words = set(re.split(r"[^a-z0-9]+", key.lower()))
    sides = ["high"] * bool(words & _HIGH) + ["low"] * bool(words & _LOW)
    return Measure(key, key.replace("_", " "), best=best or (sides[0] if len(sides) == 1 else None))


def metric_key(name: str) -> str:
    """The key of a metric by any of its names.

    Example:
        >>> metric_key("accuracy"), metric_key("val/f1"), metric_key("val_f1")
        ('acc', 'f1', 'f1')
    """
    return _ALIASES.get(name, STAGE.sub("", name, count=1))


def of_test(name: str) -> bool:
    """Whether a name is that of a metric on test data."""
    return bool(re.match(r"test[/_]", name))
