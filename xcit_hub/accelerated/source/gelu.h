// GELU, in its erf and its tanh form. The coefficients are those that fit_gelu.py prints.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// Loops over these are vectorised where they are inlined, which compilers do not always think worth it.
#define XCIT_INLINED __attribute__((always_inline)) inline

constexpr float kLog2E = 1.44269504f;
constexpr float kShift = 12582912.0f;  // 1.5 · 2²³: added to a number, it leaves the nearest integer in the low bits

// 2 to the power of an integer, given as that + kShift, and a rest from −½ to ½, to 1 unit in the last place or two. Written,
// as all here, so that compilers vectorise it.
XCIT_INLINED float power_of_two(float shifted, float rest) {
  float series = 0.000155946778f;
  series = series * rest + 0.00134066434f;
  series = series * rest + 0.00961769279f;
  series = series * rest + 0.0555031039f;
  series = series * rest + 0.240226522f;
  series = series * rest + 0.693147242f;
  series = series * rest + 1.0f;
  std::uint32_t exponent, bits;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&bits, &series, sizeof bits);
  bits += exponent << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// eˣ for any x.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float shifted = x * kLog2E + kShift, whole = shifted - kShift;
  return power_of_two(shifted, (x - whole * 0.693145752f - whole * 1.42860677e-6f) * kLog2E);
}

// Where x counts: beyond, what normal_tail returns is below 1e-36.
XCIT_INLINED float near_zero(float x) { return std::min(std::max(x, -13.0f), 13.0f); }

// Φ(−|x|), a polynomial of t = 1 / (1 + p · |x|) times e^(−x²/2), and the latter, of an x near zero.
XCIT_INLINED void normal_tail(float x, float& tail, float& bell) {
  const float t = 1.0f / (1.0f + 0.280888885f * std::fabs(x));
  float series = -0.106570311f * t + 0.388903141f;
  series = series * t - 0.236875549f;
  series = series * t + 0.270730346f;
  series = series * t + 0.066679202f;
  series = series * t + 0.117132999f;
  const float power = x * x * (-0.5f * kLog2E), shifted = power + kShift;
  bell = power_of_two(shifted, power - (shifted - kShift));
  tail = series * t * bell;
}

// A form of it says what it makes of x and how steep it is there; what of the two is not asked for is not computed, since all
// is inlined.
template <class Form>
struct Activation {
  XCIT_INLINED static float value(float x) {
    float value, slope;
    Form::both(x, value, slope);
    return value;
  }
  XCIT_INLINED static float slope(float x) {
    float value, slope;
    Form::both(x, value, slope);
    return slope;
  }
};

struct Erf : Activation<Erf> {
  XCIT_INLINED static void both(float x, float& value, float& slope) {
    float tail, bell;
    const float close = near_zero(x);
    normal_tail(close, tail, bell);
    value = std::max(x, 0.0f) - std::fabs(close) * tail;
    slope = (x > 0.0f ? 1.0f - tail : tail) + close * 0.398942280f * bell;
  }
};

struct Tanh : Activation<Tanh> {
  XCIT_INLINED static void both(float x, float& value, float& slope) {
    const float open = 1.0f / (1.0f + exponential(x * (-1.59576912f - 0.0713548163f * x * x)));
    value = x * open;
    slope = open + x * open * (1.0f - open) * (1.59576912f + 0.214064449f * x * x);
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

// x → y, any shape
template <class Form>
void gelu(const Arguments& a) {
  const operands::Gelu d(a);
  activate<Form>(a.size(d.kX), d.x, d.y);
}

// x, dy → dx
template <class Form>
void gelu_grad(const Arguments& a) {
  const operands::GeluGrad d(a);
  activate_grad<Form>(a.size(d.kX), d.x, d.dy, d.dx);
}

}  // namespace xcit
