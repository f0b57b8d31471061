#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#define ALS_ISA avx2
#define ALS_BYTES 32
#define ALS_REGISTERS 16
#include "kernels.inc.h"
#endif
