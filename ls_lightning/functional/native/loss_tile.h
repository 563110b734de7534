/* Rows side by side, as many as there are lanes: of few classes, or whose classes do not lie side by side. They are
 * copied to a tile of float32, a line a class, and their gradient is copied back. */
#include "smoothing.h"

enum { WIDEST = 256, TILE = 6144, FEW = 64 }; /* rows of a tile, numbers in it; classes whose sums go on in others */

/* How many rows a tile has. */
INLINE int64_t tile_of(int64_t classes) {
    int64_t most = TILE / classes / LANES * LANES;
    return most < LANES ? LANES : most > WIDEST ? WIDEST : most;
}

/* Copy numbers of `count` rows into lines of `width` numbers, a line a class; or, with `back`, from there. */
#define COPY(type)                                                                                                     \
    static void copy_##type(type *lines, type *rows, int64_t width, int64_t classes, int64_t count, int64_t class,     \
                            int64_t inner, int back) {                                                                 \
        if (inner == 1)                                                                                                \
            for (int64_t k = 0; k < classes; k++)                                                                      \
                memcpy(back ? rows + k * class : lines + k * width, back ? lines + k * width : rows + k * class,       \
                       count * sizeof(type));                                                                          \
        else if (back)                                                                                                 \
            for (int64_t i = 0; i < count; i++)                                                                        \
                for (int64_t k = 0; k < classes; k++) rows[i * inner + k * class] = lines[k * width + i];              \
        else                                                                                                           \
            for (int64_t i = 0; i < count; i++)                                                                        \
                for (int64_t k = 0; k < classes; k++) lines[k * width + i] = rows[i * inner + k * class];              \
    }
COPY(float)
COPY(uint16_t)

/* As many rows as lanes, whose classes are the lines of `z`. */
INLINE slopes side_by_side(const call *c, float *z, int64_t width, rows *r, const int64_t *label, int told) {
    const int64_t classes = c->size.classes;
    floats top = all(-INFINITY), own;
    ints first = {0};
    for (int64_t k = 0; k < classes; k++) {
        floats values = read_lanes(z + k * width, FLOAT32);
        ints above = values > top;
        if (told) first = (above & (int32_t)k) | (first & ~above);
        top = pick(above, values, top);
    }
    for (int lane = 0; lane < LANES; lane++) own[lane] = z[label[lane] * width + lane] - top[lane];
    if (told) {
        longs wanted;
        memcpy(&wanted, label, sizeof wanted);
        r->hit = (own == 0) & (first == __builtin_convertvector(wanted, ints));
    }
    tally all_classes = {{0}};
    floats tops = {0};
    for (int64_t start = 0; start < classes; start += FEW) {
        tally s = {{0}};
        for (int64_t k = start; k < classes && k < start + FEW; k++) {
            floats x = read_lanes(z + k * width, FLOAT32) - top;
            write_lanes(z + k * width, take(&s, x, ~(ints){0}, told), FLOAT32);
        }
        all_classes.power += s.power, all_classes.spread += s.spread, all_classes.masked += s.masked;
        all_classes.rest += s.rest, all_classes.squares += s.squares, tops += tops_of(s.power, s.rest);
    }
    r->sum = all_classes.power, r->spread = all_classes.spread, r->left = all(classes) - all_classes.masked;
    r->rest = all_classes.rest + (tops - 1), r->squares = all_classes.squares;
    r->own = own, r->own_left = keep(own != -INFINITY, all(1));
    const slopes d = finish(c, r);
    if (c->gradient == NULL) return d;
    for (int64_t k = 0; k < classes; k++)
        write_lanes(z + k * width, keep(r->live, slope(read_lanes(z + k * width, FLOAT32), &d)), FLOAT32);
    for (int lane = 0; lane < LANES; lane++)
        if (r->live[lane]) z[label[lane] * width + lane] -= d.hit[lane];
    return d;
}

/* Read into a tile, or, with `back`, write from it. `raw` is a tile for narrow numbers as they are. */
INLINE void move_tile(float *z, uint16_t *raw, int64_t width, int64_t classes, int64_t count, char *at, steps step,
                      int back, enum dtype dtype) {
    if (dtype == FLOAT32) {
        copy_float(z, (float *)at, width, classes, count, step.class, step.inner, back);
        return;
    }
    if (!back) copy_uint16_t(raw, (uint16_t *)at, width, classes, count, step.class, step.inner, 0);
    for (int64_t k = 0; k < classes; k++)
        for (int64_t i = k * width; i < k * width + count; i += LANES)
            if (back)
                write_lanes(raw + i, read_lanes(z + i, FLOAT32), dtype);
            else
                write_lanes(z + i, read_lanes(raw + i, dtype), FLOAT32);
    if (back) copy_uint16_t(raw, (uint16_t *)at, width, classes, count, step.class, step.inner, 1);
}

/* The rows `first` to `first + count` of an outer step, at most `line`, for which scratch has room. */
INLINE void tile(const call *c, int64_t o, int64_t first, int64_t count, int64_t line, float *scratch, double *sum,
                 int told, enum dtype dtype) {
    const int64_t classes = c->size.classes, size = width(dtype), row = o * c->size.inner + first;
    uint16_t *raw = (uint16_t *)(scratch + classes * line);
    if (count % LANES) memset(scratch, 0, classes * line * (sizeof(float) + sizeof(uint16_t)));
    char *z = (char *)c->logits + size * (o * c->from.outer + first * c->from.inner);
    move_tile(scratch, raw, line, classes, count, z, c->from, 0, dtype);
    for (int64_t i = 0; i < count; i += LANES) {
        rows r = {.eps = all(c->one_eps), .scale = all(c->one_scale)};
        const int64_t some = count - i < LANES ? count - i : LANES;
        int64_t label[LANES] = {0};
        for (int64_t lane = 0, at = row + i; lane < some; lane++, at++) {
            if (!is_live(c, at)) continue;
            r.live[lane] = -1, label[lane] = c->label[at];
            if (c->eps != NULL) r.eps[lane] = c->eps[at];
            if (c->scale != NULL) r.scale[lane] = c->scale[at];
        }
        const slopes d = side_by_side(c, scratch + i, line, &r, label, told);
        *sum += scaled(&r, d.loss, c->scale == NULL);
        if (c->losses != NULL) memcpy(c->losses + row + i, &d.loss, some * sizeof(float));
        if (told) leave(c, row + i, some, &r);
    }
    if (c->gradient == NULL) return;
    char *g = (char *)c->gradient + size * (o * c->to.outer + first * c->to.inner);
    move_tile(scratch, raw, line, classes, count, g, c->to, 1, dtype);
}
