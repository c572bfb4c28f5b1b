// The loops for x86-64 processors with AVX-512.
#ifdef __x86_64__
#define LANES 16
#define REGISTERS 32
#define LOOPS avx512_loops
#define LOOPS_NAME "avx512"
#include "loops.inc"
#endif
