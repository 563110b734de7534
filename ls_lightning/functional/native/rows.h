/* What rows of logits say: `Row` of rows.py, some rows at a time.

The numbers of a row do not depend on its place, on the rows beside it or on how it lies in memory. */

#include "doubles.h"

#include <float.h>

#define BLOCK 64 /* rows that are read before they are added up; a multiple of LANES */
#define FEW 64   /* below, lanes are rows; from here on, lanes are classes of one row */

enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

/* Strides count numbers. With `binary` there is one score a row, else `classes` of them. */
typedef struct {
    const void *logits, *target;
    int64_t dtype, rows, classes, row_stride, class_stride, binary, float_target;
} Source;

/* A column for each number of `Row` in rows.py, and what it follows from. */
typedef struct {
    double peak[BLOCK], second[BLOCK], total[BLOCK], powers[BLOCK], weighted[BLOCK], own[BLOCK];
    double top[BLOCK], odds[BLOCK], log_odds[BLOCK], truth[BLOCK], nll[BLOCK], squares[BLOCK], entropy[BLOCK];
    int64_t label[BLOCK];
    uint8_t valid[BLOCK], correct[BLOCK], ignored[BLOCK], in_range[BLOCK];
} Block;

/* Numbers of any type, as float64. */

INLINE Vector widen_halves(Halves from, int dtype) {
    Words bits = __builtin_convertvector(from, Words);
    if (dtype == BFLOAT16) return __builtin_convertvector((Floats)(bits << 16), Vector);
    Words size = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
    Words special = (Words)(size >= 0x0f800000) & 0x7f800000;
    return __builtin_convertvector((Floats)((Words)((Floats)size * 0x1p112f) | special | sign), Vector);
}

/* Lane i is number `at[i]`; without `at` they lie side by side. */
INLINE Vector load(const char *from, int dtype, const int64_t *at) {
#define LOAD(Type, Lanes, values)                                                                                     \
    Lanes values;                                                                                                     \
    if (at)                                                                                                           \
        for (int i = 0; i < LANES; i++) values[i] = ((const Type *)from)[at[i]];                                      \
    else                                                                                                              \
        memcpy(&values, from, sizeof values);
    if (dtype == FLOAT32) {
        LOAD(float, Floats, floats)
        return __builtin_convertvector(floats, Vector);
    }
    if (dtype == FLOAT64) {
        LOAD(double, Vector, doubles)
        return doubles;
    }
    LOAD(uint16_t, Halves, halves)
    return widen_halves(halves, dtype);
}

INLINE int size_of(int dtype) { return dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2; }

INLINE double number(const char *from, int dtype, int64_t at) {
    from += at * size_of(dtype);
    int64_t same[LANES] = {0};
    return load(from, dtype, same)[0];
}

INLINE double lowest(const Source *source) {
    return source->binary || source->dtype == FLOAT64 ? -DBL_MAX : -(double)FLT_MAX;
}

/* The sums of `Split` in split.py. Held down to the second largest, the largest adds 1, which is taken off again. */
typedef struct {
    Vector total, powers, weighted;
} Sums;

INLINE void add_class(Sums *sums, Vector logit, Vector second, int spread) {
    Vector below = smaller(logit, second) - second, relative = exp_of(below);
    sums->total += relative;
    sums->powers += relative * relative;
    if (spread) sums->weighted += relative * larger(below, all(-1e3));
}

INLINE void two_largest(Vector logit, Vector *peak, Vector *second, Bits *readable) {
    *readable &= (Bits)(logit < INFINITY);
    *second = larger(smaller(logit, *peak), *second);
    *peak = larger(logit, *peak);
}

INLINE void split_few(Block *block, const Source *source, const char *rows, int count, int dtype, int spread) {
    const int classes = source->classes;
    for (int first = 0; first < count; first += LANES) {
        int64_t at[LANES];
        for (int i = 0; i < LANES; i++) at[i] = (first + i < count ? first + i : count - 1) * source->row_stride;
        const int64_t *apart = source->row_stride == 1 && first + LANES <= count ? NULL : at;
        const char *from = rows + (apart ? 0 : first * size_of(dtype));
        Vector logits[FEW], peak = all(-INFINITY), second = peak;
        Bits readable = ~(Bits){0};
        if (source->binary) {
            Vector score = load(from, dtype, apart);
            readable = (Bits)(score == score);
            logits[0] = -larger(score, all(0)), logits[1] = smaller(score, all(0));
        } else
            for (int k = 0; k < classes; k++)
                logits[k] = load(from + k * source->class_stride * size_of(dtype), dtype, apart);
        Bits finite = ~(Bits){0};
        for (int k = 0; k < classes; k++) two_largest(logits[k], &peak, &second, &finite);
        readable &= finite & (Bits)(peak > -INFINITY);
        second = larger(second, all(lowest(source)));
        Sums sums = {all(-1), all(-1), all(0)};
        for (int k = 0; k < classes; k++) add_class(&sums, logits[k], second, spread);
        memcpy(block->peak + first, &peak, sizeof peak);
        memcpy(block->second + first, &second, sizeof second);
        memcpy(block->total + first, &sums.total, sizeof peak);
        memcpy(block->powers + first, &sums.powers, sizeof peak);
        memcpy(block->weighted + first, &sums.weighted, sizeof peak);
        for (int i = 0; i < LANES; i++) block->valid[first + i] = readable[i] != 0;
    }
}

INLINE void split_many(Block *block, const Source *source, const char *rows, int count, int dtype, int spread) {
    const int64_t whole = source->classes / LANES * LANES, left = source->classes - whole;
    for (int row = 0; row < count; row++) {
        const char *from = rows + row * source->row_stride * size_of(dtype);
        Vector rest = all(-INFINITY), peaks = rest, seconds = rest;
        for (int i = 0; i < left; i++) rest[i] = number(from, dtype, whole + i);
        Bits readable = ~(Bits){0};
        for (int64_t k = 0; k < whole; k += LANES)
            two_largest(load(from + k * size_of(dtype), dtype, NULL), &peaks, &seconds, &readable);
        two_largest(rest, &peaks, &seconds, &readable);
        double peak = -INFINITY, second = -INFINITY;
        int valid = 1;
        for (int i = 0; i < LANES; i++) {
            double lower = peaks[i] < peak ? peaks[i] : peak, next = seconds[i] > lower ? seconds[i] : lower;
            peak = peaks[i] > peak ? peaks[i] : peak;
            second = next > second ? next : second;
            valid &= readable[i] != 0;
        }
        second = second > lowest(source) ? second : lowest(source);
        Sums sums = {all(0), all(0), all(0)};
        sums.total[0] = sums.powers[0] = -1;
        for (int64_t k = 0; k < whole; k += LANES)
            add_class(&sums, load(from + k * size_of(dtype), dtype, NULL), all(second), spread);
        if (left) add_class(&sums, rest, all(second), spread);
        block->peak[row] = peak, block->second[row] = second;
        block->total[row] = total_of(sums.total), block->powers[row] = total_of(sums.powers);
        block->weighted[row] = total_of(sums.weighted);
        block->valid[row] = valid && peak > -INFINITY;
    }
}

/* The label's logit, and whether it is the first of the largest. */
INLINE void find_labels(Block *block, const Source *source, const char *rows, int count, int dtype) {
    for (int row = 0; row < count; row++) {
        const char *from = rows + row * source->row_stride * size_of(dtype);
        int64_t label = block->label[row], stride = source->class_stride;
        if (source->binary) {
            double score = number(from, dtype, 0), first = score > 0 ? -score : 0, second = score < 0 ? score : 0;
            block->own[row] = label ? second : first;
            block->correct[row] = label == (score > 0);
            continue;
        }
        double own = number(from, dtype, label * stride), peak = block->peak[row];
        int correct = own == peak;
        if (block->second[row] == peak)
            for (int64_t k = 0; correct && k < label; k++) correct = number(from, dtype, k * stride) != peak;
        block->own[row] = own, block->correct[row] = correct;
    }
}

INLINE void split(Block *block, const Source *source, int64_t first, int count, int dtype, int spread) {
    const char *rows = (const char *)source->logits + first * source->row_stride * size_of(dtype);
    if (source->classes < FEW)
        split_few(block, source, rows, count, dtype, spread);
    else
        split_many(block, source, rows, count, dtype, spread);
    find_labels(block, source, rows, count, dtype);
}

static void split_rows(Block *block, const Source *source, int64_t first, int count, int spread) {
#define CASE(dtype)                                                                                                   \
    case dtype:                                                                                                       \
        if (spread)                                                                                                   \
            split(block, source, first, count, dtype, 1);                                                             \
        else                                                                                                          \
            split(block, source, first, count, dtype, 0);                                                             \
        break;
    switch (source->dtype) {
        CASE(FLOAT32)
        CASE(FLOAT64)
        CASE(BFLOAT16)
        CASE(FLOAT16)
    }
}

/* What follows from the sums of each row, as `read_logits` in rows.py has it. Never inlined: whoever calls it gets the
same operations, and so the same bits. */
static __attribute__((noinline)) void conclude(Block *block, int count) {
#define AT(name) (*(Vector *)(block->name + i))
    for (int i = 0; i < count; i += LANES) {
        Vector lead = larger(AT(second) - AT(peak), all(-DBL_MAX)), share = exp_of(lead);
        Vector odds = share * AT(total), whole = odds + 1, top = 1 / whole, log_total = log_of(whole);
        Vector nll = log_total + (AT(peak) - AT(own));
        Vector spread = log_total - top * (share * AT(weighted) + lead * odds);
        AT(top) = top, AT(odds) = odds, AT(nll) = nll, AT(truth) = exp_of(-nll);
        AT(log_odds) = where((Bits)(AT(total) == 0), all(-INFINITY), log_of(AT(total))) + lead;
        AT(squares) = (share * share * AT(powers) + 1) * top * top;
        AT(entropy) = larger(spread, all(0));
    }
}

static void read_block(Block *block, const Source *source, int64_t first, int count, int spread) {
    split_rows(block, source, first, count, spread);
    conclude(block, count);
}
