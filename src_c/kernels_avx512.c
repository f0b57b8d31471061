#include "x86.h"

#ifdef ALS_X86
#define ALS_ISA avx512
#define ALS_TARGET "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"
#define ALS_BYTES 64
#define ALS_REGISTERS 32
#include "kernels.inc.h"
#endif
