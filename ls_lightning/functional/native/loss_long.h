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
INLINE rows exponentials(const char *z, float *e, float top, int64_t classes, enum dtype dtype) {
    const int64_t size = width(dtype), whole = classes & -LANES, end = classes - LANES;
    const floats last = read_lanes(z + size * end, dtype);
    double power = 0, spread = 0, masked = 0;
    for (int64_t start = 0; start < classes; start += MANY) {
        tally s = {{0}, {0}, {0}};
        int64_t k = start, stop = start + MANY < classes ? start + MANY : classes;
        for (; k + LANES <= stop; k += LANES) {
            floats powers = take(&s, read_lanes(z + size * k, dtype) - top, ~(ints){0});
            if (e != NULL) write_lanes(e + k, powers, FLOAT32);
        }
        if (k < stop) {
            ints fresh = {0};
            for (int lane = 0; lane < LANES; lane++) fresh[lane] = end + lane >= whole ? -1 : 0;
            floats powers = take(&s, last - top, fresh);
            if (e != NULL) write_lanes(e + end, powers, FLOAT32);
        }
        power += total(s.power), spread += total(s.spread), masked += total(s.masked);
    }
    return (rows){.sum = all(power), .spread = all(spread), .left = all(classes - masked), .live = ~(ints){0}};
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

INLINE void long_row(const call *c, int64_t row, float *scratch, double *sum, enum dtype dtype) {
    const int64_t classes = c->size.classes, size = width(dtype), o = row / c->size.inner, i = row % c->size.inner;
    const char *z = (const char *)c->logits + size * (o * c->from.outer + i * c->from.inner);
    char *g = c->gradient == NULL ? NULL : (char *)c->gradient + size * (o * c->to.outer + i * c->to.inner);
    if (!is_live(c, row)) {
        if (g != NULL) memset(g, 0, size * classes);
        if (c->losses != NULL) c->losses[row] = 0;
        return;
    }
    const float top = top_of(z, classes, dtype), own = read_one(z + size * c->label[row], dtype) - top;
    float *e = g == NULL ? NULL : dtype == FLOAT32 ? (float *)g : scratch;
    rows r = exponentials(z, e, top, classes, dtype);
    r.own = all(own), r.own_left = all(own != -INFINITY);
    r.eps = all(c->eps == NULL ? c->one_eps : c->eps[row]);
    r.scale = all(c->scale == NULL ? c->one_scale : c->scale[row]);
    const slopes d = finish(c, &r);
    *sum += c->scale == NULL ? d.loss[0] : r.scale[0] == 0 ? 0 : d.loss[0] * r.scale[0];
    if (c->losses != NULL) c->losses[row] = d.loss[0];
    if (g != NULL) write_slope(g, e, &d, c->label[row], classes, dtype);
}
