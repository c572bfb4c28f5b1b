// Typed XLA FFI handlers: what JAX calls. They check shapes and hand the work on.

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>

#include "convolution.h"
#include "xla/ffi/api/ffi.h"

namespace resflax {
namespace {

namespace ffi = xla::ffi;

std::atomic<int64_t> most_threads{1 << 20};

Pool pool_of(ffi::ThreadPool& threads) {
  return {std::min<int64_t>(threads.num_threads(), most_threads.load()),
          [&threads](std::function<void()> work) { threads.Schedule(std::move(work)); }};
}

ffi::Error refused(const std::string& why) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, "resflax's kernels: " + why);
}

// Floats that may be left out, as an empty array.
const float* or_null(const ffi::Buffer<ffi::F32>& floats) {
  return floats.element_count() ? floats.typed_data() : nullptr;
}

// The shape of a convolution of these maps, or why they cannot be convolved.
ffi::Error read_shape(const ffi::AnyBuffer& kernel, const ffi::RemainingArgs& arguments,
                      int64_t stride, int64_t groups, Shape& shape, std::vector<Maps>& maps) {
  const auto k = kernel.dimensions();
  if (k.size() != 4 || k[0] != k[1] || k[0] % 2 == 0)
    return refused("the kernel is not odd and square");
  if (kernel.element_type() == ffi::F32)
    shape.format = Format::float32;
  else if (kernel.element_type() == ffi::BF16)
    shape.format = Format::bfloat16;
  else
    return refused("the kernel is neither float32 nor bfloat16");
  shape.size = k[0], shape.outputs = k[3], shape.stride = stride, shape.groups = groups;
  shape.inputs = 0;
  if (!arguments.size()) return refused("there are no maps");
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto argument = arguments.get<ffi::AnyBuffer>(i);
    if (!argument.has_value()) return refused("maps cannot be read");
    const auto d = argument->dimensions();
    if (d.size() != 4 || argument->element_type() != kernel.element_type())
      return refused("maps have another rank or type than the kernel");
    if (!i) shape.batch = d[0], shape.height = d[1], shape.width = d[2];
    if (d[0] != shape.batch || d[1] != shape.height || d[2] != shape.width)
      return refused("maps have different shapes");
    maps.push_back({argument->untyped_data(), d[3]});
    shape.inputs += d[3];
  }
  if (stride < 1 || groups < 1 || k[2] * groups != shape.inputs || shape.outputs % groups)
    return refused("channels of maps and kernel differ");
  return ffi::Error::Success();
}

template <typename Work>
ffi::Error guarded(const Work& work) {
  try {
    work();
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      std::string("resflax's kernels: ") + error.what());
  }
}

ffi::Error run_forward(ffi::ThreadPool threads, ffi::AnyBuffer kernel, ffi::Buffer<ffi::F32> factor,
                       ffi::Buffer<ffi::F32> offset, ffi::RemainingArgs arguments,
                       ffi::Result<ffi::AnyBuffer> y, ffi::Result<ffi::Buffer<ffi::F32>> sums,
                       int64_t stride, int64_t groups, bool relu) {
  Forward call;
  if (auto error = read_shape(kernel, arguments, stride, groups, call.shape, call.maps);
      error.failure())
    return error;
  call.activation = {or_null(factor), or_null(offset), relu};
  call.kernel = kernel.untyped_data();
  call.y = y->untyped_data();
  call.sums = sums->element_count() ? sums->typed_data() : nullptr;
  return guarded([&] { forward(call, pool_of(threads)); });
}

ffi::Error run_backward(ffi::ThreadPool threads, ffi::AnyBuffer kernel,
                        ffi::Buffer<ffi::F32> factor, ffi::Buffer<ffi::F32> offset,
                        ffi::AnyBuffer gradient, ffi::AnyBuffer y,
                        ffi::Buffer<ffi::F32> gradient_of_sums, ffi::RemainingArgs arguments,
                        ffi::Result<ffi::AnyBuffer> of_kernel,
                        ffi::Result<ffi::Buffer<ffi::F32>> of_factor,
                        ffi::Result<ffi::Buffer<ffi::F32>> of_offset, ffi::RemainingRets results,
                        int64_t stride, int64_t groups, bool relu) {
  Backward call;
  if (auto error = read_shape(kernel, arguments, stride, groups, call.shape, call.maps);
      error.failure())
    return error;
  call.activation = {or_null(factor), or_null(offset), relu};
  call.kernel = kernel.untyped_data();
  call.gradient = gradient.untyped_data();
  call.gradient_of_sums = or_null(gradient_of_sums);
  call.y = y.untyped_data();
  call.of_kernel = of_kernel->untyped_data();
  call.of_factor = of_factor->typed_data();
  call.of_offset = of_offset->typed_data();
  for (size_t i = 0; i < results.size(); ++i) {
    auto result = results.get<ffi::AnyBuffer>(i);
    if (!result.has_value()) return refused("results cannot be read");
    call.of_maps.push_back((*result)->untyped_data());
  }
  return guarded([&] { backward(call, pool_of(threads)); });
}

}  // namespace
}  // namespace resflax

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int resflax_kernels_version() { return 1; }
EXPORTED int resflax_kernels_ffi_version() { return 1000 * XLA_FFI_API_MAJOR + XLA_FFI_API_MINOR; }
EXPORTED const char* resflax_kernels_instruction_set() { return resflax::loops().name; }
EXPORTED void resflax_kernels_set_threads(int most) { resflax::most_threads = most; }

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(Forward, resflax::run_forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()              // kernel
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // factor, or empty
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // offset, or empty
                                  .RemainingArgs()                         // maps
                                  .Ret<xla::ffi::AnyBuffer>()              // y
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // sums, or empty
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    Backward, resflax::run_backward,
    xla::ffi::Ffi::Bind()
        .Ctx<xla::ffi::ThreadPool>()
        .Arg<xla::ffi::AnyBuffer>()              // kernel
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // factor, or empty
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // offset, or empty
        .Arg<xla::ffi::AnyBuffer>()              // gradient of y
        .Arg<xla::ffi::AnyBuffer>()              // y, or empty
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // gradient of sums, or empty
        .RemainingArgs()                         // maps
        .Ret<xla::ffi::AnyBuffer>()              // gradient of the kernel
        .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // of the factor, or empty
        .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // of the offset, or empty
        .RemainingRets()                         // of maps, or none
        .Attr<int64_t>("stride")
        .Attr<int64_t>("groups")
        .Attr<bool>("relu"));
#pragma GCC visibility pop
