/* What this x86-64 processor and its system can run. Defines ALS_X86 where that can be asked: not on Windows, where the
 * linker does not find what __builtin_cpu_supports needs, so that the generic kernels serve there. */
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

/* Zen 4 runs a 64-byte vector as two halves. Of AMD's processors with AVX-512 it is the one without VP2INTERSECT; GCC 12
 * does not know it by name. */
static inline int x86_halves_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_is("amd") && !__builtin_cpu_supports("avx512vp2intersect");
}

#endif
#endif
