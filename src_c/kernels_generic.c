/* The baseline of the target: SSE2 on x86-64, NEON on AArch64, the compiler's default elsewhere. */
#define ALS_ISA generic
#define ALS_BYTES 16
#define ALS_REGISTERS 16
#include "kernels.inc.h"
