/* Vectors of float64 as wide as the processor's registers, and the functions of them that rows of logits need.

Every lane gets what it would get alone, so that a number does not depend on what it shares a register with. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 8
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 4
#else
#define LANES 2
#endif

#define INLINE static inline __attribute__((always_inline))

typedef double Vector __attribute__((vector_size(8 * LANES)));
typedef int64_t Bits __attribute__((vector_size(8 * LANES)));
typedef uint64_t Unsigned __attribute__((vector_size(8 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

INLINE Vector all(double value) { return value - (Vector){0}; }

INLINE Vector where(Bits mask, Vector yes, Vector no) { return (Vector)((mask & (Bits)yes) | (~mask & (Bits)no)); }

/* The second where one is NaN. */
#if LANES == 8
INLINE Vector larger(Vector one, Vector other) { return (Vector)_mm512_max_pd((__m512d)one, (__m512d)other); }
INLINE Vector smaller(Vector one, Vector other) { return (Vector)_mm512_min_pd((__m512d)one, (__m512d)other); }
#elif LANES == 4
INLINE Vector larger(Vector one, Vector other) { return (Vector)_mm256_max_pd((__m256d)one, (__m256d)other); }
INLINE Vector smaller(Vector one, Vector other) { return (Vector)_mm256_min_pd((__m256d)one, (__m256d)other); }
#else
INLINE Vector larger(Vector one, Vector other) { return where((Bits)(one > other), one, other); }
INLINE Vector smaller(Vector one, Vector other) { return where((Bits)(one < other), one, other); }
#endif

#define SHIFT 0x1.8p52 /* a number that is added to it is rounded to an integer, which stands in the last bits */

/* e^x for x <= 0, within 2 units in the last place; 0 below -700, exactly 1 at 0. */
INLINE Vector exp_of(Vector x) {
    Vector kept = larger(x, all(-700));
    Vector shifted = kept * 0x1.71547652b82fep0 + SHIFT;
    Vector n = shifted - SHIFT;
    Vector r = (kept - n * 0x1.62e42fefa0000p-1) - n * 0x1.cf79abc9e3b3ap-40;
    Vector p = all(1 / 479001600.);
    const double inverse[] = {1 / 39916800., 1 / 3628800., 1 / 362880., 1 / 40320., 1 / 5040., 1 / 720.,
                              1 / 120.,      1 / 24.,      1 / 6.,      1 / 2.,     1.,        1.};
    for (int i = 0; i < 12; i++) p = p * r + inverse[i];
    Vector found = (Vector)((Bits)p + ((Bits)shifted << 52));
    return (Vector)((Bits)found & (Bits)(x >= -700));
}

/* ln x for finite x >= 1, within 2 units in the last place; exactly 0 at 1. */
INLINE Vector log_of(Vector x) {
    Unsigned power = ((Unsigned)x - 0x3fe6a09e667f3bcd) >> 52; /* x = m 2^power with m from sqrt(1/2) to sqrt(2) */
    Vector m = (Vector)((Unsigned)x - (power << 52));
    Vector n = (Vector)(power | 0x4330000000000000) - 0x1p52;
    Vector s = (m - 1) / (m + 1), z = s * s;
    Vector p = all(2 / 21.);
    for (int i = 19; i > 1; i -= 2) p = p * z + 2. / i;
    return n * 0x1.62e42fefa0000p-1 + (2 * s + (s * z * p + n * 0x1.cf79abc9e3b3ap-40));
}

/* The sum of all lanes, in an order that is always the same. */
INLINE double total_of(Vector values) {
    double lanes[LANES];
    memcpy(lanes, &values, sizeof lanes);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}
