"""Selective classification, exact: how well confidence tells right answers from wrong ones. One call for one number.

A selective classifier answers where it is sure and abstains elsewhere. Its risk at coverage c is its error rate among
the share c of samples of which it is surest; unlike calibration it depends on the order of confidences alone.
"""

from torch import Tensor

from ls_lightning.functional import risk as risks
from ls_lightning.functional.levels import Levels, exact_levels, sample_keys
from ls_lightning.functional.outputs import NanPolicy, Scores, Spec, Task, like
from ls_lightning.functional.ranking import Ranking, Score
from ls_lightning.functional.risk import RiskCoverage, check_share


def aurc(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Area under the risk-coverage curve: the mean risk over all coverages.

    .. math:: \frac{1}{N} \sum_{k=1}^N \frac{W(k)}{k}

    with W(k) errors among the k samples of which the model is surest. Where samples tie this is its mean over all
    their orders. Samples are ranked by log(1 - p), computed from the logits, so that they tie where the logits do and
    not where p rounds to 1.

    Args:
        logits: `(N, K, d1, ...)` for multiclass, `(N,)` or `(N, 1)` for binary, `(N, L, ...)` for multilabel,
            where each label is a sample. Any floating dtype; the arithmetic is in float64.
        target: class indices `(N, d1, ...)`; for binary and multilabel 0 and 1.
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K (or L), checked against the logits; None takes it from them.
        score: what says how sure the model is: `"msp"`, the maximum softmax probability; for multiclass logits also
            `"max_logit"`, max z, or `"pnorm"`, max z / ||z||_p (subtract each row's mean before, as its authors do).
        p: of `"pnorm"` only; choose it on validation data.
        input: `"logits"` or `"probs"`, which is never guessed. Probabilities tie where they have rounded to 1.
        ignore_index: targets of this value are not counted.
        nan_policy: what a sample with a NaN or +inf does: `"raise"`, or `"omit"` it.

    Returns:
        0-d float64 in [0, 1], lower is better; NaN if nothing was counted. That of `"msp"` changes with the
        temperature of the softmax, if there are more than two classes.

    Raises:
        TypeError, ValueError: an argument, dtype, shape or target is wrong, or a sample is NaN.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
        >>> aurc(logits, torch.tensor([0, 1, 0, 0]))  # (0 + 1/2 + 1/3 + 1/4) / 4
        tensor(0.2708, dtype=torch.float64)

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206. Smoothing that lowers
    ECE may raise it: Xia et al. 2025, arXiv:2403.14715. `"pnorm"`: Cattelan and Silva 2024, arXiv:2305.15508.
    """
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return like(risks.area(levels), logits)


def eaurc(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Excess AURC: what is left of AURC when that of a perfect order at the same error rate e is subtracted.

    .. math:: \mathrm{AURC} - (e + (1 - e) \ln(1 - e))

    Args, Raises: as :func:`aurc`.

    Returns:
        0-d float64, 0 for a perfect order but for a term of order 1/N; NaN if nothing was counted.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
        >>> eaurc(logits, torch.tensor([0, 1, 0, 0]))
        tensor(0.2366, dtype=torch.float64)

    Source: Geifman et al. 2019, arXiv:1805.08206.
    """
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return like(risks.excess_area(levels), logits)


def augrc(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Area under the generalized risk-coverage curve: the risk of a silent error, over all coverages.

    .. math:: \frac{1}{N} \sum_{k=1}^N \frac{k}{N} \frac{W(k)}{k}

    AURC weighs an error among the surest samples without bound; here it counts by its rank alone.

    Args, Raises: as :func:`aurc`.

    Returns:
        0-d float64 in [0, 1/2 + 1/(2N)], lower is better; NaN if nothing was counted.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
        >>> augrc(logits, torch.tensor([0, 1, 0, 0]))  # (0 + 1 + 1 + 1) / 16
        tensor(0.1875, dtype=torch.float64)

    Source: Traub et al. 2024, arXiv:2407.01032.
    """
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return like(risks.generalized_area(levels), logits)


def risk_at_coverage(
    logits: Tensor,
    target: Tensor,
    coverage: float,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Error rate among the fewest surest samples that are at least the share `coverage` of all.

    .. math:: W(k) / k, \quad k = \lceil c N \rceil

    Args, Raises: as :func:`aurc`, and
        coverage: c, in (0, 1].

    Returns:
        0-d float64 in [0, 1]; NaN if nothing was counted.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
        >>> risk_at_coverage(logits, torch.tensor([0, 1, 0, 0]), 0.5)
        tensor(0.5000, dtype=torch.float64)

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    check_share("coverage", coverage, above_zero=True)
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return like(risks.risk_at(levels, coverage), logits)


def coverage_at_risk(
    logits: Tensor,
    target: Tensor,
    risk: float,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> Tensor:
    r"""Largest share of samples that can be answered at an error rate of at most `risk`.

    .. math:: \max \{ k / N : W(k) / k \le r \}

    Args, Raises: as :func:`aurc`, and
        risk: r, in [0, 1].

    Returns:
        0-d float64 in [0, 1], higher is better; 0 if no coverage has so low a risk, NaN if nothing was counted.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
        >>> coverage_at_risk(logits, torch.tensor([0, 0, 0, 1]), 0.2)
        tensor(0.7500, dtype=torch.float64)

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    check_share("risk", risk)
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return like(risks.coverage_at(levels, risk), logits)


def risk_coverage_curve(
    logits: Tensor,
    target: Tensor,
    *,
    task: Task = "multiclass",
    num_classes: int | None = None,
    score: Score = "msp",
    p: float | None = None,
    input: Scores = "logits",
    ignore_index: int | None = -100,
    nan_policy: NanPolicy = "raise",
) -> RiskCoverage:
    """Risk at every coverage, as a plot draws it.

    Args, Raises: as :func:`aurc`.

    Returns:
        `(coverage, risk, lower, upper)`, each float64 `(J,)` on the CPU, by increasing coverage. Without ties there
        is a point for each sample, and the mean of `risk` is the AURC; `lower` and `upper` differ from it only
        where samples tie.

    Example:
        >>> import torch
        >>> curve = risk_coverage_curve(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        >>> curve.coverage, curve.risk
        (tensor([0.5000, 1.0000], dtype=torch.float64), tensor([0.0000, 0.5000], dtype=torch.float64))
    """
    spec = Spec(task, num_classes, input=input, ignore_index=ignore_index, nan_policy=nan_policy)
    levels = _levels(logits, target, Ranking(spec, score, p))
    return risks.curve(levels)


def _levels(logits: Tensor, target: Tensor, ranking: Ranking) -> Levels:
    return exact_levels(sample_keys(logits, target, ranking), ranking.outputs.nan_policy)
