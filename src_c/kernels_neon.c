/* The baseline of AArch64 under its own name. Vectors of two registers are no better: a tile's accumulators would fill
 * 24 registers, and GCC 12 keeps them in memory (51 stores among the 24 FMA of a step; none with one register). */
#ifdef __aarch64__
#define ALS_ISA neon
#define ALS_BYTES 16
#define ALS_REGISTERS 32
#include "kernels.inc.h"
#endif
