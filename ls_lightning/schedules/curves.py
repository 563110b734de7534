"""Curves: one formula from the first step to the last."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ls_lightning.schedules.checks import check_eps, check_progress


@dataclass(frozen=True)
class Constant:
    """The same eps throughout.

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 97.9, 1.6 -> 12.3; overconfident 66.2 -> 64.6, 22.8 -> 5.1; 40 % wrong labels 74.3 -> 75.7, 10.8 -> 18.0.

    Args:
        eps: in [0, 1).

    Example:
        >>> Constant(0.1)(0.7)
        0.1
    """

    eps: float

    def __post_init__(self) -> None:
        check_eps("eps", self.eps)

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.eps

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.eps


@dataclass(frozen=True)
class Linear:
    r"""A straight line from ``start`` to ``end``.

    .. math:: \epsilon(t) = start + (end - start)\,t

    Decaying to 0 keeps most of the gain in accuracy on clean data and leaves the model calibrated;
    increasing schedules are used too (Zhou et al. 2025, arXiv:2502.15798, appendix F).

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 98.1, 1.6 -> 1.7; overconfident 66.2 -> 66.8, 22.8 -> 15.2; 40 % wrong labels 74.3 -> 74.2, 10.8 -> 9.2.

    Args:
        start: eps at progress 0, in [0, 1).
        end: eps at progress 1, in [0, 1).

    Example:
        >>> [round(Linear(0.1, 0.0)(t), 3) for t in (0, 0.25, 0.5, 1)]
        [0.1, 0.075, 0.05, 0.0]
    """

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        check_eps("start", self.start)
        check_eps("end", self.end)

    @property
    def peak(self) -> float:
        """The highest eps."""
        return max(self.start, self.end)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    r"""Half a cosine wave from ``start`` to ``end``: flat at both ends.

    .. math:: \epsilon(t) = end + (start - end)\,(1 + \cos \pi t) / 2

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 98.0, 1.6 -> 1.2; overconfident 66.2 -> 67.2, 22.8 -> 17.3; 40 % wrong labels 74.3 -> 74.2, 10.8 -> 9.1.

    Args:
        start: eps at progress 0, in [0, 1).
        end: eps at progress 1, in [0, 1).

    Example:
        >>> [round(Cosine(0.1, 0.0)(t), 4) for t in (0, 0.25, 0.5, 1)]
        [0.1, 0.0854, 0.05, 0.0]
    """

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        check_eps("start", self.start)
        check_eps("end", self.end)

    @property
    def peak(self) -> float:
        """The highest eps."""
        return max(self.start, self.end)

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class CosLog:
    r"""Four waves from 0 to ``eps`` and back, each about twice as long as the one before.

    .. math:: \epsilon(t) = \epsilon\,(1 - \cos(2 \pi \log_2(1 + 15 t))) / 2

    On digits, plain -> this with eps 0.1, accuracy and ECE in % (``python benchmarks/regimes.py``): clean labels 97.0
    -> 98.1, 1.6 -> 1.6; overconfident 66.2 -> 67.2, 22.8 -> 14.1; 40 % wrong labels 74.3 -> 76.0, 10.8 -> 11.7.

    Args:
        eps: the height of each wave, in [0, 1).

    Example:
        >>> [round(CosLog(0.1)(t), 4) for t in (0, 0.1, 0.2, 0.3, 1)]
        [0.0, 0.0718, 0.0, 0.0984, 0.0]

    Source: Holzmüller et al. 2024 (RealMLP), arXiv:2407.04491, there for the learning rate.
    """

    eps: float

    def __post_init__(self) -> None:
        check_eps("eps", self.eps)

    @property
    def peak(self) -> float:
        """The highest eps."""
        return self.eps

    def __call__(self, progress: float) -> float:
        """Eps at ``progress`` in [0, 1]."""
        check_progress(progress)
        return self.eps * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * progress))) / 2
