// A stage of the patch embedding, in evaluation.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "products.h"
#include "threads.h"

namespace xcit {

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
    float *windows = scratch(kFirst, (bottom - top) * depth), *to = windows;
    int64_t column = top % columns, row = top / columns % rows, image = top / columns / rows;
    for (int64_t pixel = top; pixel < bottom; ++pixel) {
      for (int64_t from_y = 2 * row - 1; from_y <= 2 * row + 1; ++from_y) {
        for (int64_t from_x = 2 * column - 1; from_x <= 2 * column + 1; ++from_x, to += inputs) {
          const float* from = x + image * inputs * height * width + (from_y * width + from_x) * step_x;
          if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) {
            std::fill_n(to, inputs, 0.0f);
          } else if (channels_first) {
            for (int64_t k = 0; k < inputs; ++k) to[k] = from[k * step_c];
          } else {
#pragma omp simd
            for (int64_t k = 0; k < inputs; ++k) to[k] = from[k];
          }
        }
      }
      if (++column < columns) continue;
      column = 0;
      if (++row < rows) continue;
      row = 0;
      ++image;
    }
    float* band = out + top * outputs;
    multiply_band(bottom - top, outputs, depth, {windows, depth, 1}, packed, band, outputs,
                  [=](int64_t, int64_t, int64_t, int64_t) {});
    for (int64_t at = 0; at < (bottom - top) * outputs; at += outputs) {
#pragma omp simd
      for (int64_t j = 0; j < outputs; ++j) band[at + j] += bias[j];
    }
    if (last) return;
#pragma omp simd
    for (int64_t i = 0; i < (bottom - top) * outputs; ++i) band[i] = Form::value(band[i]);
  });
}

}  // namespace xcit
