// Whole cross-covariance blocks in evaluation.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "arguments.h"
#include "attention.h"
#include "depthwise.h"
#include "layers.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

// What a block reads: weights of products packed, convolutions as (9, C), the batch norm as (x − mean) · scale + shift. Norms
// 1 and 2, the layer scales and the batch norm's mean are not read where they are folded into their neighbours.
struct BlockWeights {
  const float *norm1_gamma, *norm1_beta, *qkv, *qkv_bias, *temperature, *proj, *proj_bias, *scale1;
  const float *norm3_gamma, *norm3_beta, *taps1, *conv1_bias, *batch_mean, *batch_scale, *batch_shift, *taps2, *conv2_bias,
      *scale3;
  const float *norm2_gamma, *norm2_beta, *fc1, *fc1_bias, *fc2, *fc2_bias, *scale2;
};

template <class Form, bool Folded>
struct Block {
  const int64_t images, tokens, channels, hidden, heads;
  const Grid grid;
  const bool normalised;
  const float epsilon;

  void normalise(const float* row, const float* gamma, const float* beta, float* out) const {
    if constexpr (Folded) {
      xcit::normalise(row, channels, epsilon, out);
    } else {
      xcit::normalise(row, channels, epsilon, gamma, beta, out);
    }
  }

  static float scaled(float value, const float* scale, int64_t channel) {
    if constexpr (Folded) return value;
    return scale[channel] * value;
  }

  static float centred(float value, const float* mean, int64_t channel) {
    if constexpr (Folded) return value;
    return value - mean[channel];
  }

  // Rows · packed weight, then finish(sum with bias, index, column) for every number of it.
  template <class Finish>
  static void affine(const float* in, int64_t rows, int64_t depth, int64_t width, const float* weight, const float* bias,
                     float* out, const Finish& finish) {
    multiply_band(rows, width, depth, {in, depth, 1}, weight, out, width,
                  [=](int64_t row, int64_t count, int64_t column, int64_t columns) {
                    for (int64_t r = row; r < row + count; ++r) {
#pragma omp simd
                      for (int64_t j = column; j < column + columns; ++j) {
                        finish(out[r * width + j] + bias[j], r * width + j, j);
                      }
                    }
                  });
  }

  // One image, x (N, C) → out (N, C), which may be x.
  void run(const BlockWeights& w, const float* x, float* out) const {
    const int64_t channels = this->channels, hidden = this->hidden;
    std::unique_ptr<float[]> buffer(new float[tokens * 3 * channels]);
    float *qkv = buffer.get(), *normed = qkv, *patches = qkv + tokens * channels;  // qkv is read before they are written

    split_bands(tokens, [&](int64_t top, int64_t bottom) {
      float* rows = scratch(kFirst, (bottom - top) * channels);
      for (int64_t row = top; row < bottom; ++row) {
        normalise(x + row * channels, w.norm1_gamma, w.norm1_beta, rows + (row - top) * channels);
      }
      float* to = qkv + top * 3 * channels;
      affine(rows, bottom - top, channels, 3 * channels, w.qkv, w.qkv_bias, to,
             [=](float sum, int64_t at, int64_t) { to[at] = sum; });
    });

    const int64_t dim = channels / heads;
    std::vector<std::vector<float>> attention(heads);
    Team::instance().split(heads, 1, [&](int64_t first, int64_t last) {
      for (int64_t which = first; which < last; ++which) {
        Head head(qkv, tokens, channels, dim, which, normalised);
        head.attend(w.temperature[which]);
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
      const float *from = x + top * channels, *scale = w.scale1;
      float* to = out + top * channels;
      affine(mixed, bottom - top, channels, channels, w.proj, w.proj_bias, scratch(kSecond, (bottom - top) * channels),
             [=](float sum, int64_t at, int64_t c) { to[at] = from[at] + scaled(sum, scale, c); });
    });

    split_rows(tokens, channels, [&](int64_t first, int64_t last) {
      for (int64_t at = first * channels; at < last * channels; at += channels) {
        xcit::normalise(out + at, channels, epsilon, w.norm3_gamma, w.norm3_beta, normed + at);
      }
    });
    const int64_t line = grid.width * channels;
    Team::instance().split(grid.height, 1, [&](int64_t first, int64_t last) {
      const float *mean = w.batch_mean, *scale = w.batch_scale, *shift = w.batch_shift;
      for (int64_t y = first; y < last; ++y) {
        float* to = patches + y * line;
        convolve_row(grid, y, normed, w.taps1, w.conv1_bias, false, to);
        for (int64_t x = 0; x < grid.width; ++x, to += channels) {
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) to[c] = centred(Form::value(to[c]), mean, c) * scale[c] + shift[c];
        }
      }
    });
    Team::instance().split(grid.height, 1, [&](int64_t first, int64_t last) {
      const float *bias = w.conv2_bias, *scale = w.scale3;
      float* row = scratch(kFirst, line);
      for (int64_t y = first; y < last; ++y) {
        convolve_row(grid, y, patches, w.taps2, nullptr, false, row);
        for (int64_t x = 0; x < line; x += channels) {
          float *to = out + y * line + x, *from = row + x;
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) to[c] += scaled(from[c] + bias[c], scale, c);
        }
      }
    });

    split_bands(tokens, [&](int64_t top, int64_t bottom) {
      const int64_t count = bottom - top;
      float *rows = scratch(kFirst, count * channels), *inner = scratch(kSecond, count * hidden);
      for (int64_t row = 0; row < count; ++row) {
        normalise(out + (top + row) * channels, w.norm2_gamma, w.norm2_beta, rows + row * channels);
      }
      affine(rows, count, channels, hidden, w.fc1, w.fc1_bias, inner,
             [=](float sum, int64_t at, int64_t) { inner[at] = Form::value(sum); });
      float* to = out + top * channels;
      const float* scale = w.scale2;
      affine(inner, count, hidden, channels, w.fc2, w.fc2_bias, rows,
             [=](float sum, int64_t at, int64_t c) { to[at] += scaled(sum, scale, c); });
    });
  }

  // All images through one layer after another; weights(layer) says what each reads.
  template <class Weights>
  void run(int64_t first_layer, int64_t last_layer, const Weights& weights, const float* x, float* out) const {
    const int64_t numbers = tokens * channels;
    if (first_layer == last_layer) std::copy_n(x, images * numbers, out);
    for (int64_t layer = first_layer; layer < last_layer; ++layer, x = out) {
      const BlockWeights w = weights(layer);
      const auto some = [&](int64_t first, int64_t last) {
        for (int64_t image = first; image < last; ++image) run(w, x + image * numbers, out + image * numbers);
      };
      // An image a thread needs no waiting for one another; fewer images than threads are worth the waiting.
      if (images < Team::instance().size()) {
        some(0, images);
      } else {
        Team::instance().split(images, 1, some);
      }
    }
  }
};

// Pieces of one stretch of memory, one after another.
struct Pieces {
  float* next;

  float* take(int64_t count) {
    float* piece = next;
    next += count;
    return piece;
  }
};

// What a network that is not fused has to prepare for a block at every call: it may have been trained since.
inline BlockWeights prepared(const Layers& all, int64_t layer) {
  using L = Layers;
  const int64_t channels = all.channels, hidden = all.hidden;
  const int64_t most = packed_size(3 * channels, channels) + packed_size(channels, channels) +
                       packed_size(hidden, channels) + packed_size(channels, hidden) + 20 * channels;
  Pieces pieces{scratch(kPrepared, most)};
  const auto packed = [&](int operand, int64_t width, int64_t depth) {
    float* to = pieces.take(packed_size(width, depth));
    pack_right({all.parameter(operand, layer), 1, depth}, width, depth, to);
    return to;
  };
  const auto taps = [&](int operand) {
    float* to = pieces.take(9 * channels);
    taps_first(all.parameter(operand, layer), channels, to);
    return to;
  };
  float* scale = pieces.take(channels);
  BatchNorm{channels, all.parameter(L::kBatchGamma, layer), all.parameter(L::kBatchBeta, layer),
            all.parameter(L::kMean, layer), all.parameter(L::kVariance, layer), all.batch_epsilon}
      .factors(scale);
  const auto as_it_is = [&](int operand) { return all.parameter(operand, layer); };
  return {as_it_is(L::kNorm1Gamma), as_it_is(L::kNorm1Beta), packed(L::kQkv, 3 * channels, channels),
          as_it_is(L::kQkvBias), as_it_is(L::kTemperature), packed(L::kProj, channels, channels),
          as_it_is(L::kProjBias), as_it_is(L::kScale1),
          as_it_is(L::kNorm3Gamma), as_it_is(L::kNorm3Beta), taps(L::kConv1), as_it_is(L::kConv1Bias),
          as_it_is(L::kMean), scale, as_it_is(L::kBatchBeta),
          taps(L::kConv2), as_it_is(L::kConv2Bias), as_it_is(L::kScale3),
          as_it_is(L::kNorm2Gamma), as_it_is(L::kNorm2Beta), packed(L::kFc1, hidden, channels), as_it_is(L::kFc1Bias),
          packed(L::kFc2, channels, hidden), as_it_is(L::kFc2Bias), as_it_is(L::kScale2)};
}

// x (B, N, C) and the operands of Layers → (B, N, C)
template <class Form>
void blocks(const Arguments& a, bool normalised) {
  const Layers all(a, normalised);
  const Block<Form, false> block{all.images, all.tokens, all.channels, all.hidden, all.heads, all.grid, normalised, all.epsilon};
  block.run(0, all.depth, [&](int64_t layer) { return prepared(all, layer); }, a.floats(Layers::kX), a.floats(Layers::kOperands));
}

constexpr int kWhere = 1;  // of the operands of fused_blocks: the grid's sides, the first layer and the one after the last

// The same of a fused network, whose weights were prepared once.
template <class Form>
void fused_blocks(const Arguments& a, bool normalised) {
  // In the order of operations.fused_blocks in Python.
  enum Input { kX, kEpsilon = kWhere + 1, kQkv, kQkvBias, kTemperature, kProj, kProjBias, kNormGamma, kNormBeta, kTaps1,
               kConv1Bias, kScale, kShift, kTaps2, kConv2Bias, kFc1, kFc1Bias, kFc2, kFc2Bias, kOutput };
  const std::int32_t* where = integers(a, kWhere);
  const int64_t channels = a.dim(kX, 2);
  const Block<Form, true> block{a.dim(kX, 0), a.dim(kX, 1), channels, a.dim(kFc1Bias, 1), a.dim(kTemperature, 1),
                                {where[0], where[1], channels}, normalised, *a.floats(kEpsilon)};
  const auto weights = [&](int64_t layer) {
    const auto of = [&](int operand) { return a.floats(operand) + layer * (a.size(operand) / a.dim(operand, 0)); };
    return BlockWeights{nullptr, nullptr, of(kQkv), of(kQkvBias), of(kTemperature), of(kProj), of(kProjBias), nullptr,
                        of(kNormGamma), of(kNormBeta), of(kTaps1), of(kConv1Bias), nullptr, of(kScale), of(kShift), of(kTaps2),
                        of(kConv2Bias), nullptr,
                        nullptr, nullptr, of(kFc1), of(kFc1Bias), of(kFc2), of(kFc2Bias), nullptr};
  };
  block.run(where[2], where[3], weights, a.floats(kX), a.floats(kOutput));
}

}  // namespace xcit
