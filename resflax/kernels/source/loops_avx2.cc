// The loops for x86-64 processors with AVX2 and FMA.
#ifdef __x86_64__
#define LANES 8
#define REGISTERS 16
#define LOOPS avx2_loops
#define LOOPS_NAME "avx2"
#include "loops.inc"
#endif
