"""Kernels of the smoothed loss for a GPU, in Triton: the same arithmetic as `fused_rows`, a tile of rows a program.

A program reads its rows once if their classes fit into its registers (`WHOLE`), else block by block with a running
maximum, and a second time, backwards, for the gradient: what was read last is still in the cache.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["eps", "scale", "upstream"])
def rows_kernel(
    logits,
    gradient,
    losses,
    statistics,
    label,
    valid,
    eps,
    scale,
    upstream,
    own_weight,
    prior,
    weight,
    rows,
    num_classes,
    eps_step,
    scale_step,
    group_stride,
    row_stride,
    class_stride,
    out_group_stride,
    out_row_stride,
    out_class_stride,
    OTHERS: tl.constexpr,
    DIVERGENCE: tl.constexpr,
    SCALED: tl.constexpr,
    DTYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
    ALONG_ROWS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write what is not None of gradient, losses and statistics.

    Class k of row r in group g lies at g * group_stride + r * row_stride + k * class_stride; what there is of each row
    lies one after the other. With `upstream` nothing is done where that is 1: the gradient is there already.
    """
    # What the compiler has to see to read STEP numbers at once.
    if ALONG_ROWS:
        rows, class_stride, out_class_stride = _steps(rows, class_stride, out_class_stride, STEP)
    else:
        num_classes, row_stride, out_row_stride = _steps(num_classes, row_stride, out_row_stride, STEP)
    group_stride, out_group_stride = group_stride // STEP * STEP, out_group_stride // STEP * STEP
    blocks = tl.cdiv(rows, ROWS)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    row = row.to(tl.int64)
    at = group * rows + row
    factor = tl.load(scale + at * scale_step, mask=there, other=0).to(DTYPE)
    if upstream is not None:
        times = tl.load(upstream).to(DTYPE)
        if times == 1:
            return
        factor *= times
    counts = there
    if valid is not None:
        counts = tl.load(valid + at, mask=there, other=0) != 0
    own_class = tl.load(label + at, mask=there, other=0)
    start = logits + group * group_stride + row * row_stride
    # Neither a class that is not there nor a row without any has a loss; a device cannot raise.
    known = (own_class >= 0) & (own_class < num_classes)
    own = tl.load(start + own_class * class_stride, mask=counts & known, other=0).to(DTYPE)
    tl.debug_barrier()  # the gradient may overwrite it

    if WHOLE:
        k = tl.arange(0, BLOCK)
        x = _load(start, k, class_stride, num_classes, counts, DTYPE)
        top, total, mass, shares, spread = _look(x, k, num_classes, prior, weight, DTYPE)
        if statistics is not None:
            first, rest, squares = _look_closer(x, k, top, num_classes)
    else:
        top, first = tl.full([ROWS], float("-inf"), DTYPE), tl.zeros([ROWS], tl.int32)
        rest, squares = tl.zeros([ROWS], DTYPE), tl.zeros([ROWS], DTYPE)
        total, mass = tl.zeros([ROWS], DTYPE), tl.zeros([ROWS], DTYPE)
        shares, spread = tl.zeros([ROWS], DTYPE), tl.zeros([ROWS], DTYPE)
        for begin in range(0, num_classes, BLOCK):
            k = begin + tl.arange(0, BLOCK)
            x = _load(start, k, class_stride, num_classes, counts, DTYPE)
            more_top, more_total, more_mass, more_shares, more_spread = _look(x, k, num_classes, prior, weight, DTYPE)
            highest, surpassed = tl.maximum(top, more_top), more_top > top
            if statistics is not None:
                more_first, more_rest, more_squares = _look_closer(x, k, more_top, num_classes)
                rest, squares = _down(highest, top, tl.where(surpassed, total, rest), squares)
                more_rest, more_squares = _down(
                    highest, more_top, tl.where(surpassed, more_rest, more_total), more_squares
                )
                first = tl.where(surpassed, more_first, first)
                rest, squares = rest + more_rest, squares + more_squares
            total, spread = _below(highest, top, total, shares, spread)
            more_total, more_spread = _below(highest, more_top, more_total, more_shares, more_spread)
            top, total, spread = highest, total + more_total, spread + more_spread
            mass, shares = mass + more_mass, shares + more_shares
    total = tl.where(known & (top != float("-inf")), total, float("nan"))
    log_total = tl.log(total)

    own_part = tl.full([ROWS], 1, DTYPE)
    if weight is not None:
        own_part = tl.load(own_weight + at, mask=there, other=0).to(DTYPE)
    left, level = (own != float("-inf")).to(DTYPE), tl.load(eps + at * eps_step, mask=there, other=0).to(DTYPE)
    true, each = _masses(level, left, mass, OTHERS)
    entropy = tl.zeros([ROWS], DTYPE)
    if DIVERGENCE:
        entropy = own_part * _information(true + each * left) + (shares - own_part * left) * _information(each)
    everything = tl.full([ROWS], 1, DTYPE)
    if weight is not None:
        true *= own_part
        everything = true + each * shares

    if losses is not None:
        # A true class of weight 0 does not count, not even if it is masked.
        loss = everything * log_total - true * tl.where(true == 0, 0, own - top) - each * spread - entropy
        if SCALED:
            loss = tl.where(factor == 0, 0, loss * factor)
        tl.store(losses + at, tl.where(counts, loss, 0), mask=there)
    if statistics is not None:
        samples = (tl.num_programs(0) // blocks).to(tl.int64) * rows
        whole, hit = 1 + rest, (total == total) & (first == own_class)
        log_whole = tl.where(whole == 1, rest, tl.log(whole) * (rest / (whole - 1)))
        nll = tl.where(total == total, log_whole - (own - top), float("nan"))
        tl.store(statistics + at, tl.where(counts, nll, 0), mask=there)
        tl.store(statistics + samples + at, tl.where(counts, tl.log(rest), 0), mask=there)
        tl.store(statistics + 2 * samples + at, tl.where(counts, squares / (whole * whole), 0), mask=there)
        tl.store(statistics + 3 * samples + at, tl.where(counts, hit.to(DTYPE), -1), mask=there)
    if gradient is not None:
        out = gradient + group * out_group_stride + row * out_row_stride
        slope, each, true = everything * factor / total, each * factor, true * factor
        if WHOLE:
            g = _slope(x, k, top, slope, each, true, own_class, num_classes, prior, weight, DTYPE)
            _store(out, g, k, out_class_stride, num_classes, there, counts)
        else:
            last = (tl.cdiv(num_classes, BLOCK) - 1) * BLOCK
            for begin in range(0, num_classes, BLOCK):
                k = last - begin + tl.arange(0, BLOCK)
                x = _load(start, k, class_stride, num_classes, counts, DTYPE)
                g = _slope(x, k, top, slope, each, true, own_class, num_classes, prior, weight, DTYPE)
                _store(out, g, k, out_class_stride, num_classes, there, counts)


@triton.jit(do_not_specialize=["factor"])
def multiply_kernel(values, factor, size, BLOCK: tl.constexpr):
    """Multiply values that lie side by side; where the factor is 1, that is seen without touching them."""
    times = tl.load(factor)
    if times != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(values + at, tl.load(values + at, mask=at < size, other=0) * times, mask=at < size)


@triton.jit
def _steps(length, stride, out_stride, STEP: tl.constexpr):
    return length // STEP * STEP, stride // STEP * STEP, out_stride // STEP * STEP


@triton.jit
def _load(start, k, class_stride, num_classes, counts, DTYPE: tl.constexpr):
    """Read logits `(ROWS, BLOCK)`: 0 in rows that do not count, -inf where there is no class."""
    inside = (k < num_classes)[None, :]
    place = start[:, None] + k.to(tl.int64)[None, :] * class_stride
    return tl.where(inside, tl.load(place, mask=counts[:, None] & inside, other=0).to(DTYPE), float("-inf"))


@triton.jit
def _store(out, g, k, class_stride, num_classes, there, counts):
    """Write a gradient `(ROWS, BLOCK)`: 0 in rows that do not count, whatever they hold."""
    place = out[:, None] + k.to(tl.int64)[None, :] * class_stride
    tl.store(place, tl.where(counts[:, None], g, 0), mask=there[:, None] & (k < num_classes)[None, :])


@triton.jit
def _look(x, k, num_classes, prior, weight, DTYPE: tl.constexpr):
    """Of each row of logits: the largest, called top; the sum of exp(logit - top); the prior of what is not masked;
    that weighted, the share; the sum of share * (logit - top).
    """
    top = tl.max(x, 1)
    z = x - tl.where(top == float("-inf"), 0, top)[:, None]
    part, share = _share(x, k, num_classes, prior, weight, DTYPE)
    spread = tl.sum(share * tl.where(x == float("-inf"), 0, z), 1)
    return top, tl.sum(tl.exp(z), 1), tl.sum(part, 1), tl.sum(share, 1), spread


@triton.jit
def _look_closer(x, k, top, num_classes):
    """The first class of the largest logit; the sum of exp(logit - top) over all others; that of the squares of all."""
    first = tl.min(tl.where(x == top[:, None], k[None, :], num_classes), 1)
    power = tl.exp(x - tl.where(top == float("-inf"), 0, top)[:, None])
    rest = tl.where(k[None, :] == first[:, None], 0, power)
    return first, tl.sum(rest, 1), tl.sum(power * power, 1)


@triton.jit
def _down(highest, top, rest, squares):
    """A sum of exp(logit - top), and one of its squares, for a larger top."""
    times = tl.exp(tl.where(top == float("-inf"), 0, top - highest))
    return rest * times, squares * times * times


@triton.jit
def _below(highest, top, total, shares, spread):
    """Two of these sums for a larger top."""
    by = tl.where(top == float("-inf"), 0, top - highest)
    return total * tl.exp(by), spread + shares * by


@triton.jit
def _share(x, k, num_classes, prior, weight, DTYPE: tl.constexpr):
    """What each class that is not masked has of the prior, and that weighted."""
    part = (x != float("-inf")).to(DTYPE)
    if prior is not None:
        part *= tl.load(prior + k, mask=k < num_classes, other=0)[None, :]
    share = part
    if weight is not None:
        share = part * tl.load(weight + k, mask=k < num_classes, other=0)[None, :]
    return part, share


@triton.jit
def _masses(level, left, mass, OTHERS: tl.constexpr):
    """What eps leaves to the true class, which is masked where `left` is 0, and gives to each."""
    if OTHERS:
        mass -= left
    # With no class left to take it, the mass stays.
    level = tl.where(mass > 0, level, 0)
    each = level / tl.where(mass > 0, mass, 1)
    true = 1 - level
    if OTHERS:
        true -= each * left
    return true, each


@triton.jit
def _information(mass):
    """What a class with this mass adds to the entropy."""
    return -mass * tl.log(tl.where(mass == 0, 1, mass))


@triton.jit
def _slope(x, k, top, slope, each, true, own_class, num_classes, prior, weight, DTYPE: tl.constexpr):
    """The gradient `(ROWS, BLOCK)`."""
    part, share = _share(x, k, num_classes, prior, weight, DTYPE)
    g = tl.exp(x - top[:, None]) * slope[:, None] - share * each[:, None]
    return g - tl.where(k[None, :] == own_class[:, None], true[:, None], 0)
