/* The smoothed cross-entropy of rows of logits, and its gradient: what ls_lightning/functional/fused_rows.py does, with
 * the logits read from memory once and the gradient written once. Every row is computed in float32 by itself, in an
 * order that only the number of classes and the layout decide. */
#include "loss_long.h"
#include "loss_tile.h"

#include <pthread.h>
#include <stdlib.h>

/* Whether rows are worked on one by one. */
static int are_long(const call *c) {
    return c->size.classes >= 64 && c->from.class == 1 && (c->gradient == NULL || c->to.class == 1);
}

INLINE void unit_of_work(const job *j, int64_t unit, float *scratch, int told, enum dtype dtype) {
    const call *c = &j->call;
    const int64_t rows = j->tiles == 0 ? c->size.outer * c->size.inner : c->size.inner;
    const int64_t o = j->tiles == 0 ? 0 : unit / j->tiles, first = (unit - o * j->tiles) * j->tile;
    const int64_t count = rows - first < j->tile ? rows - first : j->tile;
    double sum = 0;
    if (j->tiles == 0)
        for (int64_t row = first; row < first + count; row++) long_row(c, row, scratch, &sum, told, dtype);
    else
        tile(c, o, first, count, j->tile, scratch, &sum, told, dtype);
    j->sums[unit] = sum;
}

INLINE void units_of_work(job *j, float *scratch, int told) {
    int64_t unit;
    while ((unit = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->units) {
        if (j->call.dtype == FLOAT32)
            unit_of_work(j, unit, scratch, told, FLOAT32);
        else if (j->call.dtype == BFLOAT16)
            unit_of_work(j, unit, scratch, told, BFLOAT16);
        else
            unit_of_work(j, unit, scratch, told, FLOAT16);
    }
}

/* Apart, so that neither is compiled with an eye to the other. */
static __attribute__((noinline)) void units_alone(job *j, float *scratch) { units_of_work(j, scratch, 0); }
static __attribute__((noinline)) void units_and_statistics(job *j, float *scratch) { units_of_work(j, scratch, 1); }

static void *work(void *given) {
    job *j = given;
    const int64_t numbers = j->call.size.classes * (j->tiles == 0 ? 1 : j->tile);
    float *scratch = malloc((numbers + LANES) * (sizeof(float) + sizeof(uint16_t)));
    if (scratch == NULL) return j;
    if (j->call.statistics == NULL)
        units_alone(j, scratch);
    else
        units_and_statistics(j, scratch);
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
        int live = is_live(c, row);
        counted += live;
        wrong += live & ((uint64_t)c->label[row] >= (uint64_t)classes);
    }
    if (wrong) return 1;
    if (c->mean) c->one_scale = counted ? c->one_scale / counted : 0;
    if (are_long(c)) {
        j.tile = 1 + TILE / classes, j.units = (count + j.tile - 1) / j.tile;
    } else {
        j.tile = tile_of(classes);
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
