"""Feedback: eps that finds itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ls_lightning.schedules.checks import check_eps

_LARGEST_GAIN = 0.25
_TURNS = 4.0


@dataclass(frozen=True, repr=False)
class Feedback:
    r"""Turn eps up while the model is overconfident in validation, and down while it is underconfident.

    .. math:: \epsilon \leftarrow \mathrm{clip}(\epsilon + gain\,(\mathrm{conf} - \mathrm{acc}),\ 0,\ \epsilon_{max})

    after every validation, or every ``every`` training batches on a held-out slice. A value like the other
    schedules; the eps that it has come to belongs to the run, and travels in its checkpoint.

    The gain. Smoothing moves the optimum of every sample to a confidence of 1 - (1 - 1/K) eps, so the gap falls by
    about s = 1 - 1/K per unit of eps, and by more near eps 0 where errors are confident (by 5 in the overconfident
    regime below). Were the network to follow at once, the distance from the right eps would shrink by the factor
    1 - gain s with each update: after all N updates exp(-gain s N) of it is left. It follows slowly, though, covering
    a share a of the way between two updates, and the pair (eps, network) has the characteristic polynomial
    x^2 - (2 - a - a gain s) x + 1 - a: stable exactly if 0 < gain s < 4 / a - 2, so for every a if gain s < 2, and
    without swinging up to (1 - sqrt(1 - a))^2 / a, about a / 4. So the default is the smallest gain that arrives:
    4 / N, which leaves exp(-4) = 2 % at s = 1, and at most 1/4, which is stable up to s = 8. A smaller gain also
    passes on less of the noise of the gap.

    What it reaches, on digits: test ECE in % and the paired difference to the best constant eps of a grid of six,
    chosen on test; 5 seeds, mean and standard error (``python benchmarks/feedback.py``).

    ===========================  ===============  =======================  =======================
    regime                       best of grid     feedback                 ``held_out=0.2``
    ===========================  ===============  =======================  =======================
    clean                        1.6 (eps 0)      1.8, +0.2 +- 0.3         1.4, -0.2 +- 0.3
    overconfident                5.1 (eps 0.1)    5.3, +0.1 +- 1.0         4.8, -0.3 +- 0.3
    40 % wrong training labels   10.8 (eps 0)     9.3, -1.5 +- 0.8         19.4, +8.6 +- 3.0
    20 % wrong validation ones,  5.1 (eps 0.1)    13.0, +7.8 +- 1.0        4.8, -0.3 +- 0.3
    overconfident
    ===========================  ===============  =======================  =======================

    So one run reaches the grid's ECE, where the labels that measure the gap are right. Where they are wrong it
    calibrates to the noise: errors of the labels look like overconfidence, eps rises (0.24 for 0.1) and the model
    ends underconfident on clean data. Measure on the cleaner part: ``held_out`` where validation is noisy, validation
    where training is. And where even eps 0 is underconfident (40 % wrong training labels) it stays at 0, which is best
    for the ECE, not for accuracy. One for each class (``per_class``) gained nothing with the 36 samples a class here.
    A short run is too short for it: in 20 epochs on 3,600 images of CIFAR-10, whose network becomes overconfident late,
    it took the ECE from 16.8 to 9.0 %, a temperature to 2.8 % (``python benchmarks/regimes.py cifar10=<folder>``).

    eps is itself the integral of the gap and is clipped after each update, so that nothing winds up at a bound:
    the first gap of the other sign moves it away.

    Args:
        start: eps until the first update, in [0, 1).
        gain: how far one update moves eps per unit of gap, above 0. None: min(1/4, 4 / number of updates).
        eps_max: eps never exceeds it; in (0, 1), and at least ``start``.
        per_class: an eps of its own for each class, from the gap of the samples predicted as it. Noisier: the
            gap of n samples has a standard error of about sqrt(acc (1 - acc) / n).
        held_out: share of the training data, in (0, 1), that is not trained on but measures the gap, in place of
            the validation data: where there is none, or where its labels are noisier than those of the training
            data. None: validation.
        every: training batches between two updates, with ``held_out``; None: one update an epoch. In validation
            ``Trainer(val_check_interval=...)`` says how often.
        dataloader_idx: which of several validation loaders.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, or contradicts another.

    Example:
        >>> feedback = Feedback(gain=0.2)
        >>> round(feedback.next_eps(0.1, gap=0.25), 3), feedback.next_eps(0.01, gap=-0.25)
        (0.15, 0.0)

    Source: closed loops on validation calibration in the loss are AdaFocal, arXiv:2211.11838, and CALS,
    arXiv:2211.15088.
    """

    start: float = 0.1
    gain: float | None = None
    eps_max: float = 0.5
    per_class: bool = False
    held_out: float | None = None
    every: int | None = None
    dataloader_idx: int = 0

    def __post_init__(self) -> None:
        check_eps("start", self.start)
        check_eps("eps_max", self.eps_max)
        if not self.start <= self.eps_max or self.eps_max == 0:
            raise ValueError(f"eps_max must be above 0 and at least start={self.start}, got {self.eps_max}.")
        _check_number("gain", self.gain, 0, math.inf, "above 0")
        _check_number("held_out", self.held_out, 0, 1, "in (0, 1)")
        if not isinstance(self.per_class, bool):
            raise TypeError(f"per_class must be True or False, got {self.per_class!r}.")
        _check_integer("every", self.every, 1)
        _check_integer("dataloader_idx", self.dataloader_idx, 0)
        if self.every is not None and self.held_out is None:
            raise ValueError(
                f"every={self.every} is for a held-out slice, got held_out=None. In validation, "
                "Trainer(val_check_interval=...) says how often."
            )

    def __repr__(self) -> str:
        """Show ``start``, and what differs from the default."""
        shown = [f for f in fields(self) if f.name == "start" or getattr(self, f.name) != f.default]
        return f"Feedback({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def gain_for(self, updates: int) -> float:
        """The gain of a run with that many updates.

        Example:
            >>> Feedback().gain_for(80), Feedback().gain_for(3), Feedback(gain=0.1).gain_for(3)
            (0.05, 0.25, 0.1)
        """
        return min(_LARGEST_GAIN, _TURNS / max(1, updates)) if self.gain is None else self.gain

    def next_eps(self, eps: float, gap: float, gain: float | None = None) -> float:
        """Eps after a validation.

        Args:
            eps: the one before, in [0, eps_max].
            gap: mean confidence minus accuracy; nan changes nothing.
            gain: of the run, as :meth:`gain_for` says; None: that of the schedule.
        """
        gain = self.gain_for(1) if gain is None else gain
        return eps if math.isnan(gap) else min(max(eps + gain * gap, 0.0), self.eps_max)


def _check_number(name: str, value: float | None, low: float, high: float, needed: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number {needed}, or None, got {value!r}.")
    if not low < value < high:
        raise ValueError(f"{name} must be {needed}, got {value}.")


def _check_integer(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
