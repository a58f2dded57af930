// GELU, in its erf and its tanh form.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "threads.h"

namespace xcit {

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
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
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
void activate(int64_t count, const float* x, float* y) {
  Team::instance().split(count, kLeastNumbers, [=](int64_t first, int64_t last) {
#pragma omp simd
    for (int64_t i = first; i < last; ++i) y[i] = Form::value(x[i]);
  });
}

// dy → dx, which may be dy
template <class Form>
void activate_grad(int64_t count, const float* x, const float* dy, float* dx) {
  Team::instance().split(count, kLeastNumbers, [=](int64_t first, int64_t last) {
#pragma omp simd
    for (int64_t i = first; i < last; ++i) dx[i] = dy[i] * Form::slope(x[i]);
  });
}

template <class Form>
void gelu(const Arguments& a) {
  activate<Form>(a.size(0), a.floats(0), a.floats(1));
}

template <class Form>
void gelu_grad(const Arguments& a) {
  activate_grad<Form>(a.size(0), a.floats(0), a.floats(1), a.floats(2));
}

}  // namespace xcit
