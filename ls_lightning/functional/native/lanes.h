/* Several numbers at a time, by vectors of the compiler's: as many as the processor takes at once, always the same ones
 * of a row. So no result depends on where a row lies in memory or on what lies beside it. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t shorts __attribute__((vector_size(2 * LANES)));
typedef int64_t longs __attribute__((vector_size(8 * LANES)));

enum dtype { FLOAT32, BFLOAT16, FLOAT16 };

INLINE floats all(float value) { return value - (floats){0}; }

INLINE floats pick(ints where, floats yes, floats no) { return (floats)(((ints)yes & where) | ((ints)no & ~where)); }

INLINE floats keep(ints where, floats values) { return (floats)((ints)values & where); }

INLINE int any(ints where) {
    int found = 0;
    for (int lane = 0; lane < LANES; lane++) found |= where[lane];
    return found;
}

/* Of two, the larger; the second where the first is NaN. */
INLINE floats larger(floats a, floats b) { return pick(a > b, a, b); }

INLINE float largest(floats values) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            values[lane] = values[lane + half] > values[lane] ? values[lane + half] : values[lane];
    return values[0];
}

INLINE float total(floats values) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) values[lane] += values[lane + half];
    return values[0];
}

/* e^x for x <= 0 to 1 ulp, 0 where that is below the normal numbers; NaN stays NaN.
 * Source: Cephes, expf.c, whose polynomial this is. */
INLINE floats exponential(floats x) {
    const float shift = 12582912.0f; /* added to a number, leaves its nearest integer in the last bits */
    floats t = x * 1.44269504088896341f + shift;
    floats n = t - shift;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    floats power = (floats)(((bits)t << 23) + 0x3f800000u);
    return keep(~(x < -87.336544f), p * power);
}

/* log x for x >= 0 to 1 ulp, of 0 some finite number; NaN for NaN, inf and x < 0.
 * Source: Cephes, logf.c, whose polynomial this is. */
INLINE floats logarithm(floats x) {
    const float half_root = 0.707106781186547524f;
    bits raw = (bits)x;
    floats e = __builtin_convertvector((ints)(raw >> 23) - 126, floats);
    floats m = (floats)((raw & 0x007fffffu) | 0x3f000000u);
    ints low = m < half_root;
    e = e - keep(low, all(1));
    m = m + keep(low, m) - 1.0f;
    floats square = m * m, p = all(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * square + e * -2.12194440e-4f - 0.5f * square;
    return pick(x < 0, all(NAN), m + p + e * 0.693359375f + (x - x));
}

/* Narrow numbers to float32 and back: to the nearest, of two as near to the even one. `dtype` is a constant wherever
 * these are used. */

INLINE floats widen(shorts narrow, enum dtype dtype) {
    bits raw = __builtin_convertvector(narrow, bits);
    if (dtype == BFLOAT16) return (floats)(raw << 16);
    bits size = raw & 0x7fffu, high = (bits)(size >= 0x7c00u) & 0x7f800000u; /* inf and NaN */
    return (floats)((bits)((floats)(size << 13) * 0x1p112f) | high | ((raw & 0x8000u) << 16));
}

INLINE shorts narrow(floats values, enum dtype dtype) {
    bits raw = (bits)values, sign = raw & 0x80000000u, size = raw ^ sign, found;
    ints nan = values != values;
    if (dtype == BFLOAT16) {
        found = (size + 0x7fffu + (size >> 16 & 1u)) >> 16;
    } else {
        bits usual = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
        bits small = (bits)((floats)size + 0.5f) - 0x3f000000u;
        bits is_small = (bits)(size < 0x38800000u), is_large = (bits)(size >= 0x47800000u);
        found = (small & is_small) | (usual & ~is_small);
        found = (0x7c00u & is_large) | (found & ~is_large);
    }
    found = ((0x7e00u | (dtype == BFLOAT16 ? 0x7fc0u : 0u)) & (bits)nan) | (found & ~(bits)nan);
    return __builtin_convertvector(found | (sign >> 16), shorts);
}

INLINE int64_t width(enum dtype dtype) { return dtype == FLOAT32 ? 4 : 2; }

INLINE floats read_lanes(const void *from, enum dtype dtype) {
    floats values;
    shorts raw;
    if (dtype == FLOAT32) return memcpy(&values, from, sizeof values), values;
    return memcpy(&raw, from, sizeof raw), widen(raw, dtype);
}

INLINE void write_lanes(void *to, floats values, enum dtype dtype) {
    if (dtype == FLOAT32) {
        memcpy(to, &values, sizeof values);
    } else {
        shorts raw = narrow(values, dtype);
        memcpy(to, &raw, sizeof raw);
    }
}

INLINE float read_one(const void *from, enum dtype dtype) {
    floats values = {0};
    shorts raw = {0};
    if (dtype == FLOAT32) return memcpy(&values, from, sizeof(float)), values[0];
    return memcpy(&raw, from, sizeof(uint16_t)), widen(raw, dtype)[0];
}

INLINE void write_one(void *to, float value, enum dtype dtype) {
    floats values = all(value);
    shorts raw = narrow(values, dtype);
    memcpy(to, dtype == FLOAT32 ? (void *)&values : (void *)&raw, width(dtype));
}
