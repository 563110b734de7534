"""Samples from the surest to the least sure, as levels of equal score: all that selective metrics depend on.

A level is a set of samples that nothing orders: those of one score, or those of one cell of the sketch. Measures take
the mean over all orders within levels; `errors_first` and `errors_last` make the worst and the best order.

Exact levels come from one int64 a sample: the bits of its float64 log-odds, made to sort as the numbers do, the last
of them replaced by whether it is wrong. Sorted, they do not depend on the order in which they came.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ls_lightning.functional.outputs import NanPolicy
from ls_lightning.functional.ranking import Ranked, Ranking, rank_chunks

_IGNORED, _INVALID, _OUT_OF_RANGE = (-(2**63) + code for code in range(3))
_LARGEST_CODE = _OUT_OF_RANGE
_FLIP = 2**63 - 1
_LIMIT = torch.finfo(torch.float64).max


class Levels(NamedTuple):
    """Non-empty levels from the surest to the least sure, each float64 `(J,)` on the CPU.

    Attributes:
        n: samples.
        wrong: how many of them are wrong.
        p: sum of their confidences, for the score `"msp"`.
        width: the difference at most between confidences of the level.
    """

    n: Tensor
    wrong: Tensor
    p: Tensor
    width: Tensor


@torch.no_grad()
def sample_keys(logits: Tensor, target: Tensor, ranking: Ranking) -> Tensor:
    """Encode each sample in an int64 `(S,)`, those that do not count among them, without waiting for the device.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.
    """
    return torch.cat([_encode(ranked) for ranked in rank_chunks(logits, target, ranking)]).to(logits.device)


def exact_levels(keys: Tensor, nan_policy: NanPolicy = "raise") -> Levels:
    """Sort keys of any batches into levels of equal score.

    Raises:
        ValueError: some sample was not a number or its target out of range.

    Example:
        >>> keys = sample_keys(torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 0, 1]), Ranking())
        >>> exact_levels(keys)[:2]
        (tensor([2., 1.], dtype=torch.float64), tensor([1., 1.], dtype=torch.float64))
    """
    keys = keys.detach().cpu().sort().values
    check_samples(
        int((keys > _LARGEST_CODE).sum()), int((keys == _INVALID).sum()), int((keys == _OUT_OF_RANGE).sum()), nan_policy
    )
    keys = keys[keys > _LARGEST_CODE]
    scores, counts = torch.unique_consecutive(keys >> 1, return_counts=True)
    wrong = torch.cat([keys.new_zeros(1), (keys & 1).cumsum(0)])
    wrong = wrong[counts.cumsum(0)].diff(prepend=keys.new_zeros(1))
    odds = _sortable(scores << 1).view(torch.float64).exp()
    n = counts.double()
    return Levels(n, wrong.double(), n / (1 + odds), torch.zeros_like(n))


def num_invalid(keys: Tensor) -> int:
    """How many samples were no numbers."""
    return int((keys == _INVALID).sum())


def errors_first(levels: Levels) -> Levels:
    """Order the samples of each level so that the surest of them are wrong: the highest risk at every coverage."""
    return _pure(levels, wrong_first=True)


def errors_last(levels: Levels) -> Levels:
    """Order the samples of each level so that the surest of them are right: the lowest risk at every coverage."""
    return _pure(levels, wrong_first=False)


def check_samples(n: int, invalid: int, out_of_range: int, nan_policy: NanPolicy) -> None:
    """Raise a ValueError if some sample was not a number, unless they are omitted, or its target out of range."""
    seen = n + invalid + out_of_range
    if invalid and nan_policy == "raise":
        raise ValueError(
            f"{invalid} of {seen} samples cannot be measured: logits must not be NaN or +inf, nor all -inf; with "
            "input='probs', rows must lie in [0, 1] and sum to 1. nan_policy='omit' leaves them out."
        )
    if out_of_range:
        raise ValueError(
            f"{out_of_range} of {seen} targets are out of range: they must be classes from 0 to K-1 (0 or 1 for "
            "binary and multilabel), or ignore_index."
        )


def _encode(ranked: Ranked) -> Tensor:
    # Infinity with another last bit would be nan, -0.0 sort before 0.0.
    bits = (ranked.log_odds.clamp(-_LIMIT, _LIMIT) + 0.0).view(torch.int64)
    keys = (_sortable(bits) & ~1) | ranked.wrong
    keys = torch.where(ranked.counted, keys, _IGNORED)
    keys = torch.where(ranked.invalid, _INVALID, keys)
    return torch.where(ranked.out_of_range, _OUT_OF_RANGE, keys)


def _sortable(bits: Tensor) -> Tensor:
    """Turn bits of float64 into integers of their order, and back."""
    return bits ^ ((bits >> 63) & _FLIP)


def _pure(levels: Levels, wrong_first: bool) -> Levels:
    wrong = torch.stack([levels.wrong, torch.zeros_like(levels.n)], -1)
    n = torch.stack([levels.wrong, levels.n - levels.wrong], -1)
    if not wrong_first:
        wrong, n = wrong.flip(-1), n.flip(-1)
    wrong, n = wrong[n > 0], n[n > 0]
    return Levels(n, wrong, torch.full_like(n, torch.nan), torch.full_like(n, torch.nan))
