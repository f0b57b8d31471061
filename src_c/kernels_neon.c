/* The same code as the baseline of AArch64, under its own name. Vectors of two registers, of which the accumulators of a
 * tile would fill 24, are no better: GCC 12 keeps them in memory (51 stores among the 24 FMA of a step, here none). */
#ifdef __aarch64__
#define ALS_ISA neon
#define ALS_BYTES 16
#define ALS_REGISTERS 32
#include "kernels.inc.h"
#endif
