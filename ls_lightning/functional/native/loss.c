/* The smoothed cross-entropy of rows of logits, and its gradient: what ls_lightning/functional/fused_rows.py does, with
 * the logits read from memory once and the gradient written once. Every row is computed in float32 by itself, in an
 * order that only the number of classes and the layout decide. */
#include "lanes.h"

#include <pthread.h>
#include <stdlib.h>

enum { LONG = 64, WIDEST = 256, TILE = 6144, MANY = 2048 };
/* Classes from which a row is worked on by itself; rows worked on side by side, at most, and numbers in them; classes
 * after which sums go on in another number. */

typedef struct {
    int64_t outer, classes, inner; /* rows are `outer * inner` */
} shape;

typedef struct {
    int64_t outer, class, inner; /* steps in numbers */
} steps;

/* What loss.py asks for: the fields stand there in the same order. */
typedef struct {
    const void *logits;
    void *gradient;     /* NULL: not wanted; may be the logits */
    float *losses;      /* of each row, NULL: not wanted */
    float *sum;         /* of the losses times scale, NULL: not wanted */
    const int64_t *label;
    const uint8_t *valid;      /* NULL: all are, but for the label `ignored` */
    const float *eps, *scale;  /* of each row, NULL: one for all */
    shape size;
    steps from, to;
    int64_t dtype, ignored, others, divergence;
    int64_t mean; /* divide the sum by how many rows are not ignored */
    int64_t threads;
    double one_eps, one_scale;
} call;

typedef struct {
    call call;
    int64_t tile, tiles, units, next; /* rows of a unit of work, units in an outer step, all units, the next to do */
    double *sums;                     /* of the scaled losses of each unit */
} job;

/* As many rows as lanes: what is known of each after its logits were read. */
typedef struct {
    floats sum, spread, left, own, own_left, eps, scale;
    ints live;
} rows;

/* The gradient of a row is factor * exp - each, and less true at the label. */
typedef struct {
    floats loss, factor, each, true;
} slopes;

INLINE floats information(floats mass) { return mass * -logarithm(mass); }

INLINE slopes finish(const job *j, const rows *r) {
    floats own_left = r->own_left, left = j->call.others ? r->left - own_left : r->left;
    ints open = left > 0; /* with no class left to take it, the mass stays */
    floats each = keep(open, r->eps) / pick(open, left, all(1));
    floats true = 1 - keep(open, r->eps) - (j->call.others ? each * own_left : all(0));
    floats own = keep(true != 0, r->own);
    floats loss = logarithm(r->sum) - true * own - each * r->spread;
    if (j->call.divergence) loss -= information(true + each * own_left) + (r->left - own_left) * information(each);
    return (slopes){keep(r->live, loss), r->scale / r->sum, each * r->scale, true * r->scale};
}

INLINE double scaled(const rows *r, floats loss, int one) {
    return one ? total(loss) : total(keep(r->scale != 0, loss * r->scale));
}

INLINE int is_live(const job *j, int64_t row) {
    return j->call.label[row] != j->call.ignored && (j->call.valid == NULL || j->call.valid[row]);
}

/* Sums over classes, of exp(x), of x, and of masked ones, which have the logit -inf. */
typedef struct {
    floats power, spread, masked;
} sums;

/* Return exp(x), -0 for a masked class; the sums are over lanes where `in`. */
INLINE floats take(sums *s, floats x, ints in) {
    ints mask = x == -INFINITY;
    floats power = exponential(x);
    s->power += keep(in, power), s->spread += keep(in & ~mask, x), s->masked += keep(in & mask, all(1));
    return (floats)((ints)power | (mask & INT32_MIN));
}

/* The gradient of logits, but for what it is at the label. */
INLINE floats slope(floats power, const slopes *d) {
    ints here = (ints)power != INT32_MIN;
    return power * d->factor - keep(here, d->each);
}

/* A row whose classes lie side by side. The last lanes overlap with those before, where their number does not divide K. */
INLINE void long_row(const job *j, int64_t row, float *scratch, double *sum, enum dtype dtype) {
    const int64_t classes = j->call.size.classes, size = width(dtype), o = row / j->call.size.inner, i = row % j->call.size.inner;
    const char *z = (const char *)j->call.logits + size * (o * j->call.from.outer + i * j->call.from.inner);
    char *g = j->call.gradient == NULL ? NULL : (char *)j->call.gradient + size * (o * j->call.to.outer + i * j->call.to.inner);
    if (!is_live(j, row)) {
        if (g != NULL) memset(g, 0, size * classes);
        if (j->call.losses != NULL) j->call.losses[row] = 0;
        return;
    }
    const int64_t label = j->call.label[row], whole = classes & -LANES, end = classes - LANES;
    const floats last = read_lanes(z + size * end, dtype);
    floats tops[4] = {last, last, last, last}; /* four do not wait for each other */
    int64_t k = 0;
    for (; k + 4 * LANES <= whole; k += 4 * LANES)
        for (int part = 0; part < 4; part++)
            tops[part] = larger(read_lanes(z + size * (k + part * LANES), dtype), tops[part]);
    for (; k < whole; k += LANES) tops[0] = larger(read_lanes(z + size * k, dtype), tops[0]);
    const float top = largest(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
    const float own = read_one(z + size * label, dtype) - top;

    float *e = dtype == FLOAT32 && g != NULL ? (float *)g : scratch;
    double power = 0, spread = 0, masked = 0;
    for (int64_t start = 0; start < classes; start += MANY) {
        sums s = {{0}, {0}, {0}};
        int64_t stop = start + MANY < classes ? start + MANY : classes;
        for (k = start; k + LANES <= stop; k += LANES) {
            floats powers = take(&s, read_lanes(z + size * k, dtype) - top, ~(ints){0});
            if (g != NULL) write_lanes(e + k, powers, FLOAT32);
        }
        if (k < stop) {
            ints fresh = {0};
            for (int lane = 0; lane < LANES; lane++) fresh[lane] = end + lane >= whole ? -1 : 0;
            floats powers = take(&s, last - top, fresh);
            if (g != NULL) write_lanes(e + end, powers, FLOAT32);
        }
        power += total(s.power), spread += total(s.spread), masked += total(s.masked);
    }
    rows r = {all(power), all(spread), all(classes - masked), all(own), all(own != -INFINITY),
              all(j->call.eps ? j->call.eps[row] : j->call.one_eps), all(j->call.scale ? j->call.scale[row] : j->call.one_scale), ~(ints){0}};
    const slopes d = finish(j, &r);
    *sum += j->call.scale == NULL ? d.loss[0] : r.scale[0] == 0 ? 0 : d.loss[0] * r.scale[0];
    if (j->call.losses != NULL) j->call.losses[row] = d.loss[0];
    if (g == NULL) return;

    const floats rest = slope(read_lanes(e + end, FLOAT32), &d);
    const float at_label = slope(all(e[label]), &d)[0] - d.true[0];
    for (k = 0; k < whole; k += LANES) write_lanes(g + size * k, slope(read_lanes(e + k, FLOAT32), &d), dtype);
    write_lanes(g + size * end, rest, dtype);
    write_one(g + size * label, at_label, dtype);
}

/* Copy numbers of `count` rows into lines of `width` numbers, a line a class; or, with `back`, from there. */
#define COPY(type)                                                                                                  \
    static void copy_##type(type *lines, type *rows, int64_t width, int64_t classes, int64_t count, int64_t class,  \
                            int64_t inner, int back) {                                                              \
        if (inner == 1)                                                                                             \
            for (int64_t k = 0; k < classes; k++)                                                                   \
                memcpy(back ? rows + k * class : lines + k * width, back ? lines + k * width : rows + k * class,    \
                       count * sizeof(type));                                                                       \
        else if (back)                                                                                              \
            for (int64_t i = 0; i < count; i++)                                                                     \
                for (int64_t k = 0; k < classes; k++) rows[i * inner + k * class] = lines[k * width + i];           \
        else                                                                                                        \
            for (int64_t i = 0; i < count; i++)                                                                     \
                for (int64_t k = 0; k < classes; k++) lines[k * width + i] = rows[i * inner + k * class];           \
    }
COPY(float)
COPY(uint16_t)

/* As many rows as lanes, whose classes are the lines of `z`. */
INLINE void side_by_side(const job *j, float *z, rows *r, const int64_t *label, slopes *d) {
    const int64_t classes = j->call.size.classes, width = j->tile;
    floats top = all(-INFINITY), own;
    for (int64_t k = 0; k < classes; k++) top = larger(read_lanes(z + k * width, FLOAT32), top);
    for (int lane = 0; lane < LANES; lane++) own[lane] = z[label[lane] * width + lane] - top[lane];
    sums all_classes = {{0}, {0}, {0}};
    for (int64_t start = 0; start < classes; start += LONG) {
        sums s = {{0}, {0}, {0}};
        for (int64_t k = start; k < classes && k < start + LONG; k++) {
            floats x = read_lanes(z + k * width, FLOAT32) - top;
            write_lanes(z + k * width, take(&s, x, ~(ints){0}), FLOAT32);
        }
        all_classes.power += s.power, all_classes.spread += s.spread, all_classes.masked += s.masked;
    }
    r->sum = all_classes.power, r->spread = all_classes.spread, r->left = all(classes) - all_classes.masked;
    r->own = own, r->own_left = keep(own != -INFINITY, all(1));
    *d = finish(j, r);
    if (j->call.gradient == NULL) return;
    for (int64_t k = 0; k < classes; k++)
        write_lanes(z + k * width, keep(r->live, slope(read_lanes(z + k * width, FLOAT32), d)), FLOAT32);
    for (int lane = 0; lane < LANES; lane++)
        if (r->live[lane]) z[label[lane] * width + lane] -= d->true[lane];
}

/* Up to `tile` rows of one outer step. */
INLINE void tile(const job *j, int64_t unit, float *scratch, double *sum, enum dtype dtype) {
    const int64_t classes = j->call.size.classes, o = unit / j->tiles, first = unit % j->tiles * j->tile;
    const int64_t count = first + j->tile < j->call.size.inner ? j->tile : j->call.size.inner - first, size = width(dtype);
    char *z = (char *)j->call.logits + size * (o * j->call.from.outer + first * j->call.from.inner);
    const int64_t padded = (count + LANES - 1) / LANES * LANES, row = o * j->call.size.inner + first;
    uint16_t *raw = (uint16_t *)(scratch + classes * j->tile);
    if (count < padded) memset(scratch, 0, classes * j->tile * (sizeof(float) + sizeof(uint16_t)));
    if (dtype == FLOAT32) {
        copy_float(scratch, (float *)z, j->tile, classes, count, j->call.from.class, j->call.from.inner, 0);
    } else {
        copy_uint16_t(raw, (uint16_t *)z, j->tile, classes, count, j->call.from.class, j->call.from.inner, 0);
        for (int64_t k = 0; k < classes; k++)
            for (int64_t i = 0; i < count; i += LANES)
                write_lanes(scratch + k * j->tile + i, read_lanes(raw + k * j->tile + i, dtype), FLOAT32);
    }
    for (int64_t i = 0; i < padded; i += LANES) {
        rows r = {.eps = all(j->call.one_eps), .scale = all(j->call.one_scale)};
        int64_t label[LANES] = {0};
        for (int lane = 0; lane < LANES && i + lane < count; lane++) {
            int64_t at = row + i + lane;
            if (!is_live(j, at)) continue;
            r.live[lane] = -1, label[lane] = j->call.label[at];
            if (j->call.eps != NULL) r.eps[lane] = j->call.eps[at];
            if (j->call.scale != NULL) r.scale[lane] = j->call.scale[at];
        }
        slopes d;
        side_by_side(j, scratch + i, &r, label, &d);
        *sum += scaled(&r, d.loss, j->call.scale == NULL);
        if (j->call.losses != NULL) memcpy(j->call.losses + row + i, &d.loss, sizeof(float) * (i + LANES <= count ? LANES : count - i));
    }
    if (j->call.gradient == NULL) return;
    char *g = (char *)j->call.gradient + size * (o * j->call.to.outer + first * j->call.to.inner);
    if (dtype == FLOAT32) {
        copy_float(scratch, (float *)g, j->tile, classes, count, j->call.to.class, j->call.to.inner, 1);
    } else {
        for (int64_t k = 0; k < classes; k++)
            for (int64_t i = 0; i < count; i += LANES)
                write_lanes(raw + k * j->tile + i, read_lanes(scratch + k * j->tile + i, FLOAT32), dtype);
        copy_uint16_t(raw, (uint16_t *)g, j->tile, classes, count, j->call.to.class, j->call.to.inner, 1);
    }
}

static int are_long(const job *j) {
    return j->call.size.classes >= LONG && j->call.from.class == 1 && (j->call.gradient == NULL || j->call.to.class == 1);
}

INLINE void unit_of_work(const job *j, int64_t unit, float *scratch, enum dtype dtype) {
    double sum = 0;
    if (are_long(j)) {
        int64_t rows = j->call.size.outer * j->call.size.inner, end = (unit + 1) * j->tile;
        for (int64_t row = unit * j->tile; row < (end < rows ? end : rows); row++)
            long_row(j, row, scratch, &sum, dtype);
    } else {
        tile(j, unit, scratch, &sum, dtype);
    }
    j->sums[unit] = sum;
}

static void *work(void *given) {
    job *j = given;
    const int64_t numbers = j->call.size.classes * (are_long(j) ? 1 : j->tile);
    float *scratch = malloc((numbers + LANES) * (sizeof(float) + sizeof(uint16_t)));
    if (scratch == NULL) return j;
    int64_t unit;
    while ((unit = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->units) {
        if (j->call.dtype == FLOAT32) unit_of_work(j, unit, scratch, FLOAT32);
        else if (j->call.dtype == BFLOAT16) unit_of_work(j, unit, scratch, BFLOAT16);
        else unit_of_work(j, unit, scratch, FLOAT16);
    }
    free(scratch);
    return NULL;
}

/* Work with some more threads; whether there was memory for it. */
static int work_together(job *j, int threads) {
    pthread_t others[threads > 1 ? threads - 1 : 1];
    int started = 0;
    while (started < threads - 1 && pthread_create(&others[started], NULL, work, j) == 0) started++;
    work(j);
    for (int k = 0; k < started; k++) pthread_join(others[k], NULL);
    return j->next >= j->units;
}

/* Compute the losses, their sum and its gradient. Returns 0; 1 where a label is no class, and nothing was written; 2
 * without memory. */
int smoothed_loss(const call *asked) {
    job j = {.call = *asked};
    call *c = &j.call;
    const int64_t count = c->size.outer * c->size.inner, classes = c->size.classes;
    if (c->size.inner == 1) {
        c->size.inner = c->size.outer, c->from.inner = c->from.outer, c->to.inner = c->to.outer, c->size.outer = 1;
    }
    int64_t counted = 0, wrong = 0;
    for (int64_t row = 0; row < count; row++) {
        int live = is_live(&j, row);
        counted += live;
        wrong += live & ((uint64_t)c->label[row] >= (uint64_t)classes);
    }
    if (wrong) return 1;
    if (c->mean) c->one_scale = counted ? c->one_scale / counted : 0;
    if (are_long(&j)) {
        j.tile = 1 + TILE / classes, j.units = (count + j.tile - 1) / j.tile;
    } else {
        j.tile = TILE / classes / LANES * LANES;
        j.tile = j.tile < LANES ? LANES : j.tile > WIDEST ? WIDEST : j.tile;
        j.tiles = (c->size.inner + j.tile - 1) / j.tile, j.units = c->size.outer * j.tiles;
    }
    if ((j.sums = malloc((j.units + 1) * sizeof(double))) == NULL) return 2;
    int done = work_together(&j, c->threads < j.units ? (int)c->threads : (int)j.units);
    double sum = 0;
    for (int64_t unit = 0; done && unit < j.units; unit++) sum += j.sums[unit];
    if (c->sum != NULL) *c->sum = c->scale == NULL ? sum * c->one_scale : sum;
    free(j.sums);
    return done ? 0 : 2;
}
