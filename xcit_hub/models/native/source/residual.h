// A residual branch with its layer scale.

#pragma once

#include <cstdint>

#include "arguments.h"
#include "threads.h"

namespace xcit {

inline void scaled_sum(const Arguments& a) {
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

inline void scaled_sum_grad(const Arguments& a) {
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

}  // namespace xcit
