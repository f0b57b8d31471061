/* The kernels for float and for double, and their table. Each kernels_<isa>.c includes this file once and defines:
 *     ALS_ISA        the name of the set
 *     ALS_BYTES      bytes of a vector
 *     ALS_REGISTERS  number of vector registers
 *     ALS_TARGET     the compiler's name of the target, if the baseline is not enough */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define ALS_PASTE_(a, b, c) a##b##c
#define ALS_PASTE(a, b, c) ALS_PASTE_(a, b, c)
#define ALS_STRING_(a) #a
#define ALS_STRING(a) ALS_STRING_(a)
#define PRAGMA(text) _Pragma(ALS_STRING(text))
#define FN(name) ALS_PASTE(name, _, SUFFIX)
#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (FN(ivec)){__VA_ARGS__})
#endif

#ifdef ALS_TARGET
#ifdef __clang__
PRAGMA(clang attribute push(__attribute__((target(ALS_TARGET))), apply_to = function))
#else
PRAGMA(GCC target(ALS_TARGET))
#endif
#endif

/* Prefetch the next `rows` rows, or as many as are left. */
INLINE void fetch(als_ahead *ahead, ptrdiff_t rows)
{
    for (; rows > 0 && ahead->n > 0; rows--, ahead->n--) {
        const char *row = (const char *)ahead->Y + *ahead->cols++ * ahead->row_bytes;
        for (const char *line = row - (uintptr_t)row % 64; line < row + ahead->row_bytes; line += 64)
            __builtin_prefetch(line, 0, 2);
    }
}

#define REAL float
#define INTEGER int32_t
#define SUFFIX f32
#define SQRT sqrtf
#define LANES (ALS_BYTES / 4)
#include "kernels.body.h"
#undef REAL
#undef INTEGER
#undef SUFFIX
#undef SQRT
#undef LANES

#define REAL double
#define INTEGER int64_t
#define SUFFIX f64
#define SQRT sqrt
#define LANES (ALS_BYTES / 8)
#include "kernels.body.h"

#if defined(ALS_TARGET) && defined(__clang__)
#pragma clang attribute pop
#endif

#define ALS_TABLE(suffix, width)                                                                                       \
    {ALS_BYTES / width, gather_rows_##suffix, gather_columns_##suffix, rank_update_##suffix,                           \
     cholesky_##suffix, solve_##suffix,       rows_dot_##suffix,       rows_dot_wide_##suffix,                         \
     rows_sum_##suffix, dot_##suffix,         reach_##suffix,          3 * ALS_BYTES / width}

const als_kernels ALS_PASTE(als_kernels, _, ALS_ISA) = {ALS_STRING(ALS_ISA), ALS_TABLE(f32, 4), ALS_TABLE(f64, 8)};
