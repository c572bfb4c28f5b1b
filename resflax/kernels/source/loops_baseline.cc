// The loops for every processor of the architecture: SSE2 on x86-64, NEON on aarch64.
#define LANES 4
#ifdef __aarch64__
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#define LOOPS baseline_loops
#define LOOPS_NAME "baseline"
#include "loops.inc"
