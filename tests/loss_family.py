"""The definitions of the losses, one position at a time in Python floats: what the tests hold the product against."""

import math

import torch
from torch.nn import functional as F

from ls_lightning.functional import focal as focal_module
from ls_lightning.functional import negative, penalties, prior, relaxation

PRIOR = torch.tensor([0.5, 0.1, 0.0, 0.4, 0.3, 0.2], dtype=torch.float64)
MATRIX = torch.rand(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64).softmax(1)

# name: function, options, a strength within its range, whether it takes distributions
FAMILY = {
    "max_suppression": (penalties.max_suppression, {}, 0.15, True),
    "confidence_penalty": (penalties.confidence_penalty, {}, 0.15, True),
    "margin": (penalties.margin_smoothing, {"margin": 1.5}, 0.15, True),
    "margin-0": (penalties.margin_smoothing, {"margin": 0.0}, 0.15, True),
    "focal": (focal_module.focal_loss, {}, 2.5, True),
    "focal-root": (focal_module.focal_loss, {}, 0.5, True),
    "relaxation": (relaxation.label_relaxation, {}, 0.15, False),
    "relaxation-wide": (relaxation.label_relaxation, {}, 0.6, False),
    "negative": (negative.negative_smoothing, {}, -1.5, True),
    "prior": (prior.prior_smoothing, {"prior": PRIOR}, 0.15, True),
    "prior-matrix": (prior.prior_smoothing, {"prior": MATRIX}, 0.15, True),
}
STRENGTHS = {name: strength for name, (_, _, strength, _) in FAMILY.items()}


def call(name, logits, target, strength=None, **given):
    """The product's function, with a prior for as many classes as there are."""
    function, options, usual, _ = FAMILY[name]
    return function(logits, target, usual if strength is None else strength, **{**cut(options, logits), **given})


def cut(options, logits):
    """A prior for as many classes as there are."""
    num = logits.shape[1]
    return {k: v[(slice(num),) * v.ndim] if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def draw(shape, seed=0, dtype=torch.float64):
    """Logits, class indices and distributions."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(3).to(dtype)
    index = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    soft = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(1).to(dtype)
    return logits, index, soft


def by_hand(name, logits, target, strength, *, weight=None, mode="sample", ignore=-100):
    """(loss, share of the denominator) of each position."""
    num = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, num).tolist()
    soft = target.is_floating_point()
    hot = target if soft else F.one_hot(target.clamp(0), num).movedim(-1, 1).double()
    targets = hot.movedim(1, -1).reshape(-1, num).tolist()
    kept = [True] * len(rows) if soft else [y != ignore for y in target.flatten().tolist()]
    w = [1.0] * num if weight is None else weight.tolist()
    options = cut(FAMILY[name][1], logits)
    losses, shares = [], []
    for z, t, counts in zip(rows, targets, kept, strict=True):
        sample_weight = sum(a * b for a, b in zip(t, w, strict=True))
        class_weight = w if mode == "torch" else [1.0] * num
        loss = _KINDS[name.split("-")[0]](z, _log_softmax(z), t, strength, class_weight, options)
        losses.append((loss * (1 if mode == "torch" else sample_weight)) if counts else 0.0)
        shares.append((1.0 if mode == "torch" and soft else sample_weight) if counts else 0.0)
    return losses, shares


def _log_softmax(z):
    top = max(z)
    lse = top + math.log(sum(math.exp(v - top) for v in z))
    return [v - lse for v in z]


def _cross_entropy(lp, q, w):
    return -sum(w[k] * q[k] * lp[k] for k in range(len(lp)) if q[k] != 0)


def _max_suppression(z, lp, t, eps, w, options):
    return _cross_entropy(lp, t, w) + eps * (max(z) - sum(z) / len(z))


def _confidence_penalty(z, lp, t, eps, w, options):
    return _cross_entropy(lp, t, w) - eps * -sum(math.exp(v) * v for v in lp)


def _margin(z, lp, t, eps, w, options):
    excess = [max(0.0, max(z) - v - options["margin"]) for v in z]
    return _cross_entropy(lp, t, w) + eps * sum(excess) / len(z)


def _focal(z, lp, t, gamma, w, options):
    return -sum(w[k] * t[k] * (1 - math.exp(lp[k])) ** gamma * lp[k] for k in range(len(z)))


def _relaxation(z, lp, t, eps, w, options):
    y = t.index(1.0)
    p = [math.exp(v) for v in lp]
    if p[y] >= 1 - eps:
        return 0.0
    rest = sum(p[k] for k in range(len(z)) if k != y)
    r = [1 - eps if k == y else eps * p[k] / rest for k in range(len(z))]
    return sum(w[k] * r[k] * math.log(r[k] / p[k]) for k in range(len(z)) if r[k] > 0)


def _negative(z, lp, t, eps, w, options):
    return _cross_entropy(lp, [(1 - eps) * v + eps / len(z) for v in t], w)


def _prior(z, lp, t, eps, w, options):
    prior, num = options["prior"].tolist(), len(z)
    row = prior if options["prior"].ndim == 1 else None
    if row is None:
        rows = [[v / sum(r) for v in r] for r in prior]
        row = [sum(t[y] * rows[y][k] for y in range(num)) for k in range(num)]
    row = [v / sum(row) for v in row]
    return _cross_entropy(lp, [(1 - eps) * t[k] + eps * row[k] for k in range(num)], w)


_KINDS = {
    "max_suppression": _max_suppression,
    "confidence_penalty": _confidence_penalty,
    "margin": _margin,
    "focal": _focal,
    "relaxation": _relaxation,
    "negative": _negative,
    "prior": _prior,
}
