// Convolutions of images with channels last, and their gradients, on CPUs.
//
// A convolution here takes with it what surrounds it in a residual or dense network: its maps are
// scaled, shifted and rectified as they are read, and the moments of its results are summed as they
// are written. So activated maps are never written to memory.
#pragma once

#include <cstdint>
#include <vector>

#include "loops.h"
#include "tasks.h"

namespace resflax {

// A convolution with an odd kernel (size, size, inputs / groups, outputs), padded by size / 2 on
// every side. It maps (batch, height, width, inputs) to (batch, ceil(height / stride),
// ceil(width / stride), outputs).
struct Shape {
  int64_t batch, height, width, inputs, outputs, size, stride, groups;
  Format format;

  int64_t pad() const { return size / 2; }
  int64_t out_height() const { return (height + stride - 1) / stride; }
  int64_t out_width() const { return (width + stride - 1) / stride; }
  int64_t group_inputs() const { return inputs / groups; }
  int64_t group_outputs() const { return outputs / groups; }
};

// Maps (batch, height, width, channels). Several of them stand for their concatenation.
struct Maps {
  const void* data;
  int64_t channels;
};

struct Forward {
  Shape shape;
  std::vector<Maps> maps;
  Activation activation;  // of all maps
  const void* kernel;
  void* y;
  float* sums;  // (2, outputs): the sums of y and of its squares; null: not computed
};

struct Backward {
  Shape shape;
  std::vector<Maps> maps;
  Activation activation;
  const void* kernel;
  const void* gradient;           // of y
  const void* y;                  // null if `gradient_of_sums` is
  const float* gradient_of_sums;  // (2, outputs); null: the sums have no gradient
  void* of_kernel;
  float* of_factor;  // (inputs,); null if there is no factor
  float* of_offset;
  std::vector<void*>
      of_maps;  // one for each of the maps; empty (only without a factor): not computed
};

// The loops of the best instruction set that this processor has and that RESFLAX_KERNELS_ISA
// allows.
const Loops& loops();

void forward(const Forward& call, const Pool& pool);
void backward(const Backward& call, const Pool& pool);

}  // namespace resflax
