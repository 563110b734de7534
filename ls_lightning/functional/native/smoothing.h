/* What a smoothing loss is of one row of logits, and its gradient; as many rows at once as there are lanes. */
#pragma once
#include "lanes.h"

typedef struct {
    int64_t outer, classes, inner; /* rows are `outer * inner` */
} shape;

typedef struct {
    int64_t outer, class, inner; /* steps in numbers */
} steps;

/* What loss.py asks for: the fields stand there in the same order. */
typedef struct {
    const void *logits;
    void *gradient; /* NULL: not wanted; may be the logits */
    float *losses;  /* of each row, NULL: not wanted */
    float *sum;     /* of the losses times scale, NULL: not wanted */
    float *statistics; /* four lines, those of row_statistics.py; NULL where the gradient overwrites the logits */
    const int64_t *label;
    const uint8_t *valid;     /* NULL: all are, but for the label `ignored` */
    const float *eps, *scale; /* of each row, NULL: one for all */
    shape size;
    steps from, to;
    int64_t dtype, ignored, others, divergence;
    int64_t mean; /* divide the sum by how many rows are not ignored */
    int64_t threads;
    double one_eps, one_scale;
} call;

typedef struct {
    call call;
    int64_t tile, tiles, units,
        next;     /* rows of a unit of work; units in an outer step, 0: rows one by one; all units; the next to do */
    double *sums; /* of the scaled losses of each unit */
} job;

/* As many rows as lanes: what is known of each after its logits were read. `rest` and `squares` are sums of exp and
 * of its square, over all classes but the top one, and over all; `hit` is whether the label is the top one. */
typedef struct {
    floats sum, spread, left, own, own_left, eps, scale, rest, squares;
    ints live, hit;
} rows;

/* The gradient of a row is factor * exp - each, and less `hit` at the label. */
typedef struct {
    floats loss, factor, each, hit;
} slopes;

INLINE floats information(floats mass) { return mass * -logarithm(mass); }

/* From what is known of rows, their losses and what makes their gradients of the exponentials. */
INLINE slopes finish(const call *c, const rows *r) {
    floats own_left = r->own_left, left = c->others ? r->left - own_left : r->left;
    ints open = left > 0; /* with no class left to take it, the mass stays */
    floats each = keep(open, r->eps) / pick(open, left, all(1));
    floats hit = 1 - keep(open, r->eps) - (c->others ? each * own_left : all(0));
    floats own = keep(hit != 0, r->own);
    floats loss = logarithm(r->sum) - hit * own - each * r->spread;
    if (c->divergence) loss -= information(hit + each * own_left) + (r->left - own_left) * information(each);
    return (slopes){keep(r->live, loss), r->scale / r->sum, each * r->scale, hit * r->scale};
}

/* The sum of losses times `scale`; where that is 0, they do not count, not even nan. */
INLINE double scaled(const rows *r, floats loss, int one) {
    return one ? total(loss) : total(keep(r->scale != 0, loss * r->scale));
}

/* Whether a row is not ignored. */
INLINE int is_live(const call *c, int64_t row) {
    return c->label[row] != c->ignored && (c->valid == NULL || c->valid[row]);
}

/* Write the statistics of `some` rows. They have a top class each, whose exp is 1, besides the `rest`. */
INLINE void leave(const call *c, int64_t row, int64_t some, const rows *r) {
    const int64_t count = c->size.outer * c->size.inner;
    floats sum = 1 + r->rest, log_sum = pick(sum == 1, r->rest, logarithm(sum) * (r->rest / (sum - 1)));
    floats lines[] = {log_sum - r->own, pick(r->rest == 0, all(-INFINITY), logarithm(r->rest)),
                      r->squares / (sum * sum), keep(r->hit, all(1))};
    for (int k = 0; k < 4; k++) {
        lines[k] = pick(r->live, lines[k], all(k == 3 ? -1 : 0));
        if (some == LANES) /* then memcpy is no call */
            memcpy(c->statistics + k * count + row, &lines[k], sizeof lines[k]);
        else
            memcpy(c->statistics + k * count + row, &lines[k], some * sizeof(float));
    }
}

/* Sums over classes, of exp(x), of x, and of masked ones, which have the logit -inf; for statistics, also of exp(x) but
 * for the largest, which have the x 0, and of the square of exp(x). */
typedef struct {
    floats power, spread, masked, rest, squares;
} tally;

/* How many classes have the largest logit, by the sums over too few of them for rounding to be in the way. */
INLINE floats tops_of(floats power, floats rest) {
    const float shift = 12582912.0f; /* added to a number, leaves its nearest integer in the last bits */
    return power - rest + shift - shift;
}

/* Return exp(x), -0 for a masked class; the sums are over lanes where `in`, those for statistics only if `told`, which
 * is a constant wherever it stands. */
INLINE floats take(tally *s, floats x, ints in, int told) {
    ints mask = x == -INFINITY;
    floats power = exponential(x);
    s->power += keep(in, power), s->spread += keep(in & ~mask, x), s->masked += keep(in & mask, all(1));
    if (told) s->rest += keep(in & (x != 0), power), s->squares += keep(in, power * power);
    return (floats)((ints)power | (mask & INT32_MIN));
}

/* The gradient of logits, but for what it is at the label. */
INLINE floats slope(floats power, const slopes *d) {
    ints here = (ints)power != INT32_MIN;
    return power * d->factor - keep(here, d->each);
}
