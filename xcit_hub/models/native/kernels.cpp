// XCiT's operations between the matrix products, fused, for CPUs: float32, forward and backward.
//
// Every exported function has the signature of MindSpore's ahead-of-time custom operators: inputs first, then outputs, in
// `data`; row-major, contiguous. Rows below are tokens of C channels. Nothing here knows MindSpore otherwise.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace {

using std::int64_t;

// ---- threads ----------------------------------------------------------------------------------------------------

// OMP_NUM_THREADS is not asked: MindSpore sets it to 1 for its own reasons.
int64_t available_cores() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A team that sleeps between jobs: MindSpore's own threads need the cores then.
class Team {
 public:
  using Job = std::function<void(int64_t, int64_t)>;

  static Team& instance() {
    static Team* team = new Team(available_cores());  // never destroyed: its threads outlive static storage
    return *team;
  }

  int64_t size() const { return size_; }

  // Call job(first, last) for consecutive parts of [0, items), several at a time; return when all are done.
  void split(int64_t items, int64_t least, const Job& job) {
    const int64_t parts = std::min(4 * size_, items / std::max<int64_t>(least, 1));
    if (parts < 2 || size_ < 2 || working_) return job(0, items);
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return job(0, items);
    const auto round = std::make_shared<Round>(job, items, parts, announced_.load() + 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_ = round;
      announced_ = round->number;
    }
    wake_.notify_all();
    round->work();
    for (int spin = 0; round->done.load(std::memory_order_acquire) < parts; ++spin) {
      spin < kPatience ? relax() : std::this_thread::yield();  // others may want this core, that worker among them
    }
  }

 private:
  // A worker that wakes late finds no part left and never touches the job, which is gone by then.
  struct Round {
    Round(const Job& job, int64_t items, int64_t parts, int64_t number)
        : job(job), items(items), parts(parts), number(number) {}

    void work() {
      working_ = true;
      for (int64_t part; (part = next.fetch_add(1)) < parts;) {
        job(items * part / parts, items * (part + 1) / parts);
        done.fetch_add(1, std::memory_order_release);
      }
      working_ = false;
    }

    const Job& job;
    const int64_t items, parts, number;
    std::atomic<int64_t> next{0}, done{0};
  };

  explicit Team(int64_t size) : size_(size) {
    for (int64_t worker = 1; worker < size; ++worker) std::thread([this] { serve(); }).detach();
  }

  void serve() {
    std::shared_ptr<Round> seen;
    for (int64_t count = 0;; count = seen->number) {
      // The next job often comes at once; waking up takes longer than that.
      for (int spin = 0; spin < kPatience && announced_.load(std::memory_order_relaxed) == count; ++spin) relax();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ && round_->number != count; });
        seen = round_;
      }
      seen->work();
    }
  }

  static constexpr int kPatience = 2000;  // about 50 µs
  static thread_local bool working_;  // a job that splits its own work does it alone

  const int64_t size_;
  std::mutex turn_, mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Round> round_;
  std::atomic<int64_t> announced_{0};  // the number of round_
};

thread_local bool Team::working_ = false;

constexpr int64_t kLeastNumbers = 8192;  // below, waking a thread costs more than it does

void split_rows(int64_t rows, int64_t channels, const std::function<void(int64_t, int64_t)>& job) {
  Team::instance().split(rows, std::max<int64_t>(1, kLeastNumbers / channels), job);
}

// Sums over all rows, in an order that does not depend on timing: job(first, last, sums) adds its rows to sums (width
// zeros), in blocks that the number of rows alone decides.
template <class Job>
void sum_rows(int64_t rows, int64_t width, float* total, const Job& job) {
  const int64_t blocks = std::max<int64_t>(1, std::min<int64_t>(64, rows / 32));
  std::vector<float> sums(blocks * width, 0.0f);
  Team::instance().split(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      job(rows * block / blocks, rows * (block + 1) / blocks, &sums[block * width]);
    }
  });
  std::fill(total, total + width, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t c = 0; c < width; ++c) total[c] += sums[block * width + c];
  }
}

// ---- arguments --------------------------------------------------------------------------------------------------

struct Arguments {
  void** data;
  int* ranks;
  int64_t** shapes;

  float* floats(int index) const { return static_cast<float*>(data[index]); }
  int64_t dim(int index, int axis) const { return shapes[index][axis < 0 ? axis + ranks[index] : axis]; }
  int64_t size(int index) const {
    int64_t product = 1;
    for (int axis = 0; axis < ranks[index]; ++axis) product *= shapes[index][axis];
    return product;
  }
};

constexpr int kWrongType = 1;

// MindSpore may cast an operand on its way here (mixed precision does): numbers of another width must not be read as these.
bool readable(int count, const char** types) {
  return std::all_of(types, types + count, [](const char* type) {
    return std::strcmp(type, "float32") == 0 || std::strcmp(type, "int32") == 0;
  });
}

// ---- GELU -------------------------------------------------------------------------------------------------------

// eˣ to 1 unit in the last place or two, for any x; written so that compilers vectorise it.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 · 2²³: the integer part falls into the low bits
  const float whole = shifted - 12582912.0f;
  const float rest = x - whole * 0.693145752f - whole * 1.42860677e-6f;
  float series = 1.0f / 720;
  series = series * rest + 1.0f / 120;
  series = series * rest + 1.0f / 24;
  series = series * rest + 1.0f / 6;
  series = series * rest + 0.5f;
  series = series * rest + 1.0f;
  series = series * rest + 1.0f;
  std::int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

// Φ(−|x|) and e^(−x²/2). The complementary error function as in kernels.gelu_erf_from_exp.
inline void normal_tail(float x, float& tail, float& bell) {
  const float magnitude = std::fabs(x);
  const float t = 1.0f / (1.0f + 0.280887831f * magnitude);
  float series = -0.2131433393f * t + 0.7778267886f;
  series = series * t - 0.4737805633f;
  series = series * t + 0.541479707f;
  series = series * t + 0.1333510756f;
  series = series * t + 0.2342660044f;
  bell = exponential(-0.5f * x * x);
  tail = 0.5f * series * t * bell;
}

struct Erf {
  static float value(float x) {
    float tail, bell;
    normal_tail(x, tail, bell);
    return std::max(x, 0.0f) - std::fabs(x) * tail;
  }
  static float slope(float x) {
    float tail, bell;
    normal_tail(x, tail, bell);
    return (x > 0.0f ? 1.0f - tail : tail) + x * 0.398942280f * bell;
  }
};

struct Tanh {
  static float gate(float x) { return 1.0f / (1.0f + exponential(x * (-1.59576912f - 0.0713548163f * x * x))); }
  static float value(float x) { return x * gate(x); }
  static float slope(float x) {
    const float open = gate(x);
    return open + x * open * (1.0f - open) * (1.59576912f + 0.214064449f * x * x);
  }
};

template <class Form>
void gelu(const Arguments& a) {
  const float* x = a.floats(0);
  float* y = a.floats(1);
  Team::instance().split(a.size(0), kLeastNumbers, [=](int64_t first, int64_t last) {
#pragma omp simd
    for (int64_t i = first; i < last; ++i) y[i] = Form::value(x[i]);
  });
}

template <class Form>
void gelu_grad(const Arguments& a) {
  const float *x = a.floats(0), *dy = a.floats(1);
  float* dx = a.floats(2);
  Team::instance().split(a.size(0), kLeastNumbers, [=](int64_t first, int64_t last) {
#pragma omp simd
    for (int64_t i = first; i < last; ++i) dx[i] = dy[i] * Form::slope(x[i]);
  });
}

// ---- layer norm -------------------------------------------------------------------------------------------------

struct Moments {
  float mean, scale;  // scale is one over the standard deviation
};

inline Moments moments(const float* row, int64_t channels, float epsilon) {
  float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < channels; ++c) sum += row[c];
  const float mean = sum / channels;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < channels; ++c) squares += (row[c] - mean) * (row[c] - mean);
  return {mean, 1.0f / std::sqrt(squares / channels + epsilon)};
}

void layer_norm(const Arguments& a) {
  const float *x = a.floats(0), *gamma = a.floats(1), *beta = a.floats(2);
  const float epsilon = *a.floats(3);
  float* y = a.floats(4);
  const int64_t channels = a.dim(0, -1);
  split_rows(a.size(0) / channels, channels, [=](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* in = x + row * channels;
      float* out = y + row * channels;
      const Moments m = moments(in, channels, epsilon);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) out[c] = (in[c] - m.mean) * m.scale * gamma[c] + beta[c];
    }
  });
}

void layer_norm_grad(const Arguments& a) {
  const float *x = a.floats(0), *gamma = a.floats(1), *dy = a.floats(3);
  const float epsilon = *a.floats(2);
  float *dx = a.floats(4), *dgamma = a.floats(5), *dbeta = a.floats(6);
  const int64_t channels = a.dim(0, -1);
  std::vector<float> sums(2 * channels);
  sum_rows(a.size(0) / channels, 2 * channels, sums.data(), [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
      const float *in = x + row * channels, *up = dy + row * channels;
      float* out = dx + row * channels;
      const Moments m = moments(in, channels, epsilon);
      float mean = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : mean, along)
      for (int64_t c = 0; c < channels; ++c) {
        mean += up[c] * gamma[c];
        along += up[c] * gamma[c] * (in[c] - m.mean);
      }
      mean /= channels;
      along *= m.scale / channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float normed = (in[c] - m.mean) * m.scale;
        out[c] = m.scale * (up[c] * gamma[c] - mean - normed * along);
        sum[c] += up[c] * normed;
        sum[channels + c] += up[c];
      }
    }
  });
  std::copy_n(sums.begin(), channels, dgamma);
  std::copy_n(sums.begin() + channels, channels, dbeta);
}

// ---- residual branch with layer scale ---------------------------------------------------------------------------

void scaled_sum(const Arguments& a) {
  const float *x = a.floats(0), *branch = a.floats(1), *gamma = a.floats(2);
  float* y = a.floats(3);
  const int64_t channels = a.dim(0, -1);
  split_rows(a.size(0) / channels, channels, [=](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) y[at + c] = x[at + c] + gamma[c] * branch[at + c];
    }
  });
}

void scaled_sum_grad(const Arguments& a) {
  const float *branch = a.floats(0), *gamma = a.floats(1), *dy = a.floats(2);
  float *dbranch = a.floats(3), *dgamma = a.floats(4);
  const int64_t channels = a.dim(0, -1);
  sum_rows(a.size(0) / channels, channels, dgamma, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        dbranch[at + c] = gamma[c] * dy[at + c];
        sum[c] += branch[at + c] * dy[at + c];
      }
    }
  });
}

// ---- batch norm over rows, in training --------------------------------------------------------------------------

void batch_norm(const Arguments& a) {
  const float *x = a.floats(0), *gamma = a.floats(1), *beta = a.floats(2);
  const float epsilon = *a.floats(3);
  float *y = a.floats(4), *mean = a.floats(5), *variance = a.floats(6);
  const int64_t channels = a.dim(0, -1), rows = a.size(0) / channels;
  sum_rows(rows, channels, mean, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) sum[c] += x[row * channels + c];
    }
  });
  for (int64_t c = 0; c < channels; ++c) mean[c] /= rows;
  sum_rows(rows, channels, variance, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float apart = x[row * channels + c] - mean[c];
        sum[c] += apart * apart;
      }
    }
  });
  std::vector<float> scale(channels);
  for (int64_t c = 0; c < channels; ++c) {
    variance[c] /= rows;
    scale[c] = gamma[c] / std::sqrt(variance[c] + epsilon);
  }
  const float* factor = scale.data();
  split_rows(rows, channels, [=](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) y[at + c] = (x[at + c] - mean[c]) * factor[c] + beta[c];
    }
  });
}

void batch_norm_grad(const Arguments& a) {
  const float *x = a.floats(0), *gamma = a.floats(1), *mean = a.floats(2), *variance = a.floats(3);
  const float epsilon = *a.floats(4);
  const float* dy = a.floats(5);
  float *dx = a.floats(6), *dgamma = a.floats(7), *dbeta = a.floats(8);
  const int64_t channels = a.dim(0, -1), rows = a.size(0) / channels;
  std::vector<float> sums(2 * channels), scales(channels);
  for (int64_t c = 0; c < channels; ++c) scales[c] = 1.0f / std::sqrt(variance[c] + epsilon);
  const float* scale = scales.data();
  sum_rows(rows, 2 * channels, sums.data(), [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        sum[c] += dy[at + c] * (x[at + c] - mean[c]) * scale[c];
        sum[channels + c] += dy[at + c];
      }
    }
  });
  std::copy_n(sums.begin(), channels, dgamma);
  std::copy_n(sums.begin() + channels, channels, dbeta);
  split_rows(rows, channels, [=](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float normed = (x[at + c] - mean[c]) * scale[c];
        dx[at + c] = gamma[c] * scale[c] * (dy[at + c] - (dbeta[c] + normed * dgamma[c]) / rows);
      }
    }
  });
}

// ---- depth-wise 3×3 convolution of a grid (B, H, W, C) -------------------------------------------------------------

struct Grid {
  int64_t height, width, channels;
};

Grid grid_of(const Arguments& a) { return {a.dim(0, 1), a.dim(0, 2), a.dim(0, 3)}; }

// (C, 1, 3, 3) to (9, C): channels are what is contiguous in tokens.
std::vector<float> taps_first(const float* weight, int64_t channels) {
  std::vector<float> taps(9 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < 9; ++tap) taps[tap * channels + c] = weight[c * 9 + tap];
  }
  return taps;
}

// Call visit(tap, neighbour) for the taps of the window around (y, x) that lie inside the grid.
template <class Visit>
inline void window(const Grid& g, int64_t y, int64_t x, const Visit& visit) {
  for (int64_t down = -1; down <= 1; ++down) {
    if (y + down < 0 || y + down >= g.height) continue;
    for (int64_t right = -1; right <= 1; ++right) {
      if (x + right < 0 || x + right >= g.width) continue;
      visit((down + 1) * 3 + right + 1, (y + down) * g.width + x + right);
    }
  }
}

// One row of the grid: out(token) = bias + Σ taps · neighbours; flipped turns the window by half a turn.
void convolve_row(const Grid& g, int64_t y, const float* image, const float* taps, const float* bias, bool flipped,
                  float* out) {
  const int64_t channels = g.channels;
  for (int64_t x = 0; x < g.width; ++x) {
    float* to = out + x * channels;
    if (bias) {
      std::copy_n(bias, channels, to);
    } else {
      std::fill_n(to, channels, 0.0f);
    }
    if (y > 0 && y + 1 < g.height && x > 0 && x + 1 < g.width) {
      const float* from = image + ((y - 1) * g.width + x - 1) * channels;
      const int64_t line = g.width * channels;
      const int64_t turn = flipped ? -channels : channels;
      const float* tap = flipped ? taps + 8 * channels : taps;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        float sum = to[c];
        for (int64_t down = 0; down < 3; ++down) {
          for (int64_t right = 0; right < 3; ++right) {
            sum += from[down * line + right * channels + c] * tap[(down * 3 + right) * turn + c];
          }
        }
        to[c] = sum;
      }
    } else {
      window(g, y, x, [=](int64_t tap, int64_t token) {
        const float *from = image + token * channels, *weight = taps + (flipped ? 8 - tap : tap) * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] += from[c] * weight[c];
      });
    }
  }
}

void convolve(const Grid& g, int64_t images, const float* x, const float* weight, const float* bias, bool flipped,
              float* y) {
  const std::vector<float> taps = taps_first(weight, g.channels);
  split_rows(images * g.height, g.width * g.channels, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* image = x + row / g.height * g.height * g.width * g.channels;
      convolve_row(g, row % g.height, image, taps.data(), bias, flipped, y + row * g.width * g.channels);
    }
  });
}

void depthwise(const Arguments& a) {
  convolve(grid_of(a), a.dim(0, 0), a.floats(0), a.floats(1), a.floats(2), false, a.floats(3));
}

void depthwise_grad(const Arguments& a) {
  const float *x = a.floats(0), *dy = a.floats(2);
  float *dweight = a.floats(4), *dbias = a.floats(5);
  const Grid g = grid_of(a);
  const int64_t images = a.dim(0, 0), channels = g.channels;
  convolve(g, images, dy, a.floats(1), nullptr, true, a.floats(3));
  std::vector<float> sums(10 * channels);
  sum_rows(images * g.height, 10 * channels, sums.data(), [&](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
      const float* image = x + row / g.height * g.height * g.width * channels;
      for (int64_t column = 0; column < g.width; ++column) {
        const float* up = dy + (row * g.width + column) * channels;
        float* bias = sum + 9 * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) bias[c] += up[c];
        window(g, row % g.height, column, [=](int64_t tap, int64_t token) {
          const float* from = image + token * channels;
          float* to = sum + tap * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) to[c] += up[c] * from[c];
        });
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < 9; ++tap) dweight[c * 9 + tap] = sums[tap * channels + c];
    dbias[c] = sums[9 * channels + c];
  }
}

// ---- matrix products --------------------------------------------------------------------------------------------

// One register of floats; a tile of kTileRows × kTileVectors of them, and what it needs beside, fits the register file.
#ifdef __AVX512F__
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int kTileRows = 8, kTileVectors = 3;
#else
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int kTileRows = 4, kTileVectors = 3;
#endif
constexpr int64_t kLanes = sizeof(Lanes) / sizeof(float);
constexpr int64_t kTileWidth = kTileVectors * kLanes;
constexpr int64_t kDepth = 384;      // steps at a time: a panel of either factor then stays in the first caches
constexpr int64_t kBandTiles = 12;   // tiles of rows packed at a time

// Entry (i, j) stands at data[i · row + j · column].
struct Matrix {
  const float* data;
  int64_t row, column;

  Matrix at(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
  Matrix transposed() const { return {data, column, row}; }
};

// Panels of `width` rows of m, step after step, the last panel filled up with zeros.
void pack(const Matrix& m, int64_t rows, int64_t steps, int64_t width, float* panels) {
  for (int64_t first = 0; first < rows; first += width, panels += width * steps) {
    const int64_t count = std::min(width, rows - first);
    const float* from = m.data + first * m.row;
    if (count < width) std::fill_n(panels, width * steps, 0.0f);
    if (m.row == 1) {
      for (int64_t k = 0; k < steps; ++k) std::copy_n(from + k * m.column, count, panels + k * width);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t k = 0; k < steps; ++k) panels[k * width + i] = from[i * m.row + k * m.column];
      }
    }
  }
}

// A tile of C from one panel of each factor: c = [c +] a · b, whole tiles only.
void multiply_tile(const float* a, const float* b, int64_t steps, float* c, int64_t c_row, bool add) {
  Lanes sum[kTileRows][kTileVectors] = {};
  for (int64_t k = 0; k < steps; ++k, a += kTileRows, b += kTileWidth) {
    Lanes right[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) right[v] = *reinterpret_cast<const Lanes*>(b + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] += a[r] * right[v];
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) {
      Lanes* to = reinterpret_cast<Lanes*>(c + r * c_row + v * kLanes);
      *to = add ? *to + sum[r][v] : sum[r][v];
    }
  }
}

int64_t packed_size(int64_t width, int64_t depth) { return (width + kTileWidth - 1) / kTileWidth * kTileWidth * depth; }

// The right factor B (depth, width) as multiply_band reads it: chunks of kDepth steps, in each one panel after another.
void pack_right(const Matrix& b, int64_t width, int64_t depth, float* packed) {
  const int64_t panels = (width + kTileWidth - 1) / kTileWidth, chunks = (depth + kDepth - 1) / kDepth;
  Team::instance().split(chunks * panels, 4, [=](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t begin = item / panels * kDepth, steps = std::min(kDepth, depth - begin), panel = item % panels;
      pack(b.at(begin, panel * kTileWidth).transposed(), std::min(kTileWidth, width - panel * kTileWidth), steps,
           kTileWidth, packed + (begin * panels + panel * steps) * kTileWidth);
    }
  });
}

// Memory of this thread that outlives the call: fresh memory would be cleared page by page each time. One drawer for
// each use that may be open at the same time.
enum Drawer { kLeftPanels, kRightPanels, kFirst, kSecond, kDrawers };

float* scratch(Drawer drawer, int64_t floats) {
  static thread_local std::unique_ptr<float[]> drawers[kDrawers];
  static thread_local int64_t sizes[kDrawers] = {};
  if (sizes[drawer] < floats) {
    drawers[drawer].reset(new float[floats]);
    sizes[drawer] = floats;
  }
  return drawers[drawer].get();
}

// Some rows of C (rows, width) = A (rows, depth) · B, by this thread alone. left(row, count, step, steps, panels) packs a
// piece of A.
template <class Left>
void multiply_band(int64_t rows, int64_t width, int64_t depth, const Left& left, const float* right, float* c,
                   int64_t c_row) {
  const int64_t panels = (width + kTileWidth - 1) / kTileWidth;
  const int64_t padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
  float* lefts = scratch(kLeftPanels, padded * std::min(kDepth, depth));
  float edge[kTileRows * kTileWidth];
  for (int64_t begin = 0; begin < depth; begin += kDepth) {
    const int64_t steps = std::min(kDepth, depth - begin);
    left(0, rows, begin, steps, lefts);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const float* packed = right + (begin * panels + panel * steps) * kTileWidth;
      const int64_t column = panel * kTileWidth, columns = std::min(kTileWidth, width - column);
      for (int64_t row = 0; row < rows; row += kTileRows) {
        float* to = c + row * c_row + column;
        if (columns == kTileWidth && row + kTileRows <= rows) {
          multiply_tile(lefts + row * steps, packed, steps, to, c_row, begin > 0);
          continue;
        }
        multiply_tile(lefts + row * steps, packed, steps, edge, kTileWidth, false);
        for (int64_t r = 0; r < std::min<int64_t>(kTileRows, rows - row); ++r) {
          for (int64_t j = 0; j < columns; ++j) {
            to[r * c_row + j] = (begin > 0 ? to[r * c_row + j] : 0.0f) + edge[r * kTileWidth + j];
          }
        }
      }
    }
  }
}

// How a piece of a matrix is packed as the left factor.
auto from_matrix(const Matrix& a) {
  return [=](int64_t row, int64_t count, int64_t step, int64_t steps, float* panels) {
    pack(a.at(row, step), count, steps, kTileRows, panels);
  };
}

// Call job(top, bottom) for bands of rows, whole tiles: of a size that stays in a core's cache, at least four a thread.
template <class Job>
void split_bands(int64_t rows, const Job& job) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t bands = std::max(std::min(tiles, 4 * Team::instance().size()), (tiles + kBandTiles - 1) / kBandTiles);
  Team::instance().split(bands, 1, [&](int64_t first, int64_t last) {
    for (int64_t band = first; band < last; ++band) {
      job(tiles * band / bands * kTileRows, std::min(rows, tiles * (band + 1) / bands * kTileRows));
    }
  });
}

// C (rows, width), contiguous, = A (rows, depth) · B (depth, width) [+ bias].
void multiply(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const Matrix& b, const float* bias, float* c) {
  float* right = scratch(kRightPanels, packed_size(width, depth));
  pack_right(b, width, depth, right);
  split_bands(rows, [=](int64_t top, int64_t bottom) {
    multiply_band(bottom - top, width, depth, from_matrix(a.at(top, 0)), right, c + top * width, width);
    if (!bias) return;
    for (int64_t row = top; row < bottom; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) c[row * width + j] += bias[j];
    }
  });
}

// x (…, K), weight (N, K), bias (N) → (…, N)
void linear(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0), rows = a.size(0) / depth;
  multiply(rows, width, depth, {a.floats(0), depth, 1}, {a.floats(1), 1, depth}, a.floats(2), a.floats(3));
}

// x, weight, dy → dx, d weight, d bias
void linear_grad(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0), rows = a.size(0) / depth;
  const float *x = a.floats(0), *weight = a.floats(1), *dy = a.floats(2);
  multiply(rows, depth, width, {dy, width, 1}, {weight, depth, 1}, nullptr, a.floats(3));
  multiply(width, depth, rows, {dy, 1, width}, {x, depth, 1}, nullptr, a.floats(4));
  sum_rows(rows, width, a.floats(5), [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) sum[j] += dy[row * width + j];
    }
  });
}

// ---- cross-covariance attention ---------------------------------------------------------------------------------

// C(m, n) = Σₖ A(m, k) · B(k, n) for small C; A has any strides, rows of B and C are contiguous.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;

  template <int Rows, int Vectors>
  void tile(int64_t m, int64_t n, int64_t steps) const {
    Lanes sum[Rows][Vectors] = {};
    const float *left = a + m * a_row, *right = b + n;
    for (int64_t k = 0; k < steps; ++k, left += a_step, right += b_step) {
      Lanes value[Vectors];
      for (int v = 0; v < Vectors; ++v) value[v] = *reinterpret_cast<const Lanes*>(right + v * kLanes);
      for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < Vectors; ++v) sum[r][v] += left[r * a_row] * value[v];
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) *reinterpret_cast<Lanes*>(c + (m + r) * c_row + n + v * kLanes) = sum[r][v];
    }
  }

  template <int Vectors>
  void columns(int64_t rows, int64_t n, int64_t steps) const {
    int64_t m = 0;
    for (; m + 8 <= rows; m += 8) tile<8, Vectors>(m, n, steps);
    for (; m < rows; ++m) tile<1, Vectors>(m, n, steps);
  }

  void run(int64_t rows, int64_t width, int64_t steps) const {
    int64_t n = 0;
    for (; n + 3 * kLanes <= width; n += 3 * kLanes) columns<3>(rows, n, steps);
    for (; n + kLanes <= width; n += kLanes) columns<1>(rows, n, steps);
    for (int64_t m = 0; n < width && m < rows; ++m) {
      for (int64_t rest = n; rest < width; ++rest) {
        float sum = 0.0f;
        for (int64_t k = 0; k < steps; ++k) sum += a[m * a_row + k * a_step] * b[k * b_step + rest];
        c[m * c_row + rest] = sum;
      }
    }
  }
};

// One head of one image: queries, keys and values are columns of the tokens' 3·C numbers.
struct Head {
  const float *query, *key, *value;
  int64_t tokens, dim, stride;
  bool normalised;
  std::vector<float> query_scale, key_scale, cosine, attention;  // scale is one over the norm; the last two are (dim, dim)

  Head(const float* qkv, int64_t tokens, int64_t channels, int64_t dim, int64_t head, bool normalised)
      : query(qkv + head * dim),
        key(query + channels),
        value(key + channels),
        tokens(tokens),
        dim(dim),
        stride(3 * channels),
        normalised(normalised),
        query_scale(scales(query)),
        key_scale(scales(key)),
        cosine(dim * dim),
        attention(dim * dim) {}

  std::vector<float> scales(const float* rows) const {
    std::vector<float> squares(dim, 0.0f);
    if (!normalised) return std::vector<float>(dim, 1.0f);
    for (int64_t token = 0; token < tokens; ++token) {
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) squares[i] += rows[token * stride + i] * rows[token * stride + i];
    }
    for (float& square : squares) square = 1.0f / std::max(std::sqrt(square), 1e-12f);
    return squares;
  }

  void attend(float temperature) {
    Product{query, 1, stride, key, stride, cosine.data(), dim}.run(dim, dim, tokens);
    for (int64_t i = 0; i < dim; ++i) {
      float *cos = &cosine[i * dim], *row = &attention[i * dim];
      float greatest = -INFINITY, sum = 0.0f;
      for (int64_t j = 0; j < dim; ++j) {
        cos[j] *= query_scale[i] * key_scale[j];
        greatest = std::max(greatest, cos[j] * temperature);
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < dim; ++j) {
        row[j] = exponential(cos[j] * temperature - greatest);
        sum += row[j];
      }
      for (int64_t j = 0; j < dim; ++j) row[j] /= sum;
    }
  }
};

std::vector<float> transposed(const std::vector<float>& square, int64_t dim) {
  std::vector<float> turned(dim * dim);
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < dim; ++j) turned[j * dim + i] = square[i * dim + j];
  }
  return turned;
}

// qkv (B, N, 3·C), temperature (h, 1, 1) → (B, N, C)
void cross_covariance(const Arguments& a, bool normalised) {
  const float *qkv = a.floats(0), *temperature = a.floats(1);
  float* out = a.floats(2);
  const int64_t images = a.dim(0, 0), tokens = a.dim(0, 1), channels = a.dim(0, 2) / 3;
  const int64_t heads = a.dim(1, 0), dim = channels / heads;
  Team::instance().split(images * heads, 1, [=](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / heads, which = item % heads;
      Head head(qkv + image * tokens * 3 * channels, tokens, channels, dim, which, normalised);
      head.attend(temperature[which]);
      const std::vector<float> turned = transposed(head.attention, dim);
      Product{head.value, head.stride, 1, turned.data(), dim, out + image * tokens * channels + which * dim, channels}
          .run(tokens, dim, dim);
    }
  });
}

// qkv, temperature, d out → d qkv, d temperature
void cross_covariance_grad(const Arguments& a, bool normalised) {
  const float *qkv = a.floats(0), *temperature = a.floats(1), *up = a.floats(2);
  float *dqkv = a.floats(3), *dtemperature = a.floats(4);
  const int64_t images = a.dim(0, 0), tokens = a.dim(0, 1), channels = a.dim(0, 2) / 3;
  const int64_t heads = a.dim(1, 0), dim = channels / heads;
  std::vector<float> shares(images * heads);
  Team::instance().split(images * heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / heads, which = item % heads;
      Head head(qkv + image * tokens * 3 * channels, tokens, channels, dim, which, normalised);
      head.attend(temperature[which]);
      const float* dout = up + image * tokens * channels + which * dim;
      float* dquery = dqkv + image * tokens * 3 * channels + which * dim;
      float *dkey = dquery + channels, *dvalue = dkey + channels;

      std::vector<float> slope(dim * dim);  // of attention, then of the cosines
      Product{dout, 1, channels, head.value, head.stride, slope.data(), dim}.run(dim, dim, tokens);
      Product{dout, channels, 1, head.attention.data(), dim, dvalue, head.stride}.run(tokens, dim, dim);
      // A cosine does not change along its own vector: what the norms take away again.
      std::vector<float> query_share(dim, 0.0f), key_share(dim, 0.0f);
      float share = 0.0f;
      for (int64_t i = 0; i < dim; ++i) {
        float *row = &slope[i * dim], mean = 0.0f;
        const float *attention = &head.attention[i * dim], *cosine = &head.cosine[i * dim];
        for (int64_t j = 0; j < dim; ++j) mean += row[j] * attention[j];
        for (int64_t j = 0; j < dim; ++j) {
          row[j] = attention[j] * (row[j] - mean);
          share += row[j] * cosine[j];
          row[j] *= temperature[which];
          query_share[i] += row[j] * cosine[j];
          key_share[j] += row[j] * cosine[j];
          row[j] *= head.query_scale[i] * head.key_scale[j];
        }
      }
      shares[item] = share;
      const std::vector<float> turned = transposed(slope, dim);
      Product{head.key, head.stride, 1, turned.data(), dim, dquery, head.stride}.run(tokens, dim, dim);
      Product{head.query, head.stride, 1, slope.data(), dim, dkey, head.stride}.run(tokens, dim, dim);
      if (!normalised) continue;
      for (int64_t i = 0; i < dim; ++i) {
        query_share[i] *= head.query_scale[i] * head.query_scale[i];
        key_share[i] *= head.key_scale[i] * head.key_scale[i];
      }
      for (int64_t token = 0; token < tokens; ++token) {
        const int64_t at = token * head.stride;
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) {
          dquery[at + i] -= head.query[at + i] * query_share[i];
          dkey[at + i] -= head.key[at + i] * key_share[i];
        }
      }
    }
  });
  for (int64_t which = 0; which < heads; ++which) {
    dtemperature[which] = 0.0f;
    for (int64_t image = 0; image < images; ++image) dtemperature[which] += shares[image * heads + which];
  }
}

// ---- a whole block, in evaluation -------------------------------------------------------------------------------

// weight (N, K) → its transpose, packed as a right factor
void pack_weight(const Arguments& a) {
  const int64_t width = a.dim(0, 0), depth = a.dim(0, 1);
  pack_right({a.floats(0), 1, depth}, width, depth, a.floats(1));
}

void normalise(const float* row, int64_t channels, float epsilon, float* out) {
  const Moments m = moments(row, channels, epsilon);
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c) out[c] = (row[c] - m.mean) * m.scale;
}

// One image through a cross-covariance block whose LayerNorms 1 and 2 and layer scales are folded into their neighbours.
template <class Form>
struct Block {
  const Arguments& a;
  const int64_t tokens, channels, hidden, heads, dim;
  const Grid grid;
  const bool normalised;
  const float epsilon;

  // In the order of operations.block in Python.
  enum Input { kX, kSides, kEpsilon, kQkv, kQkvBias, kTemperature, kProj, kProjBias, kNormGamma, kNormBeta, kConv1,
               kConv1Bias, kScale, kShift, kConv2, kConv2Bias, kFc1, kFc1Bias, kFc2, kFc2Bias, kOutput };

  Block(const Arguments& a, bool normalised)
      : a(a),
        tokens(a.dim(kX, 1)),
        channels(a.dim(kX, 2)),
        hidden(a.dim(kFc1Bias, 0)),
        heads(a.dim(kTemperature, 0)),
        dim(channels / heads),
        grid{static_cast<int32_t*>(a.data[kSides])[0], static_cast<int32_t*>(a.data[kSides])[1], channels},
        normalised(normalised),
        epsilon(*a.floats(kEpsilon)) {}

  // Rows · packed weight + bias.
  void affine(const float* in, int64_t rows, int64_t depth, int64_t width, Input weight, float* out) const {
    multiply_band(rows, width, depth, from_matrix({in, depth, 1}), a.floats(weight), out, width);
    const float* bias = a.floats(weight + 1);
    for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) out[row * width + j] += bias[j];
    }
  }

  void run(int64_t image, const std::vector<float>& taps1, const std::vector<float>& taps2) const {
    const float* x = a.floats(kX) + image * tokens * channels;
    float* out = a.floats(kOutput) + image * tokens * channels;
    std::unique_ptr<float[]> buffer(new float[tokens * 3 * channels]);
    float *qkv = buffer.get(), *normed = qkv, *patches = qkv + tokens * channels;  // qkv is read before they are written

    split_bands(tokens, [&](int64_t top, int64_t bottom) {
      float* rows = scratch(kFirst, (bottom - top) * channels);
      for (int64_t row = top; row < bottom; ++row) {
        normalise(x + row * channels, channels, epsilon, rows + (row - top) * channels);
      }
      affine(rows, bottom - top, channels, 3 * channels, kQkv, qkv + top * 3 * channels);
    });

    std::vector<std::vector<float>> attention(heads);
    Team::instance().split(heads, 1, [&](int64_t first, int64_t last) {
      for (int64_t which = first; which < last; ++which) {
        Head head(qkv, tokens, channels, dim, which, normalised);
        head.attend(a.floats(kTemperature)[which]);
        attention[which] = transposed(head.attention, dim);
      }
    });
    split_bands(tokens, [&](int64_t top, int64_t bottom) {
      float* mixed = scratch(kFirst, (bottom - top) * channels);
      for (int64_t which = 0; which < heads; ++which) {
        const float* value = qkv + top * 3 * channels + 2 * channels + which * dim;
        Product{value, 3 * channels, 1, attention[which].data(), dim, mixed + which * dim, channels}
            .run(bottom - top, dim, dim);
      }
      affine(mixed, bottom - top, channels, channels, kProj, out + top * channels);
      for (int64_t i = top * channels; i < bottom * channels; ++i) out[i] += x[i];
    });

    split_rows(tokens, channels, [&](int64_t first, int64_t last) {
      const float *gamma = a.floats(kNormGamma), *beta = a.floats(kNormBeta);
      for (int64_t row = first; row < last; ++row) {
        float* to = normed + row * channels;
        normalise(out + row * channels, channels, epsilon, to);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] = to[c] * gamma[c] + beta[c];
      }
    });
    const int64_t line = grid.width * channels;
    split_rows(grid.height, line, [&](int64_t first, int64_t last) {
      const float *scale = a.floats(kScale), *shift = a.floats(kShift);
      for (int64_t y = first; y < last; ++y) {
        float* to = patches + y * line;
        convolve_row(grid, y, normed, taps1.data(), a.floats(kConv1Bias), false, to);
        for (int64_t x = 0; x < grid.width; ++x, to += channels) {
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) to[c] = Form::value(to[c]) * scale[c] + shift[c];
        }
      }
    });
    split_rows(grid.height, line, [&](int64_t first, int64_t last) {
      float* row = scratch(kFirst, line);
      for (int64_t y = first; y < last; ++y) {
        convolve_row(grid, y, patches, taps2.data(), a.floats(kConv2Bias), false, row);
#pragma omp simd
        for (int64_t i = 0; i < line; ++i) out[y * line + i] += row[i];
      }
    });

    split_bands(tokens, [&](int64_t top, int64_t bottom) {
      const int64_t count = bottom - top;
      float *rows = scratch(kFirst, count * channels), *inner = scratch(kSecond, count * hidden);
      for (int64_t row = 0; row < count; ++row) {
        normalise(out + (top + row) * channels, channels, epsilon, rows + row * channels);
      }
      affine(rows, count, channels, hidden, kFc1, inner);
#pragma omp simd
      for (int64_t i = 0; i < count * hidden; ++i) inner[i] = Form::value(inner[i]);
      affine(inner, count, hidden, channels, kFc2, rows);
#pragma omp simd
      for (int64_t i = 0; i < count * channels; ++i) out[top * channels + i] += rows[i];
    });
  }
};

template <class Form>
void block(const Arguments& a, bool normalised) {
  const Block<Form> block(a, normalised);
  const std::vector<float> taps1 = taps_first(a.floats(Block<Form>::kConv1), block.channels);
  const std::vector<float> taps2 = taps_first(a.floats(Block<Form>::kConv2), block.channels);
  const int64_t images = a.dim(0, 0);
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t image = first; image < last; ++image) block.run(image, taps1, taps2);
  };
  // An image a thread needs no waiting for one another; fewer images than threads are worth the waiting.
  if (images < Team::instance().size()) {
    run(0, images);
  } else {
    Team::instance().split(images, 1, run);
  }
}

// ---- a stage of the patch embedding, in evaluation --------------------------------------------------------------

// x, packed weight of (N, 9 · K) in the order row, column, channel; bias (N) → 3×3 convolution of stride 2 with zeros
// around the image, (B, H / 2, W / 2, N). x is (B, K, H, W) for the image itself, (B, H, W, K) for the stages after.
template <class Form>
void downsample(const Arguments& a, bool channels_first, bool last) {
  const float *x = a.floats(0), *packed = a.floats(1), *bias = a.floats(2);
  float* out = a.floats(3);
  const int first_side = channels_first ? 2 : 1;
  const int64_t height = a.dim(0, first_side), width = a.dim(0, first_side + 1);
  const int64_t inputs = a.dim(0, channels_first ? 1 : 3), outputs = a.dim(2, 0), depth = 9 * inputs;
  const int64_t step_x = channels_first ? 1 : inputs, step_c = channels_first ? height * width : 1;
  const int64_t rows = a.dim(3, 1), columns = a.dim(3, 2);
  split_bands(a.dim(0, 0) * rows * columns, [=](int64_t top, int64_t bottom) {
    const auto windows = [=](int64_t, int64_t count, int64_t begin, int64_t steps, float* panels) {
      std::fill_n(panels, (count + kTileRows - 1) / kTileRows * kTileRows * steps, 0.0f);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t pixel = top + i, column = pixel % columns, row = pixel / columns % rows;
        const float* image = x + pixel / columns / rows * inputs * height * width;
        float* panel = panels + i / kTileRows * kTileRows * steps + i % kTileRows;
        for (int64_t tap = begin / inputs; tap * inputs < begin + steps; ++tap) {
          const int64_t from_y = 2 * row + tap / 3 - 1, from_x = 2 * column + tap % 3 - 1;
          if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
          const float* pixel_in = image + (from_y * width + from_x) * step_x;
          const int64_t first = std::max(begin, tap * inputs), end = std::min(begin + steps, (tap + 1) * inputs);
          for (int64_t k = first; k < end; ++k) panel[(k - begin) * kTileRows] = pixel_in[(k - tap * inputs) * step_c];
        }
      }
    };
    multiply_band(bottom - top, outputs, depth, windows, packed, out + top * outputs, outputs);
    for (int64_t row = top; row < bottom; ++row) {
      float* to = out + row * outputs;
#pragma omp simd
      for (int64_t j = 0; j < outputs; ++j) to[j] = last ? to[j] + bias[j] : Form::value(to[j] + bias[j]);
    }
  });
}

}  // namespace

#define XCIT_OPERATION(name, ...)                                                                                 \
  extern "C" int name(int count, void** data, int* ranks, int64_t** shapes, const char** types, void*, void*) {   \
    if (!readable(count, types)) return kWrongType;                                                               \
    const Arguments a{data, ranks, shapes};                                                                       \
    __VA_ARGS__;                                                                                                  \
    return 0;                                                                                                     \
  }

XCIT_OPERATION(GeluErf, gelu<Erf>(a))
XCIT_OPERATION(GeluErfGrad, gelu_grad<Erf>(a))
XCIT_OPERATION(GeluTanh, gelu<Tanh>(a))
XCIT_OPERATION(GeluTanhGrad, gelu_grad<Tanh>(a))
XCIT_OPERATION(LayerNorm, layer_norm(a))
XCIT_OPERATION(LayerNormGrad, layer_norm_grad(a))
XCIT_OPERATION(ScaledSum, scaled_sum(a))
XCIT_OPERATION(ScaledSumGrad, scaled_sum_grad(a))
XCIT_OPERATION(BatchNorm, batch_norm(a))
XCIT_OPERATION(BatchNormGrad, batch_norm_grad(a))
XCIT_OPERATION(Depthwise, depthwise(a))
XCIT_OPERATION(DepthwiseGrad, depthwise_grad(a))
XCIT_OPERATION(Linear, linear(a))
XCIT_OPERATION(LinearGrad, linear_grad(a))
XCIT_OPERATION(DownsampleImageErf, downsample<Erf>(a, true, false))
XCIT_OPERATION(DownsampleImageTanh, downsample<Tanh>(a, true, false))
XCIT_OPERATION(DownsampleErf, downsample<Erf>(a, false, false))
XCIT_OPERATION(DownsampleTanh, downsample<Tanh>(a, false, false))
XCIT_OPERATION(DownsampleLast, downsample<Erf>(a, false, true))
XCIT_OPERATION(PackWeight, pack_weight(a))
XCIT_OPERATION(BlockErf, block<Erf>(a, true))
XCIT_OPERATION(BlockErfRaw, block<Erf>(a, false))
XCIT_OPERATION(BlockTanh, block<Tanh>(a, true))
XCIT_OPERATION(BlockTanhRaw, block<Tanh>(a, false))
XCIT_OPERATION(CrossCovariance, cross_covariance(a, true))
XCIT_OPERATION(CrossCovarianceGrad, cross_covariance_grad(a, true))
XCIT_OPERATION(CrossCovarianceRaw, cross_covariance(a, false))
XCIT_OPERATION(CrossCovarianceRawGrad, cross_covariance_grad(a, false))
