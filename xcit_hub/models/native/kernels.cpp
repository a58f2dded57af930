// XCiT's operations between the matrix products, fused, for CPUs: float32, forward and backward.
//
// Every exported function has the signature of MindSpore's ahead-of-time custom operators: inputs first, then outputs, in
// `data`; row-major, contiguous. Rows below are tokens of C channels. Nothing here knows MindSpore otherwise.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <sched.h>

namespace {

using std::int64_t;

// ---- threads ----------------------------------------------------------------------------------------------------

int64_t available_cores() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
    if (int64_t count = std::atoll(wanted); count > 0) return count;
  }
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

  // Call job(first, last) for consecutive parts of [0, items), several at a time; return when all are done.
  void split(int64_t items, int64_t least, const Job& job) {
    const int64_t parts = std::min(4 * size_, items / std::max<int64_t>(least, 1));
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (parts < 2 || size_ < 2 || !turn.owns_lock()) return job(0, items);
    const auto round = std::make_shared<Round>(job, items, parts);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_ = round;
    }
    wake_.notify_all();
    round->work();
    while (round->done.load(std::memory_order_acquire) < parts) relax();
  }

 private:
  // A worker that wakes late finds no part left and never touches the job, which is gone by then.
  struct Round {
    Round(const Job& job, int64_t items, int64_t parts) : job(job), items(items), parts(parts) {}

    void work() {
      for (int64_t part; (part = next.fetch_add(1)) < parts;) {
        job(items * part / parts, items * (part + 1) / parts);
        done.fetch_add(1, std::memory_order_release);
      }
    }

    const Job& job;
    const int64_t items, parts;
    std::atomic<int64_t> next{0}, done{0};
  };

  explicit Team(int64_t size) : size_(size) {
    for (int64_t worker = 1; worker < size; ++worker) std::thread([this] { serve(); }).detach();
  }

  void serve() {
    std::shared_ptr<Round> seen;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
      }
      seen->work();
    }
  }

  const int64_t size_;
  std::mutex turn_, mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Round> round_;
};

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

  explicit Grid(const Arguments& a) : height(a.dim(0, 1)), width(a.dim(0, 2)), channels(a.dim(0, 3)) {}
};

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
  convolve(Grid(a), a.dim(0, 0), a.floats(0), a.floats(1), a.floats(2), false, a.floats(3));
}

void depthwise_grad(const Arguments& a) {
  const float *x = a.floats(0), *dy = a.floats(2);
  float *dweight = a.floats(4), *dbias = a.floats(5);
  const Grid g(a);
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

// ---- cross-covariance attention ---------------------------------------------------------------------------------

typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLanes = sizeof(Lanes) / sizeof(float);

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

}  // namespace

#define XCIT_OPERATION(name, ...)                                                                                 \
  extern "C" int name(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {               \
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
XCIT_OPERATION(CrossCovariance, cross_covariance(a, true))
XCIT_OPERATION(CrossCovarianceGrad, cross_covariance_grad(a, true))
XCIT_OPERATION(CrossCovarianceRaw, cross_covariance(a, false))
XCIT_OPERATION(CrossCovarianceRawGrad, cross_covariance_grad(a, false))
