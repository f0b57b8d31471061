/* Which kernel sets this processor can run. */
#include "kernels.h"

extern const als_kernels als_kernels_generic, als_kernels_avx2, als_kernels_avx512;

const als_kernels *const *als_available(void)
{
    static const als_kernels *found[4];
    int count = 0;
#ifdef __x86_64__
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    /* Zen 4 runs a 64-byte vector as two halves: no more FMA a second, but more padding. An exact sweep of the full
     * Last.fm shape at k = 128 takes 1.1 times as long with AVX-512 (alscore bench sweep --isa avx2,avx512). Of AMD's
     * processors with AVX-512 it is the one without VP2INTERSECT; GCC 12 does not know it by name. */
    const int halves = __builtin_cpu_is("amd") && !__builtin_cpu_supports("avx512vp2intersect");
    if (avx2 && halves)
        found[count++] = &als_kernels_avx2;
    if (avx512)
        found[count++] = &als_kernels_avx512;
    if (avx2 && !halves)
        found[count++] = &als_kernels_avx2;
#endif
    found[count++] = &als_kernels_generic;
    found[count] = NULL;
    return found;
}
