// Layer norm, and batch norm over rows.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "memory.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

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

inline void normalise(const float* row, int64_t channels, float epsilon, float* out) {
  const Moments m = moments(row, channels, epsilon);
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c) out[c] = (row[c] - m.mean) * m.scale;
}

inline void normalise(const float* row, int64_t channels, float epsilon, const float* gamma, const float* beta, float* out) {
  const Moments m = moments(row, channels, epsilon);
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c) out[c] = (row[c] - m.mean) * m.scale * gamma[c] + beta[c];
}

// x (…, C), gamma (C), beta (C), epsilon (1) → y (…, C)
inline void layer_norm(const Arguments& a) {
  const operands::LayerNorm d(a);
  const int64_t channels = a.dim(d.kX, -1);
  split_rows(a.size(d.kX) / channels, channels, [=](int64_t first, int64_t last) {
    for (int64_t at = first * channels; at < last * channels; at += channels) {
      normalise(d.x + at, channels, *d.epsilon, d.gamma, d.beta, d.y + at);
    }
  });
}

// x, dy (rows, C) → dx (rows, C) [+ base, whatever reaches x on another way], dgamma (C), dbeta (C). dx may be base.
inline void layer_norm_grad(int64_t rows, int64_t channels, const float* x, const float* gamma, float epsilon,
                            const float* dy, const float* base, float* dx, float* dgamma, float* dbeta) {
  const Buffer sums(2 * channels);
  sum_rows(rows, 2 * channels, sums, [=](int64_t first, int64_t last, float* sum) {
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
        const float normed = (in[c] - m.mean) * m.scale, slope = m.scale * (up[c] * gamma[c] - mean - normed * along);
        sum[c] += up[c] * normed;
        sum[channels + c] += up[c];
        out[c] = base ? base[row * channels + c] + slope : slope;
      }
    }
  });
  std::copy_n(&sums[0], channels, dgamma);
  std::copy_n(&sums[channels], channels, dbeta);
}

// x (…, C), gamma (C), epsilon (1), dy (…, C) → dx (…, C), dgamma (C), dbeta (C)
inline void layer_norm_grad(const Arguments& a) {
  const operands::LayerNormGrad d(a);
  const int64_t channels = a.dim(d.kX, -1);
  layer_norm_grad(a.size(d.kX) / channels, channels, d.x, d.gamma, *d.epsilon, d.dy, nullptr, d.dx, d.dgamma, d.dbeta);
}

// A batch norm by given mean and biased variance.
struct BatchNorm {
  const int64_t channels;
  const float *gamma, *beta, *mean, *variance;
  const float epsilon;

  void factors(float* out) const {
    for (int64_t c = 0; c < channels; ++c) out[c] = gamma[c] / std::sqrt(variance[c] + epsilon);
  }

  // Call each(index, normalised number) for every number of x (rows, C).
  template <class Each>
  void run(int64_t rows, const float* x, const Each& each) const {
    const Buffer scales(channels);
    factors(scales);
    const float *scale = scales, *shift = beta, *centre = mean;
    const int64_t width = channels;
    split_rows(rows, width, [=](int64_t first, int64_t last) {
      for (int64_t at = first * width; at < last * width; at += width) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) each(at + c, (x[at + c] - centre[c]) * scale[c] + shift[c]);
      }
    });
  }
};

// Mean and biased variance of every channel over all rows.
inline void batch_moments(int64_t rows, int64_t channels, const float* x, float* mean, float* variance) {
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
  for (int64_t c = 0; c < channels; ++c) variance[c] /= rows;
}

// The gradient of what a batch norm made of x (rows, C) → dx, d gamma, d beta; `moving` says that mean and variance come from x
// and move with it. up(index, y) gives what comes back to the number y that the norm made, end(index, number) what is left
// of x's gradient in dx.
template <class Up, class End>
void batch_norm_grad(const BatchNorm& norm, int64_t rows, const float* x, bool moving, const Up& up, const End& end, float* dx,
                     float* dgamma, float* dbeta) {
  const int64_t channels = norm.channels;
  const Buffer sums(2 * channels), scales(channels), factors(channels);
  for (int64_t c = 0; c < channels; ++c) scales[c] = 1.0f / std::sqrt(norm.variance[c] + norm.epsilon);
  norm.factors(factors);
  const float *scale = scales, *factor = factors, *mean = norm.mean, *gamma = norm.gamma, *beta = norm.beta;
  sum_rows(rows, 2 * channels, sums, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t at = first * channels; at < last * channels; at += channels) {
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float apart = x[at + c] - mean[c], dy = up(at + c, apart * factor[c] + beta[c]);
        sum[c] += dy * apart * scale[c];
        sum[channels + c] += dy;
        dx[at + c] = dy;
      }
    }
  });
  std::copy_n(&sums[0], channels, dgamma);
  std::copy_n(&sums[channels], channels, dbeta);
  const float share = moving ? 1.0f / rows : 0.0f;
  split_rows(rows, channels, [=](int64_t first, int64_t last) {
    for (int64_t at = first * channels; at < last * channels; at += channels) {
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float normed = (x[at + c] - mean[c]) * scale[c];
        dx[at + c] = end(at + c, gamma[c] * scale[c] * (dx[at + c] - (dbeta[c] + normed * dgamma[c]) * share));
      }
    }
  });
}

}  // namespace xcit
