// The inner loops, which are compiled once for each instruction set.
//
// Nothing in here or in loops.inc uses the standard library: the linker keeps one copy of an inline
// function, and that copy may have been compiled for an instruction set that the processor lacks.
#pragma once

#include <stdint.h>

namespace resflax {

// The format of maps and kernels in memory. All loops compute in float32.
enum class Format : int32_t { float32, bfloat16 };

// What happens to maps before they are convolved: max(0, factor * x + offset), or a part of it.
struct Activation {
  const float* factor;  // one for each channel; null: maps are not scaled
  const float* offset;
  bool relu;
};

// Places of a kernel that lie side by side in the padded maps, so that they are read as one run.
struct Segments {
  const int64_t* start;  // where each segment begins, in floats from a position's first place
  int64_t count;
  int64_t run;  // floats in each segment
};

// A block of positions: images, their rows and their columns, with the floats between neighbours.
struct Places {
  int64_t images, rows, columns;
  int64_t image_step, row_step, column_step;
};

struct Loops {
  const char* name;
  int64_t lanes;         // floats in a register
  int64_t most_vectors;  // registers of outputs that one call of `multiply` computes

  // y[to[p] + v] = sum of x[from[p] + start[s] + i] * kernel[s][i][v] over segments s and i, for
  // v < vectors * lanes and each of `count` positions p. With `add`, the sum is added to y.
  void (*multiply)(const float* x, const int64_t* from, float* y, const int64_t* to, int64_t count,
                   const float* kernel, Segments segments, int64_t vectors, bool add);

  // sums[i * padded + o] += sum of x[p + i] * g[q + o] over the places p of x and the same places q
  // of g, for i < run and o < outputs, a multiple of `lanes`.
  void (*outer)(const float* x, Places of_x, const float* g, Places of_g, float* sums, int64_t run,
                int64_t outputs, int64_t padded);

  // to[p * step + c] = activation of from[p * channels + c] for `count` positions.
  void (*prepare)(const void* from, Format format, int64_t count, int64_t channels,
                  Activation activation, float* to, int64_t step);

  // to[p * step + c] = g + shift[c] + slope[c] * y, of the gradient g and the maps y.
  void (*combine)(const void* g, const void* y, Format format, int64_t count, int64_t channels,
                  const float* shift, const float* slope, float* to, int64_t step);

  // to[p * to_step + c] = from[p * step + c]. If `sums` is not null, adds the sum of the results
  // to sums[c] and the sum of their squares to squares[c].
  void (*finish)(const float* from, int64_t step, int64_t count, int64_t channels, Format format,
                 void* to, int64_t to_step, float* sums, float* squares);

  // The gradient of `prepare`: to[p * channels + c] is that of from[...], of the gradient
  // g[p * step + c] of the activated maps. Adds the gradients of factor and offset to these.
  void (*unprepare)(const float* g, int64_t step, const void* from, Format format, int64_t count,
                    int64_t channels, Activation activation, void* to, float* of_factor,
                    float* of_offset);
};

extern const Loops baseline_loops;
#ifdef __x86_64__
extern const Loops avx2_loops;
extern const Loops avx512_loops;
#endif

}  // namespace resflax
