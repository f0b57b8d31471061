/* The instruction sets that this x86-64 processor and its system can run. ALS_X86 is defined where they can be queried.
 * On Windows the linker does not find what __builtin_cpu_supports needs: the generic kernels are used there. */
#ifndef ALSCORE_X86_H
#define ALSCORE_X86_H

#if defined(__x86_64__) && !defined(_WIN32)
#define ALS_X86

static inline int x86_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static inline int x86_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

/* Whether the processor is a Zen 4, which runs a 64-byte vector as two halves. It is the only processor by AMD that has
 * AVX-512 and lacks VP2INTERSECT; GCC 12 does not know its name. */
static inline int x86_halves_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_is("amd") && !__builtin_cpu_supports("avx512vp2intersect");
}

#endif
#endif
