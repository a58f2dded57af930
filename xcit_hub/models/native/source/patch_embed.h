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

}  // namespace xcit
