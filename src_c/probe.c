/* Loops that each meet one limit of the machine: fused multiply-adds in registers, and random rows from memory. */
#include <stddef.h>
#include <stdint.h>

#include "x86.h"

/* Independent chains: at least the latency of an FMA times its units; few enough that two constants have registers. */
#ifdef __x86_64__
#define CHAINS 12
#else
#define CHAINS 24
#endif

/* Repeats x = multiplier x + addend `steps` times in every lane of each chain; chain c starts from x = c. Returns the
 * sum of all lanes. */
#define FMA_CHAINS(bytes, target)                                                                                      \
    target static double fma_##bytes(ptrdiff_t steps, float multiplier, float addend)                                  \
    {                                                                                                                  \
        typedef float vec __attribute__((vector_size(bytes)));                                                         \
        const vec zero = {0}, m = zero + multiplier, a = zero + addend;                                                \
        vec x[CHAINS];                                                                                                 \
        double sum = 0;                                                                                                \
        for (int c = 0; c < CHAINS; c++)                                                                               \
            x[c] = zero + (float)c;                                                                                    \
        for (; steps > 0; steps--)                                                                                     \
            _Pragma("GCC unroll 24") for (int c = 0; c < CHAINS; c++) x[c] = m * x[c] + a;                             \
        for (int c = 0; c < CHAINS; c++)                                                                               \
            for (int l = 0; l < bytes / 4; l++)                                                                        \
                sum += x[c][l];                                                                                        \
        return sum;                                                                                                    \
    }

FMA_CHAINS(16, )
#ifdef ALS_X86
FMA_CHAINS(32, __attribute__((target("avx2,fma"))))
FMA_CHAINS(64, __attribute__((target("avx512f"))))
#endif

/* FLOPs of one step with vectors of `bytes`; 0 if this processor has no vectors of that size. */
ptrdiff_t probe_fma_flops(int bytes)
{
    int there = bytes == 16;
#ifdef ALS_X86
    there |= (bytes == 32 && x86_avx2()) || (bytes == 64 && x86_avx512());
#endif
    return there ? 2 * CHAINS * bytes / 4 : 0;
}

double probe_fma(int bytes, ptrdiff_t steps, float multiplier, float addend)
{
#ifdef ALS_X86
    if (bytes == 64)
        return fma_64(steps, multiplier, addend);
    if (bytes == 32)
        return fma_32(steps, multiplier, addend);
#endif
    return fma_16(steps, multiplier, addend);
}

#define IN_L2 2 /* locality (0 to 3) of a prefetch; 2: into the second-level cache */

/* Sum of the n rows rows[i] of a table with k numbers per row, as integers modulo 2^32: such a sum does not depend on
 * its order or on vectors. The row that is prefetched comes `ahead` rows after the one that is read. It goes into the
 * second-level cache, since the first-level cache has fewer misses under way. Measured on one core of a Zen 4 at
 * k = 64, 128, 256, from memory: 11.6, 11.6, 15.3 GB/s; with prefetches into the first level 8.4, 8.5, 9.2 GB/s. */
uint32_t probe_gather(ptrdiff_t n, ptrdiff_t k, const int32_t *rows, const uint32_t *table, ptrdiff_t ahead)
{
    typedef uint32_t vec __attribute__((vector_size(16)));
    typedef uint32_t loose __attribute__((vector_size(16), aligned(4), may_alias));
    vec sum[4] = {{0}}; /* together one cache line */
    uint32_t total = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t *row = table + rows[i] * k, *next = table + rows[ahead < n - i ? i + ahead : i] * k;
        ptrdiff_t j = 0;
        for (; j + 16 <= k; j += 16) {
            __builtin_prefetch(next + j, 0, IN_L2);
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++)
                sum[q] += *(const loose *)(row + j + 4 * q);
        }
        __builtin_prefetch(next + k - 1, 0, IN_L2);
        for (; j < k; j++)
            total += row[j];
    }
    for (int q = 0; q < 4; q++)
        for (int l = 0; l < 4; l++)
            total += sum[q][l];
    return total;
}
