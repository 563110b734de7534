/* Rows of many classes that lie side by side: one after the other, class by class as many as there are lanes. The last
 * lanes overlap with those before them where their number does not divide that of the classes. */
#include "smoothing.h"

enum { MANY = 2048 }; /* classes after which sums go on in another number */

INLINE float top_of(const char *z, int64_t classes, enum dtype dtype) {
    const int64_t size = width(dtype);
    const floats last = read_lanes(z + size * (classes - LANES), dtype);
    floats tops[4] = {last, last, last, last}; /* four do not wait for each other */
    int64_t k = 0;
    for (; k + 4 * LANES <= classes; k += 4 * LANES)
        for (int part = 0; part < 4; part++)
            tops[part] = larger(read_lanes(z + size * (k + part * LANES), dtype), tops[part]);
    for (; k + LANES <= classes; k += LANES) tops[0] = larger(read_lanes(z + size * k, dtype), tops[0]);
    return largest(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
}

/* Write exponentials to `e`, which may be the logits `z`, if it is not NULL, and return what is known of the row. */
INLINE rows exponentials(const char *z, float *e, float top, int64_t classes, int told, enum dtype dtype) {
    const int64_t size = width(dtype), whole = classes & -LANES, end = classes - LANES;
    const floats last = read_lanes(z + size * end, dtype);
    double power = 0, spread = 0, masked = 0, rest = 0, tops = 0, squares = 0;
    for (int64_t start = 0; start < classes; start += MANY) {
        tally s = {{0}};
        int64_t k = start, stop = start + MANY < classes ? start + MANY : classes;
        for (; k + LANES <= stop; k += LANES) {
            floats powers = take(&s, read_lanes(z + size * k, dtype) - top, ~(ints){0}, told);
            if (e != NULL) write_lanes(e + k, powers, FLOAT32);
        }
        if (k < stop) {
            ints fresh = {0};
            for (int lane = 0; lane < LANES; lane++) fresh[lane] = end + lane >= whole ? -1 : 0;
            floats powers = take(&s, last - top, fresh, told);
            if (e != NULL) write_lanes(e + end, powers, FLOAT32);
        }
        const float some = total(s.power);
        power += some, spread += total(s.spread), masked += total(s.masked);
        if (told) {
            const float less = total(s.rest);
            rest += less, tops += tops_of(all(some), all(less))[0], squares += total(s.squares);
        }
    }
    return (rows){.sum = all(power),
                  .spread = all(spread),
                  .left = all(classes - masked),
                  .rest = all(rest + (tops - 1)),
                  .squares = all(squares),
                  .live = ~(ints){0},
                  .hit = {-(tops == 1)}};
}

/* Make exponentials `e`, which may lie in the same place, the gradient `g`. */
INLINE void write_slope(char *g, const float *e, const slopes *d, int64_t label, int64_t classes, enum dtype dtype) {
    const int64_t size = width(dtype), end = classes - LANES;
    const floats last = slope(read_lanes(e + end, FLOAT32), d);
    const float at_label = slope(all(e[label]), d)[0] - d->hit[0];
    for (int64_t k = 0; k + LANES <= classes; k += LANES)
        write_lanes(g + size * k, slope(read_lanes(e + k, FLOAT32), d), dtype);
    write_lanes(g + size * end, last, dtype);
    write_one(g + size * label, at_label, dtype);
}

/* Whether a label of the largest logit is the first class that has it. */
INLINE int is_first(const char *z, float top, int64_t label, enum dtype dtype) {
    int64_t k = 0;
    while (k < label && read_one(z + width(dtype) * k, dtype) != top) k++;
    return k == label;
}

INLINE void long_row(const call *c, int64_t row, float *scratch, double *sum, int told, enum dtype dtype) {
    const int64_t classes = c->size.classes, size = width(dtype), o = row / c->size.inner, i = row % c->size.inner;
    const char *z = (const char *)c->logits + size * (o * c->from.outer + i * c->from.inner);
    char *g = c->gradient == NULL ? NULL : (char *)c->gradient + size * (o * c->to.outer + i * c->to.inner);
    if (!is_live(c, row)) {
        if (g != NULL) memset(g, 0, size * classes);
        if (c->losses != NULL) c->losses[row] = 0;
        if (told) leave(c, row, 1, &(rows){.live = {0}});
        return;
    }
    const float top = top_of(z, classes, dtype), own = read_one(z + size * c->label[row], dtype) - top;
    float *e = g == NULL ? NULL : dtype == FLOAT32 ? (float *)g : scratch;
    rows r = exponentials(z, e, top, classes, told, dtype);
    r.own = all(own), r.own_left = all(own != -INFINITY);
    r.eps = all(c->eps == NULL ? c->one_eps : c->eps[row]);
    r.scale = all(c->scale == NULL ? c->one_scale : c->scale[row]);
    const slopes d = finish(c, &r);
    *sum += c->scale == NULL ? d.loss[0] : r.scale[0] == 0 ? 0 : d.loss[0] * r.scale[0];
    if (c->losses != NULL) c->losses[row] = d.loss[0];
    if (told) {
        r.hit[0] = -(own == 0 && (r.hit[0] || is_first(z, top, c->label[row], dtype)));
        leave(c, row, 1, &r);
    }
    if (g != NULL) write_slope(g, e, &d, c->label[row], classes, dtype);
}
