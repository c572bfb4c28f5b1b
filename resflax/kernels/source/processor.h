// The instruction sets that this processor and its system have.
//
// Compilers have a function for it, but not all of them: with Zig's it links and finds nothing.
#pragma once

#ifdef __x86_64__
#include <cpuid.h>

#include <cstdint>

namespace resflax {

struct Processor {
  bool avx2 = false;    // and FMA
  bool avx512 = false;  // F, DQ, BW and VL

  Processor() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const auto all = [](uint32_t word, uint32_t bits) { return (word & bits) == bits; };
    const bool fma = all(c, bit_FMA | bit_AVX | bit_OSXSAVE);
    if (!fma || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    uint32_t saved, high;  // the registers that the system saves when it switches threads
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    avx2 = all(b, bit_AVX2) && all(saved, 0x6);
    avx512 = avx2 && all(b, bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL) &&
             all(saved, 0xe6);
  }
};

}  // namespace resflax
#endif
