// Runs the kernels without JAX over random shapes, and compares them with plain loops in double.
//
// usage: kernels_driver CASES SEED
//
// Three threads work on the cases at once, with one pool. Each case is computed with the pool and
// alone, and both must be equal to the bit. All arrays have exactly the size that they need, so
// that a sanitizer notices whoever reads or writes beyond them. Exits with 1 at the first
// difference.

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "convolution.h"

namespace {

using resflax::Activation;
using resflax::Format;
using resflax::Maps;
using resflax::Pool;
using resflax::Shape;

class Threads {
 public:
  explicit Threads(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Threads() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  Pool pool() {
    return {static_cast<int64_t>(threads_.size()), [this](std::function<void()> task) {
              std::lock_guard<std::mutex> lock(mutex_);
              tasks_.push_back(std::move(task));
              changed_.notify_one();
            }};
  }

 private:
  void work() {
    while (true) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::vector<std::thread> threads_;
  std::deque<std::function<void()>> tasks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
};

Pool alone() {
  return {1, [](std::function<void()>) { std::abort(); }};
}

// Numbers in memory, in one of the formats. The memory ends with the last of them.
class Numbers {
 public:
  Numbers(Format format, int64_t count)
      : format_(format), count_(count), memory_(std::malloc(std::max<int64_t>(bytes(), 1))) {
    std::memset(memory_, 0xff, bytes());  // not a number, so that nothing stays unwritten unnoticed
  }
  Numbers(const Numbers&) = delete;
  ~Numbers() { std::free(memory_); }

  void* data() const { return memory_; }
  int64_t count() const { return count_; }
  size_t bytes() const { return count_ * (format_ == Format::float32 ? 4 : 2); }
  double at(int64_t i) const {
    if (format_ == Format::float32) return static_cast<const float*>(memory_)[i];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(memory_)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  void set(int64_t i, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (format_ == Format::float32)
      static_cast<float*>(memory_)[i] = value;
    else
      static_cast<uint16_t*>(memory_)[i] = static_cast<uint16_t>(bits >> 16);
  }
  template <typename Random>
  void draw(Random& random) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count_; ++i) set(i, normal(random));
  }

 private:
  const Format format_;
  const int64_t count_;
  void* const memory_;
};

// Sums of products, and of their magnitudes, by which rounding is judged.
struct Sums {
  std::vector<double> values, magnitudes;

  explicit Sums(int64_t count) : values(count), magnitudes(count) {}
  void add(int64_t i, double value, double magnitude) {
    values[i] += value;
    magnitudes[i] += magnitude;
  }
};

struct Case {
  Shape shape;
  std::vector<int64_t> channels;  // of each array of maps
  bool scaled, relu, sums, gradient_of_sums, gradient_of_maps;
};

template <typename Random>
Case draw_case(Random& random) {
  const auto among = [&](std::vector<int64_t> values) { return values[random() % values.size()]; };
  Case c;
  Shape& s = c.shape;
  s.format = random() % 3 ? Format::float32 : Format::bfloat16;
  s.size = among({1, 1, 3, 3, 3, 5, 7});
  s.stride = among({1, 1, 1, 2, 2, 3});
  s.groups = among({1, 1, 1, 2, 3, 8});
  s.batch = among({0, 1, 1, 2, 3, 5, 20});
  s.height = 1 + random() % 13, s.width = 1 + random() % 13;
  const auto inputs = among({1, 2, 3, 4, 7, 8, 12, 16, 17, 33, 64});
  const auto outputs = among({1, 2, 3, 5, 8, 12, 16, 24, 31, 48, 64, 80});
  s.inputs = s.groups * std::max<int64_t>(1, inputs / s.groups);
  s.outputs = s.groups * std::max<int64_t>(1, outputs / s.groups);
  for (int64_t left = s.inputs; left;) {
    c.channels.push_back(random() % 2 ? left : 1 + static_cast<int64_t>(random() % left));
    left -= c.channels.back();
  }
  c.scaled = random() % 2, c.relu = random() % 2, c.sums = random() % 2;
  c.gradient_of_sums = random() % 2, c.gradient_of_maps = c.scaled || random() % 4;
  return c;
}

std::string describe(const Case& c) {
  const Shape& s = c.shape;
  char text[300];
  std::snprintf(text, sizeof text,
                "batch %ld, %ldx%ld, %ld to %ld channels (%zu arrays), kernel %ld, stride %ld, "
                "groups %ld, %s%s%s%s%s%s",
                long(s.batch), long(s.height), long(s.width), long(s.inputs), long(s.outputs),
                c.channels.size(), long(s.size), long(s.stride), long(s.groups),
                s.format == Format::float32 ? "float32" : "bfloat16", c.scaled ? ", scaled" : "",
                c.relu ? ", relu" : "", c.sums ? ", sums" : "",
                c.gradient_of_sums ? ", gradient of sums" : "",
                c.gradient_of_maps ? ", gradient of maps" : "");
  return text;
}

bool close(const char* what, const Case& c, const Numbers& found, const Sums& expected) {
  const double tolerance = c.shape.format == Format::float32 ? 1e-5 : 1.5e-2;
  for (int64_t i = 0; i < found.count(); ++i) {
    const double error = std::abs(found.at(i) - expected.values[i]);
    if (error <= tolerance * expected.magnitudes[i]) continue;  // false if it is not a number
    std::printf("%s[%ld] is %g and not %g: %s\n", what, long(i), found.at(i), expected.values[i],
                describe(c).c_str());
    return false;
  }
  return true;
}

bool same(const char* what, const Case& c, const Numbers& a, const Numbers& b) {
  if (!std::memcmp(a.data(), b.data(), a.bytes())) return true;
  std::printf("%s depends on the number of threads: %s\n", what, describe(c).c_str());
  return false;
}

using List = std::vector<std::unique_ptr<Numbers>>;

// The results of a case.
struct Results {
  Numbers y, sums, of_kernel, of_factor, of_offset;
  List of_maps;

  explicit Results(const Case& c)
      : y(c.shape.format,
          c.shape.batch * c.shape.out_height() * c.shape.out_width() * c.shape.outputs),
        sums(Format::float32, c.sums ? 2 * c.shape.outputs : 0),
        of_kernel(c.shape.format,
                  c.shape.size * c.shape.size * c.shape.group_inputs() * c.shape.outputs),
        of_factor(Format::float32, c.scaled ? c.shape.inputs : 0),
        of_offset(Format::float32, c.scaled ? c.shape.inputs : 0) {
    if (!c.gradient_of_maps) return;
    for (const int64_t channels : c.channels)
      of_maps.push_back(std::make_unique<Numbers>(
          c.shape.format, c.shape.batch * c.shape.height * c.shape.width * channels));
  }
};

// Compares results with plain loops.
bool compare(const Case& c, const List& maps, const Numbers& kernel, const Numbers& factor,
             const Numbers& offset, const Numbers& gradient, const Numbers& of_sums,
             const Results& found) {
  const Shape& s = c.shape;
  const int64_t places = s.batch * s.height * s.width, rows = s.out_height(),
                columns = s.out_width();
  std::vector<double> x(places * s.inputs), active(x.size()), magnitude(x.size());
  for (int64_t p = 0; p < places; ++p)
    for (int64_t i = 0, array = 0, within = 0; i < s.inputs; ++i) {
      const int64_t at = p * s.inputs + i;
      x[at] = maps[array]->at(p * c.channels[array] + within);
      active[at] = c.scaled ? x[at] * factor.at(i) + offset.at(i) : x[at];
      magnitude[at] =
          c.scaled ? std::abs(x[at] * factor.at(i)) + std::abs(offset.at(i)) : std::abs(x[at]);
      if (c.relu && !(active[at] > 0)) active[at] = 0;
      if (++within == c.channels[array]) ++array, within = 0;
    }

  Sums y(found.y.count()), sums(2 * s.outputs), of_kernel(kernel.count()), of_active(x.size());
  // Calls f(output, input, kernel) with the indices of every product of the convolution.
  const auto products = [&](const auto& f) {
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          for (int64_t r = 0; r < s.size; ++r)
            for (int64_t t = 0; t < s.size; ++t) {
              const int64_t h = i * s.stride + r - s.pad(), w = j * s.stride + t - s.pad();
              if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
              for (int64_t o = 0; o < s.outputs; ++o) {
                const int64_t begin = o / s.group_outputs() * s.group_inputs();
                for (int64_t k = 0; k < s.group_inputs(); ++k)
                  f(((n * rows + i) * columns + j) * s.outputs + o,
                    ((n * s.height + h) * s.width + w) * s.inputs + begin + k,
                    ((r * s.size + t) * s.group_inputs() + k) * s.outputs + o);
              }
            }
  };
  products([&](int64_t to, int64_t from, int64_t k) {
    y.add(to, active[from] * kernel.at(k), magnitude[from] * std::abs(kernel.at(k)));
  });
  if (!close("y", c, found.y, y)) return false;

  std::vector<double> of_y(y.values.size()), of_y_magnitude(of_y.size());
  for (int64_t p = 0; p < found.y.count(); ++p) {
    const int64_t o = p % s.outputs;
    const double value = y.values[p], most = y.magnitudes[p];
    sums.add(o, value, most);
    sums.add(s.outputs + o, value * value, most * most);
    of_y[p] = gradient.at(p), of_y_magnitude[p] = std::abs(of_y[p]);
    if (!c.gradient_of_sums) continue;
    const double slope = 2 * of_sums.at(s.outputs + o);
    of_y[p] += of_sums.at(o) + slope * found.y.at(p);
    of_y_magnitude[p] += std::abs(of_sums.at(o)) + std::abs(slope * found.y.at(p));
  }
  if (!close("sums", c, found.sums, sums)) return false;

  products([&](int64_t to, int64_t from, int64_t k) {
    of_kernel.add(k, active[from] * of_y[to], magnitude[from] * of_y_magnitude[to]);
    of_active.add(from, kernel.at(k) * of_y[to], std::abs(kernel.at(k)) * of_y_magnitude[to]);
  });
  if (!close("of_kernel", c, found.of_kernel, of_kernel)) return false;

  Sums of_factor(s.inputs), of_offset(s.inputs);
  for (int64_t at = 0; at < places * s.inputs; ++at) {
    const int64_t i = at % s.inputs;
    double& value = of_active.values[at];
    if (c.relu && !(active[at] > 0)) value = 0;
    of_factor.add(i, value * x[at], of_active.magnitudes[at] * std::abs(x[at]));
    of_offset.add(i, value, of_active.magnitudes[at]);
    if (!c.scaled) continue;
    value *= factor.at(i);
    of_active.magnitudes[at] *= std::abs(factor.at(i));
  }
  if (!close("of_factor", c, found.of_factor, of_factor)) return false;
  if (!close("of_offset", c, found.of_offset, of_offset)) return false;
  int64_t begin = 0;
  for (size_t array = 0; array < found.of_maps.size(); ++array) {
    Sums part(0);
    for (int64_t p = 0; p < places; ++p)
      for (int64_t i = begin; i < begin + c.channels[array]; ++i) {
        part.values.push_back(of_active.values[p * s.inputs + i]);
        part.magnitudes.push_back(of_active.magnitudes[p * s.inputs + i]);
      }
    begin += c.channels[array];
    if (!close("of_maps", c, *found.of_maps[array], part)) return false;
  }
  return true;
}

template <typename Random>
bool check(const Case& c, Random& random, const Pool& pool) {
  const Shape& s = c.shape;
  List maps;
  for (const int64_t channels : c.channels) {
    maps.push_back(std::make_unique<Numbers>(s.format, s.batch * s.height * s.width * channels));
    maps.back()->draw(random);
  }
  Numbers kernel(s.format, s.size * s.size * s.group_inputs() * s.outputs);
  Numbers factor(Format::float32, c.scaled ? s.inputs : 0), offset(Format::float32, factor.count());
  Results first(c), second(c);
  Numbers gradient(s.format, first.y.count());
  Numbers of_sums(Format::float32, c.gradient_of_sums ? 2 * s.outputs : 0);
  for (Numbers* drawn : {&kernel, &factor, &offset, &gradient, &of_sums}) drawn->draw(random);
  const auto floats = [](const Numbers& n) {
    return n.count() ? static_cast<float*>(n.data()) : nullptr;
  };

  for (Results* to : {&first, &second}) {
    const Pool used = to == &first ? pool : alone();
    resflax::Forward forward{};
    forward.shape = s;
    forward.activation = Activation{floats(factor), floats(offset), c.relu};
    for (size_t i = 0; i < maps.size(); ++i)
      forward.maps.push_back({maps[i]->data(), c.channels[i]});
    forward.kernel = kernel.data();
    forward.y = to->y.data();
    forward.sums = floats(to->sums);
    resflax::forward(forward, used);

    resflax::Backward backward{};
    backward.shape = s;
    backward.activation = forward.activation;
    backward.maps = forward.maps;
    backward.kernel = kernel.data();
    backward.gradient = gradient.data();
    backward.y = c.gradient_of_sums ? to->y.data() : nullptr;
    backward.gradient_of_sums = floats(of_sums);
    backward.of_kernel = to->of_kernel.data();
    backward.of_factor = floats(to->of_factor);
    backward.of_offset = floats(to->of_offset);
    for (const auto& of_one : to->of_maps) backward.of_maps.push_back(of_one->data());
    resflax::backward(backward, used);
  }

  bool right = same("y", c, first.y, second.y) && same("sums", c, first.sums, second.sums) &&
               same("of_kernel", c, first.of_kernel, second.of_kernel) &&
               same("of_factor", c, first.of_factor, second.of_factor) &&
               same("of_offset", c, first.of_offset, second.of_offset);
  for (size_t i = 0; i < first.of_maps.size(); ++i)
    right = right && same("of_maps", c, *first.of_maps[i], *second.of_maps[i]);
  return right && compare(c, maps, kernel, factor, offset, gradient, of_sums, first);
}

}  // namespace

int main(int, char** arguments) {
  const int cases = std::atoi(arguments[1]), seed = std::atoi(arguments[2]);
  Threads threads(4);
  std::atomic<bool> right{true};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&, caller] {
      for (int number = caller; number < cases && right; number += 3) {
        std::mt19937 random(seed * 100'000 + number);
        const Case drawn = draw_case(random);
        if (!check(drawn, random, threads.pool())) right = false;
      }
    });
  for (auto& caller : callers) caller.join();
  std::printf("%d cases with %s: %s\n", cases, resflax::loops().name, right ? "right" : "wrong");
  return right ? 0 : 1;
}
