/* Which kernel sets this processor can run. */
#include "kernels.h"

extern const als_kernels als_kernels_generic, als_kernels_avx2, als_kernels_avx512;

const als_kernels *const *als_available(void)
{
    static const als_kernels *found[4];
    int count = 0;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        found[count++] = &als_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[count++] = &als_kernels_avx2;
#endif
    found[count++] = &als_kernels_generic;
    found[count] = NULL;
    return found;
}
