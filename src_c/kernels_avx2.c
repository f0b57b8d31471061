#include "x86.h"

#ifdef ALS_X86
#define ALS_ISA avx2
#define ALS_TARGET "avx2,fma"
#define ALS_BYTES 32
#define ALS_REGISTERS 16
#include "kernels.inc.h"
#endif
