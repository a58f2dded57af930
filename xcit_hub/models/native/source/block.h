// A whole cross-covariance block, in evaluation.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "arguments.h"
#include "attention.h"
#include "depthwise.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

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

  // Rows · packed weight, then finish(sum with bias, index) for every number of it.
  template <class Finish>
  void affine(const float* in, int64_t rows, int64_t depth, int64_t width, Input weight, float* out,
              const Finish& finish) const {
    const float* bias = a.floats(weight + 1);
    multiply_band(rows, width, depth, {in, depth, 1}, a.floats(weight), out, width,
                  [=](int64_t row, int64_t count, int64_t column, int64_t columns) {
                    for (int64_t r = row; r < row + count; ++r) {
#pragma omp simd
                      for (int64_t j = column; j < column + columns; ++j) {
                        finish(out[r * width + j] + bias[j], r * width + j);
                      }
                    }
                  });
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
      float* to = qkv + top * 3 * channels;
      affine(rows, bottom - top, channels, 3 * channels, kQkv, to, [=](float sum, int64_t at) { to[at] = sum; });
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
      const float* from = x + top * channels;
      float* to = out + top * channels;
      affine(mixed, bottom - top, channels, channels, kProj, to,
             [=](float sum, int64_t at) { to[at] = from[at] + sum; });
    });

    split_rows(tokens, channels, [&](int64_t first, int64_t last) {
      const float *gamma = a.floats(kNormGamma), *beta = a.floats(kNormBeta);
      for (int64_t row = first; row < last; ++row) {
        normalise(out + row * channels, channels, epsilon, gamma, beta, normed + row * channels);
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
      affine(rows, count, channels, hidden, kFc1, inner, [=](float sum, int64_t at) { inner[at] = Form::value(sum); });
      float* to = out + top * channels;
      affine(inner, count, hidden, channels, kFc2, rows, [=](float sum, int64_t at) { to[at] += sum; });
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

}  // namespace xcit
