// Divides convolutions and their gradients into pieces that stay in the cache.
//
// A piece is some rows of one image, or some whole images. Its maps are copied, with a border of
// zeros, into memory of the thread (`fill`); the inner loops compute from there (loops.inc).
// Pieces do not depend on the number of threads, and sums are added in the order of the pieces, so
// results are equal to the bit for every number of threads.

#include "convolution.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "processor.h"

namespace resflax {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t to) { return ceil_div(a, to) * to; }

// Memory of a thread, kept from call to call and aligned to cache lines.
class Buffer {
 public:
  float* floats(int64_t count) {
    if (count > size_) {
      std::free(data_);
      size_ = 0;
      data_ = static_cast<float*>(std::aligned_alloc(64, round_up(count * sizeof(float), 64)));
      if (!data_) throw std::bad_alloc();
      size_ = count;
    }
    return data_;
  }
  ~Buffer() { std::free(data_); }

 private:
  float* data_ = nullptr;
  int64_t size_ = 0;
};

constexpr int64_t kPieceFloats = 24 * 1024;  // of a piece's maps: about a fifth of a second cache
constexpr int64_t kPiecePositions = 256;
constexpr int64_t kGradientPositions = 160;  // that are summed at once for a kernel's gradient
constexpr int64_t kSlab = 64;                // channels that are multiplied at once, of many
// Kernels that do not fit in the second cache are read anew for every piece, which is larger then.
constexpr int64_t kLargeKernel = 384 * 1024;
constexpr int64_t kLargePieceFloats = 10 * kPieceFloats;
constexpr int64_t kSlack = 64;  // floats that the loops may read after the end
constexpr int64_t kMostParts = 16;
constexpr int64_t kMostSums = 2 * 1024 * 1024;  // floats of all parts of a kernel's gradient

// The floats between neighbouring positions. A multiple of 256 bytes would put all positions into
// the same few lines of the first cache.
int64_t channel_step(int64_t channels) { return channels % 64 == 0 ? channels + 16 : channels; }

// How a batch is divided into pieces.
struct Pieces {
  int64_t batch, height;  // of images, and of rows of results
  int64_t images, rows;   // of a piece: rows < height only if images == 1
  int64_t groups_of_images, per_image;

  Pieces(const Shape& s, int64_t floats_per_row) : batch(s.batch), height(s.out_height()) {
    const bool large = s.size * s.size * s.group_inputs() * s.outputs > kLargeKernel;
    const int64_t floats = large ? kLargePieceFloats : kPieceFloats;
    const int64_t least = large ? kMostParts / 4 : kMostParts;  // pieces, for as many threads
    rows = std::clamp<int64_t>(floats / std::max<int64_t>(floats_per_row, 1), 1, height);
    rows = ceil_div(height, ceil_div(height, rows));
    images = 1;
    if (rows == height) {
      const int64_t fit = floats / std::max<int64_t>(height * floats_per_row, 1);
      const int64_t wanted = kPiecePositions / (height * s.out_width());
      images = std::clamp<int64_t>(std::min(fit, wanted), 1, std::max<int64_t>(batch / least, 1));
    }
    groups_of_images = ceil_div(batch, images);
    per_image = ceil_div(height, rows);
  }
  int64_t count() const { return groups_of_images * per_image; }
};

struct Piece {
  int64_t image, images, row, rows;

  Piece(const Pieces& all, int64_t number) {
    image = number / all.per_image * all.images;
    images = std::min(all.images, all.batch - image);
    row = number % all.per_image * all.rows;
    rows = std::min(all.rows, all.height - row);
  }
};

// A rectangle of one image with a border: where its rows begin, and how wide it is.
struct Window {
  int64_t first_row, rows, left, columns;
};

// Copies the rows of an image of `height` x `width` positions into a window, whose positions are
// `step` floats apart, with zeros outside of the image. copy(row, count, to) copies one row.
template <typename Copy>
void fill(const Window& window, int64_t height, int64_t width, int64_t step, float* to,
          const Copy& copy) {
  const int64_t count = std::min(width, window.columns - window.left);
  const int64_t right = window.columns - window.left - count;
  for (int64_t i = 0; i < window.rows; ++i, to += window.columns * step) {
    const int64_t row = window.first_row + i;
    if (row < 0 || row >= height) {
      std::memset(to, 0, window.columns * step * sizeof(float));
      continue;
    }
    std::memset(to, 0, window.left * step * sizeof(float));
    copy(row, count, to + window.left * step);
    std::memset(to + (window.left + count) * step, 0, right * step * sizeof(float));
  }
}

int64_t bytes(Format format) { return format == Format::float32 ? 4 : 2; }

const char* advance(const void* data, int64_t elements, Format format) {
  return static_cast<const char*>(data) + elements * bytes(format);
}
char* advance(void* data, int64_t elements, Format format) {
  return static_cast<char*>(data) + elements * bytes(format);
}

Activation from_channel(Activation a, int64_t channel) {
  if (a.factor) a.factor += channel, a.offset += channel;
  return a;
}

bool is_active(const Activation& a) { return a.factor || a.relu; }

// The rows of all maps of an image, activated, in a window.
void fill_maps(const Shape& s, const std::vector<Maps>& maps, const Activation& activation,
               int64_t image, const Window& window, int64_t step, float* to) {
  fill(window, s.height, s.width, step, to, [&](int64_t row, int64_t count, float* line) {
    int64_t channel = 0;
    for (const Maps& m : maps) {
      const int64_t first = (image * s.height + row) * s.width * m.channels;
      loops().prepare(advance(m.data, first, s.format), s.format, count, m.channels,
                      from_channel(activation, channel), line + channel, step);
      channel += m.channels;
    }
  });
}

// The maps of a convolution as its pieces read them: with a border and activated, in memory of the
// thread; or where they are, if they need neither.
struct Input {
  const Shape& shape;
  const std::vector<Maps>& maps;
  const Activation& activation;
  const bool in_place;
  const int64_t step;     // floats between neighbouring positions
  const int64_t columns;  // positions in a row

  Input(const Shape& s, const std::vector<Maps>& maps, const Activation& activation)
      : shape(s),
        maps(maps),
        activation(activation),
        in_place(s.size == 1 && maps.size() == 1 && s.format == Format::float32 &&
                 !is_active(activation)),
        step(in_place ? s.inputs : channel_step(s.inputs)),
        columns(in_place ? s.width : (s.out_width() - 1) * s.stride + s.size) {}

  int64_t row_step() const { return columns * step; }

  // Floats between neighbouring images of a piece.
  int64_t image_step(const Pieces& pieces) const {
    return (in_place ? shape.height : (pieces.rows - 1) * shape.stride + shape.size) * row_step();
  }

  const float* read(const Pieces& pieces, const Piece& piece, Buffer& buffer) const {
    if (in_place)
      return static_cast<const float*>(maps[0].data) +
             (piece.image * shape.height + piece.row * shape.stride) * row_step();
    float* to = buffer.floats(pieces.images * image_step(pieces) + kSlack);
    const Window window{piece.row * shape.stride - shape.pad(),
                        (piece.rows - 1) * shape.stride + shape.size, shape.pad(), columns};
    for (int64_t i = 0; i < piece.images; ++i)
      fill_maps(shape, maps, activation, piece.image + i, window, step,
                to + i * image_step(pieces));
    return to;
  }
};

// The places of a kernel, as segments of the padded maps. If channels of neighbouring places are
// neighbours, a segment is a row of the kernel; otherwise it is one place and a slab of channels.
struct Taps {
  std::vector<int64_t> starts;  // of the segments: first those of the first slab
  int64_t run;                  // floats in a segment
  int64_t slabs;

  int64_t per_slab() const { return static_cast<int64_t>(starts.size()) / slabs; }
  int64_t length() const { return static_cast<int64_t>(starts.size()) * run; }
  // The place of a segment in an array (places, channels).
  int64_t in_order(int64_t segment) const {
    return (segment % per_slab() * slabs + segment / per_slab()) * run;
  }
};

// Blocks of one to three registers that cover `channels` results.
struct Block {
  int64_t first, vectors;
};
std::vector<Block> blocks_of(int64_t channels, int64_t lanes) {
  std::vector<Block> blocks;
  for (int64_t first = 0; first < channels;) {
    const int64_t left = ceil_div(channels - first, lanes);
    const int64_t vectors = left == 1 ? 1 : left == 3 ? 3 : 2;
    blocks.push_back({first, vectors});
    first += vectors * lanes;
  }
  return blocks;
}

// Multiplies positions of a piece with a packed kernel: slab by slab, so that a slab of the maps is
// read from the cache for all blocks of results.
void multiply(const float* x, const std::vector<int64_t>& from, float* y,
              const std::vector<int64_t>& to, int64_t count, const float* packed, const Taps& taps,
              const Block* blocks, int64_t block_count) {
  const int64_t some = taps.per_slab();
  for (int64_t slab = 0; slab < taps.slabs; ++slab)
    for (const Block* block = blocks; block < blocks + block_count; ++block)
      loops().multiply(
          x, from.data(), y + block->first, to.data(), count,
          packed +
              (block->first * taps.starts.size() + slab * some * block->vectors * loops().lanes) *
                  taps.run,
          {taps.starts.data() + slab * some, some, taps.run}, block->vectors, slab > 0);
}

// One element of a kernel in either format.
float element(const void* kernel, int64_t place, Format format) {
  if (format == Format::float32) return static_cast<const float*>(kernel)[place];
  const uint32_t high = static_cast<uint32_t>(static_cast<const uint16_t*>(kernel)[place]) << 16;
  float value;
  std::memcpy(&value, &high, sizeof value);
  return value;
}

// Copies `count` neighbouring elements of a kernel, `step` floats apart.
void copy_kernel(const void* kernel, int64_t place, int64_t count, Format format, float* to,
                 int64_t step) {
  if (format == Format::float32 && step == 1) {
    std::memcpy(to, static_cast<const float*>(kernel) + place, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i * step] = element(kernel, place + i, format);
}

// Positions of a piece, as distances in floats.
std::vector<int64_t> distances(int64_t images, int64_t rows, int64_t columns, int64_t image_step,
                               int64_t row_step, int64_t column_step) {
  std::vector<int64_t> result;
  result.reserve(images * rows * columns);
  for (int64_t i = 0; i < images; ++i)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        result.push_back(i * image_step + r * row_step + c * column_step);
  return result;
}

// The segments for some rows and columns of a kernel; `run` channels of a group are read.
Taps make_taps(const std::vector<int64_t>& rows, int64_t first_column, int64_t columns,
               int64_t row_step, int64_t column_step, int64_t run) {
  Taps taps;
  if (run == column_step) {
    taps.run = columns * run, taps.slabs = 1;
    for (int64_t row : rows) taps.starts.push_back(row * row_step + first_column * column_step);
    return taps;
  }
  taps.run = run % kSlab == 0 ? kSlab : run;
  taps.slabs = run / taps.run;
  for (int64_t slab = 0; slab < taps.slabs; ++slab)
    for (int64_t row : rows)
      for (int64_t c = 0; c < columns; ++c)
        taps.starts.push_back(row * row_step + (first_column + c) * column_step + slab * taps.run);
  return taps;
}

std::vector<int64_t> numbers(int64_t count) {
  std::vector<int64_t> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = i;
  return result;
}

// Adds up rows of floats in their order, in double.
void add_rows(const float* rows, int64_t count, int64_t step, int64_t length, float* to) {
  for (int64_t i = 0; i < length; ++i) {
    double sum = 0;
    for (int64_t r = 0; r < count; ++r) sum += rows[r * step + i];
    to[i] = static_cast<float>(sum);
  }
}

}  // namespace

const Loops& loops() {
  static const Loops& best = []() -> const Loops& {
#ifdef __x86_64__
    const char* wanted = std::getenv("RESFLAX_KERNELS_ISA");
    const auto allowed = [&](const char* name) {
      return !wanted || !*wanted || !std::strcmp(wanted, name);
    };
    const Processor processor;
    if (allowed("avx512") && processor.avx512) return avx512_loops;
    if ((allowed("avx2") || allowed("avx512")) && processor.avx2) return avx2_loops;
#endif
    return baseline_loops;
  }();
  return best;
}

void forward(const Forward& call, const Pool& pool) {
  const Shape& s = call.shape;
  const Loops& l = loops();
  const int64_t out_height = s.out_height(), out_width = s.out_width();
  const int64_t positions = s.batch * out_height * out_width;
  if (!positions) {
    if (call.sums) std::memset(call.sums, 0, 2 * s.outputs * sizeof(float));
    return;
  }
  const Input input(s, call.maps, call.activation);
  const int64_t group_inputs = s.group_inputs(), group_outputs = s.group_outputs();
  const std::vector<Block> blocks = blocks_of(group_outputs, l.lanes);
  const int64_t padded = round_up(group_outputs, l.lanes);
  // A register that reaches over a group's end is overwritten by the next group.
  const bool to_y = s.format == Format::float32 && padded == group_outputs;
  const int64_t y_step = s.outputs - group_outputs + padded;
  const Taps taps =
      make_taps(numbers(s.size), 0, s.size, input.row_step(), input.step, group_inputs);
  const int64_t length = taps.length();
  const Pieces pieces(s, s.stride * input.row_step() + out_width * y_step);
  const std::vector<int64_t> from =
      distances(pieces.images, pieces.rows, out_width, input.image_step(pieces),
                s.stride * input.row_step(), s.stride * input.step);
  const std::vector<int64_t> to =
      distances(1, 1, pieces.images * pieces.rows * out_width, 0, 0, y_step);

  thread_local Buffer kernel_buffer, sums_buffer;
  float* packed = kernel_buffer.floats(s.groups * length * padded);
  in_parallel(pool, s.groups * static_cast<int64_t>(blocks.size()), [&](int64_t number) {
    const int64_t group = number / blocks.size();
    const Block& block = blocks[number % blocks.size()];
    const int64_t width = block.vectors * l.lanes;
    const int64_t some = std::min(width, group_outputs - block.first);
    float* line = packed + (group * padded + block.first) * length;
    for (size_t segment = 0; segment < taps.starts.size(); ++segment) {
      const int64_t first = taps.in_order(segment);
      for (int64_t i = first; i < first + taps.run; ++i, line += width) {
        const int64_t place = i * s.outputs + group * group_outputs + block.first;
        copy_kernel(call.kernel, place, some, s.format, line, 1);
        std::memset(line + some, 0, (width - some) * sizeof(float));
      }
    }
  });
  float* sums = call.sums ? sums_buffer.floats(pieces.count() * 2 * s.outputs) : nullptr;

  // If there are fewer pieces than threads, each computes the outputs of a piece in slices.
  const int64_t slices = s.groups > 1 ? 1
                                      : std::clamp<int64_t>(ceil_div(pool.threads, pieces.count()),
                                                            1, static_cast<int64_t>(blocks.size()));
  in_parallel(pool, pieces.count() * slices, [&](int64_t number) {
    thread_local Buffer x_buffer, y_buffer;
    const int64_t slice = number % slices;
    number /= slices;
    const Block* first_block = blocks.data() + slice * blocks.size() / slices;
    const int64_t block_count = blocks.data() + (slice + 1) * blocks.size() / slices - first_block;
    const int64_t channel = first_block->first;
    const int64_t end = slice + 1 < slices ? first_block[block_count].first : s.outputs;
    const Piece piece(pieces, number);
    const int64_t count = piece.images * piece.rows * out_width;
    const float* x = input.read(pieces, piece, x_buffer);
    const int64_t first = (piece.image * out_height + piece.row) * out_width * s.outputs;
    float* y = to_y ? static_cast<float*>(call.y) + first
                    : y_buffer.floats(pieces.images * pieces.rows * out_width * y_step);
    for (int64_t group = 0; group < s.groups; ++group)
      multiply(x + group * group_inputs, from, y + group * group_outputs, to, count,
               packed + group * padded * length, taps, first_block, block_count);
    float* own = sums ? sums + number * 2 * s.outputs + channel : nullptr;
    if (own) {
      std::memset(own, 0, (end - channel) * sizeof(float));
      std::memset(own + s.outputs, 0, (end - channel) * sizeof(float));
    }
    if (!to_y || own)
      l.finish(y + channel, y_step, count, end - channel, s.format,
               advance(call.y, first + channel, s.format), s.outputs, own,
               own ? own + s.outputs : nullptr);
  });
  if (sums) add_rows(sums, pieces.count(), 2 * s.outputs, 2 * s.outputs, call.sums);
}

namespace {

// The part of a convolution's gradient that reaches the rows and columns of the images which have
// the same remainders by the stride. It is a convolution of the gradient with a part of the kernel.
struct Phase {
  int64_t row, column;                 // the remainders
  std::vector<int64_t> rows, columns;  // of the kernel, in the order of the gradient's places
  Taps taps;
  int64_t packed;  // where its packed kernel begins
  std::vector<int64_t> from, to;
  int64_t width;  // positions in a row
};

}  // namespace

void backward(const Backward& call, const Pool& pool) {
  const Shape& s = call.shape;
  const Loops& l = loops();
  const int64_t out_height = s.out_height(), out_width = s.out_width(), pad = s.pad();
  const int64_t group_inputs = s.group_inputs(), group_outputs = s.group_outputs();
  const int64_t places = s.size * s.size;
  const bool of_maps = !call.of_maps.empty(), scaled = call.activation.factor != nullptr;
  if (s.batch * out_height * out_width == 0) {
    std::memset(call.of_kernel, 0, places * group_inputs * s.outputs * bytes(s.format));
    if (scaled) {
      std::memset(call.of_factor, 0, s.inputs * sizeof(float));
      std::memset(call.of_offset, 0, s.inputs * sizeof(float));
    }
    return;
  }

  // The window of the maps, and that of the gradient with all places that reach the same rows.
  const Input input(s, call.maps, call.activation);
  const int64_t before = pad / s.stride, after = (s.stride - 1 + pad) / s.stride;
  const int64_t g_step = channel_step(s.outputs), g_columns = before + out_width + after;
  const int64_t padded_inputs = round_up(group_inputs, l.lanes);
  const int64_t padded_outputs = round_up(group_outputs, l.lanes);
  const bool to_maps = of_maps && s.format == Format::float32 && call.maps.size() == 1 &&
                       padded_inputs == group_inputs && !is_active(call.activation);
  const int64_t d_step = s.inputs - group_inputs + padded_inputs;

  const Pieces pieces(s, s.stride * input.row_step() + g_columns * g_step);
  const int64_t x_image = input.image_step(pieces);
  const int64_t g_rows = before + pieces.rows + after, g_image = g_rows * g_columns * g_step;
  const int64_t d_rows = pieces.rows * s.stride;
  const int64_t d_image = (to_maps ? s.height : d_rows) * s.width * d_step;

  // The kernel, turned: for every phase, group and block of inputs.
  const std::vector<Block> blocks = blocks_of(group_inputs, l.lanes);
  std::vector<Phase> phases;
  int64_t packed_floats = 0;
  for (int64_t i = 0; of_maps && i < s.stride * s.stride; ++i) {
    Phase phase;
    phase.row = i / s.stride, phase.column = i % s.stride;
    if (phase.column >= s.width) continue;
    for (int64_t k = s.size - 1; k >= 0; --k) {
      if ((phase.row + pad - k) % s.stride == 0) phase.rows.push_back(k);
      if ((phase.column + pad - k) % s.stride == 0) phase.columns.push_back(k);
    }
    if (phase.rows.empty() || phase.columns.empty()) continue;
    std::vector<int64_t> rows;
    for (int64_t k : phase.rows) rows.push_back((phase.row + pad - k) / s.stride + before);
    const int64_t column = (phase.column + pad - phase.columns[0]) / s.stride + before;
    phase.taps =
        make_taps(rows, column, phase.columns.size(), g_columns * g_step, g_step, group_outputs);
    phase.packed = packed_floats;
    packed_floats += s.groups * padded_inputs * phase.taps.length();
    phase.width = ceil_div(s.width - phase.column, s.stride);
    const int64_t rows_of_phase = ceil_div(std::min(d_rows, s.height) - phase.row, s.stride);
    phase.from =
        distances(pieces.images, rows_of_phase, phase.width, g_image, g_columns * g_step, g_step);
    phase.to = distances(pieces.images, rows_of_phase, phase.width, d_image,
                         s.stride * s.width * d_step, s.stride * d_step);
    for (int64_t& place : phase.to) place += (phase.row * s.width + phase.column) * d_step;
    phases.push_back(std::move(phase));
  }
  const bool has_gaps = static_cast<int64_t>(phases.size()) < s.stride * s.stride;

  thread_local Buffer kernel_buffer, sums_buffer, moments_buffer;
  float* packed = kernel_buffer.floats(packed_floats);
  const int64_t per_phase = s.groups * static_cast<int64_t>(blocks.size());
  in_parallel(pool, per_phase * static_cast<int64_t>(phases.size()), [&](int64_t number) {
    const Phase& phase = phases[number / per_phase];
    const int64_t group = number % per_phase / blocks.size();
    const Block& block = blocks[number % blocks.size()];
    const int64_t width = block.vectors * l.lanes;
    const int64_t some = std::min(width, group_inputs - block.first);
    const int64_t length = phase.taps.length();
    const Taps& taps = phase.taps;
    const int64_t columns = phase.columns.size();
    float* lines = packed + phase.packed + (group * padded_inputs + block.first) * length;
    if (some < width) std::memset(lines, 0, length * width * sizeof(float));
    for (size_t row = 0; row < phase.rows.size(); ++row)
      for (int64_t column = 0; column < columns; ++column)
        for (int64_t slab = 0; slab < taps.slabs; ++slab) {
          const int64_t outputs = group_outputs / taps.slabs;
          const int64_t tap = row * columns + column;
          float* line = lines + (slab * taps.per_slab() * taps.run + tap * outputs) * width;
          for (int64_t i = 0; i < some; ++i) {
            const int64_t place =
                ((phase.rows[row] * s.size + phase.columns[column]) * group_inputs + block.first +
                 i) *
                s.outputs;
            copy_kernel(call.kernel, place + group * group_outputs + slab * outputs, outputs,
                        s.format, line + i, width);
          }
        }
  });

  // The kernel's gradient: `parts` sums over different images, each in `slices` of the outputs.
  const Taps taps =
      make_taps(numbers(s.size), 0, s.size, input.row_step(), input.step, group_inputs);
  const int64_t sum_floats = s.groups * taps.length() * padded_outputs;
  int64_t parts = kMostParts;
  while (parts > 1 && (parts > pieces.groups_of_images || parts * sum_floats > kMostSums))
    parts /= 2;
  const int64_t registers = padded_outputs / l.lanes;
  const int64_t slices = std::clamp<int64_t>(ceil_div(pool.threads, parts), 1, registers);
  float* sums = sums_buffer.floats(parts * sum_floats);
  float* moments = scaled ? moments_buffer.floats(pieces.count() * 2 * s.inputs) : nullptr;
  const bool with_sums = call.gradient_of_sums != nullptr;
  std::vector<float> slope(with_sums ? s.outputs : 0);
  for (size_t i = 0; i < slope.size(); ++i) slope[i] = 2 * call.gradient_of_sums[s.outputs + i];

  in_parallel(pool, parts * slices, [&](int64_t number) {
    thread_local Buffer x_buffer, g_buffer, d_buffer;
    const int64_t part = number / slices, slice = number % slices;
    const int64_t first_output = slice * registers / slices * l.lanes;
    const int64_t outputs = (slice + 1) * registers / slices * l.lanes - first_output;
    float* sum = sums + part * sum_floats;
    for (int64_t i = 0; i < sum_floats / padded_outputs; ++i)
      std::memset(sum + i * padded_outputs + first_output, 0, outputs * sizeof(float));
    float* g = g_buffer.floats(pieces.images * g_image + kSlack);
    const int64_t end = (part + 1) * pieces.groups_of_images / parts * pieces.per_image;
    for (int64_t p = part * pieces.groups_of_images / parts * pieces.per_image; p < end; ++p) {
      const Piece piece(pieces, p);
      for (int64_t i = 0; i < piece.images; ++i) {
        const int64_t image = (piece.image + i) * out_height * out_width;
        fill({piece.row - before, before + piece.rows + after, before, g_columns}, out_height,
             out_width, g_step, g + i * g_image, [&](int64_t row, int64_t count, float* line) {
               const int64_t place = (image + row * out_width) * s.outputs;
               const char* gradient = advance(call.gradient, place, s.format);
               if (with_sums)
                 l.combine(gradient, advance(call.y, place, s.format), s.format, count, s.outputs,
                           call.gradient_of_sums, slope.data(), line, g_step);
               else
                 l.prepare(gradient, s.format, count, s.outputs, {nullptr, nullptr, false}, line,
                           g_step);
             });
      }

      const float* x = input.read(pieces, piece, x_buffer);
      const float* inner = g + (before * g_columns + before) * g_step;
      const int64_t some_images =
          std::clamp<int64_t>(kGradientPositions / (piece.rows * out_width), 1, piece.images);
      const int64_t some_rows = std::clamp<int64_t>(kGradientPositions / out_width, 1, piece.rows);
      for (int64_t i = 0; i < piece.images; i += some_images)
        for (int64_t r = 0; r < piece.rows; r += some_rows) {
          const int64_t images = std::min(some_images, piece.images - i);
          const int64_t rows = std::min(some_rows, piece.rows - r);
          const Places of_x{
              images, rows, out_width, x_image, s.stride * input.row_step(), s.stride * input.step};
          const Places of_g{images, rows, out_width, g_image, g_columns * g_step, g_step};
          const float* some_x = x + i * x_image + r * s.stride * input.row_step();
          const float* some_g = inner + i * g_image + r * g_columns * g_step + first_output;
          for (int64_t group = 0; group < s.groups; ++group)
            for (int64_t o = 0; o < outputs; o += kSlab)
              for (size_t t = 0; t < taps.starts.size(); ++t)
                l.outer(some_x + group * group_inputs + taps.starts[t], of_x,
                        some_g + group * group_outputs + o, of_g,
                        sum + (group * taps.length() + taps.in_order(t)) * padded_outputs +
                            first_output + o,
                        taps.run, std::min(kSlab, outputs - o), padded_outputs);
        }

      if (!of_maps || p % slices != slice) continue;
      const int64_t first_row = piece.row * s.stride;
      const int64_t rows = std::min(piece.rows * s.stride, s.height - first_row);
      const int64_t first = (piece.image * s.height + first_row) * s.width;
      float* d = to_maps ? static_cast<float*>(call.of_maps[0]) + first * s.inputs
                         : d_buffer.floats(pieces.images * d_image + kSlack);
      if (has_gaps)
        for (int64_t i = 0; i < piece.images; ++i)
          std::memset(d + i * d_image, 0, rows * s.width * d_step * sizeof(float));
      for (const Phase& phase : phases) {
        // A last piece of fewer rows has the same first positions; several images are whole.
        const int64_t count = piece.images * ceil_div(rows - phase.row, s.stride) * phase.width;
        for (int64_t group = 0; group < s.groups; ++group)
          multiply(g + group * group_outputs, phase.from, d + group * group_inputs, phase.to, count,
                   packed + phase.packed + group * padded_inputs * phase.taps.length(), phase.taps,
                   blocks.data(), blocks.size());
      }
      if (to_maps) continue;
      float* own = scaled ? moments + p * 2 * s.inputs : nullptr;
      if (own) std::memset(own, 0, 2 * s.inputs * sizeof(float));
      int64_t channel = 0;
      for (size_t m = 0; m < call.maps.size(); ++m) {
        const int64_t channels = call.maps[m].channels;
        for (int64_t i = 0; i < piece.images; ++i) {
          const int64_t place = (first + i * s.height * s.width) * channels;
          l.unprepare(d + i * d_image + channel, d_step,
                      advance(call.maps[m].data, place, s.format), s.format, rows * s.width,
                      channels, from_channel(call.activation, channel),
                      advance(call.of_maps[m], place, s.format), own ? own + channel : nullptr,
                      own ? own + s.inputs + channel : nullptr);
        }
        channel += channels;
      }
    }
  });
  if (scaled) {
    add_rows(moments, pieces.count(), 2 * s.inputs, s.inputs, call.of_factor);
    add_rows(moments + s.inputs, pieces.count(), 2 * s.inputs, s.inputs, call.of_offset);
  }
  // taps.length() counts the places of the kernel and their inputs, in the kernel's own order.
  const int64_t lines = taps.length(), share = 64;
  in_parallel(pool, ceil_div(lines, share), [&](int64_t number) {
    for (int64_t i = number * share; i < std::min(lines, (number + 1) * share); ++i)
      for (int64_t group = 0; group < s.groups; ++group) {
        float* line = sums + (group * lines + i) * padded_outputs;
        for (int64_t part = 1; part < parts; ++part) {
          const float* more = line + part * sum_floats;
          for (int64_t o = 0; o < group_outputs; ++o) line[o] += more[o];
        }
        l.finish(line, padded_outputs, 1, group_outputs, s.format,
                 advance(call.of_kernel, i * s.outputs + group * group_outputs, s.format),
                 s.outputs, nullptr, nullptr);
      }
  });
}

}  // namespace resflax
