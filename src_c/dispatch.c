/* The kernel sets that this processor can run. */
#include "kernels.h"
#include "x86.h"

extern const als_kernels als_kernels_generic, als_kernels_avx2, als_kernels_avx512, als_kernels_neon;

const als_kernels *const *als_available(void)
{
    static const als_kernels *found[4];
    int count = 0;
#ifdef ALS_X86
    /* A processor that halves 64-byte vectors runs no more FMA per second with them, and they need more padding. An
     * exact sweep of the full Last.fm shape at k = 128 on Zen 4 takes 1.1 times as long with AVX-512 as with AVX2
     * (alscore bench sweep --isa avx2,avx512). */
    const int avx2_first = x86_halves_avx512();
    if (x86_avx2() && avx2_first)
        found[count++] = &als_kernels_avx2;
    if (x86_avx512())
        found[count++] = &als_kernels_avx512;
    if (x86_avx2() && !avx2_first)
        found[count++] = &als_kernels_avx2;
#endif
#ifdef __aarch64__
    found[count++] = &als_kernels_neon;
#endif
    found[count++] = &als_kernels_generic;
    found[count] = NULL;
    return found;
}
