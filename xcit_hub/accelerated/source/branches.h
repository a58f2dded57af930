// A stack of cross-covariance blocks in training, forward and backward, as its residual branches:
// x + keep · scale · branch(layer norm of x).
//
// `keep` is stochastic depth's factor, of each image or one for all; `scale` the layer scale.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "attention.h"
#include "depthwise.h"
#include "gelu.h"
#include "layers.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

// What the forward operation keeps of each layer for its gradient. A layer reads what the one before it left; the last
// layer's result is the operation's own.
struct Kept {
  const Layers& all;
  float* data;

  int64_t layer_size() const { return all.rows * (8 * all.channels + all.hidden); }
  float* at(int64_t layer, int64_t columns) const { return data + layer * layer_size() + columns * all.rows; }

  float* after_attention(int64_t layer) const { return at(layer, 0); }
  float* after_local(int64_t layer) const { return at(layer, all.channels); }
  float* projected(int64_t layer) const { return at(layer, 2 * all.channels); }  // queries, keys, values (rows, 3 · C)
  float* attended(int64_t layer) const { return at(layer, 5 * all.channels); }
  float* convolved(int64_t layer) const { return at(layer, 6 * all.channels); }  // by the first convolution
  float* inner(int64_t layer) const { return at(layer, 7 * all.channels); }      // what the MLP's activation reads
  float* after(int64_t layer) const { return at(layer, 7 * all.channels + all.hidden); }
  const float* before(int64_t layer) const { return layer ? after(layer - 1) : all.a.floats(Layers::kX); }
};

// The operands of the gradient after those of the forward operation, and its results: dx, then one for each parameter.
struct Gradients {
  enum Operand { kKept = Layers::kOperands, kBatchMean, kBatchVariance, kDy, kDx, kFirst };

  const Layers& all;

  float* of(int operand, int64_t layer) const {
    return all.a.floats(kFirst + operand - Layers::kFirstTrained) + layer * all.size(operand);
  }
};

// One of a layer's three branches. On the way back dx may be dy.
struct Branch {
  const Layers& all;
  const int64_t layer;
  const int which, norm, scale_operand;  // the branch's number, its norm's gamma and its layer scale
  const float* x;

  int64_t rows() const { return all.rows; }
  int64_t channels() const { return all.channels; }
  const float* parameter(int operand) const { return all.parameter(operand, layer); }

  float keep(int64_t row) const {
    const float* factors = all.a.floats(Layers::kKeep);
    return all.a.size(Layers::kKeep) == 1 ? *factors : factors[(layer * 3 + which) * all.images + row / all.tokens];
  }

  // The layer norm of rows [top, bottom).
  void normalise(int64_t top, int64_t bottom, float* out) const {
    for (int64_t row = top; row < bottom; ++row, out += channels()) {
      xcit::normalise(x + row * channels(), channels(), all.epsilon, parameter(norm), parameter(norm + 1), out);
    }
  }

  const float* normed() const {
    float* out = scratch(kNormed, rows() * channels());
    split_rows(rows(), channels(), [=](int64_t top, int64_t bottom) { normalise(top, bottom, out + top * channels()); });
    return out;
  }

  // What ends a row of the result: the branch without its last bias, by its column, becomes out.
  auto onto_x(int bias_operand) const {
    const float *bias = parameter(bias_operand), *factor = parameter(scale_operand);
    return [=](int64_t row) {
      const float *from = x + row * channels(), kept = keep(row);
      return [=](float value, int64_t c) { return from[c] + kept * factor[c] * (value + bias[c]); };
    };
  }

  // keep · dy
  const float* kept(const float* dy) const {
    const int64_t channels = all.channels;
    if (all.a.size(Layers::kKeep) == 1 && keep(0) == 1.0f) return dy;
    float* out = scratch(kUp, rows() * channels);
    split_rows(rows(), channels, [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const float factor = keep(row);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = factor * dy[row * channels + c];
      }
    });
    return out;
  }

  // scale · weight (C, width)
  std::vector<float> scaled(int operand, int64_t width) const {
    const float *weight = parameter(operand), *scale = parameter(scale_operand);
    std::vector<float> out(channels() * width);
    for (int64_t i = 0; i < channels() * width; ++i) out[i] = scale[i / width] * weight[i];
    return out;
  }

  // The gradients of the layer scale and of the map before it, (C, width) and bias. They come as those of an unscaled
  // map: their products with the map are the scale's, so that its output need not be kept.
  void unscale(const Gradients& gradients, int operand, int64_t width) const {
    const float *weight = parameter(operand), *bias = parameter(operand + 1), *scale = parameter(scale_operand);
    float *dweight = gradients.of(operand, layer), *dbias = gradients.of(operand + 1, layer);
    float* dscale = gradients.of(scale_operand, layer);
    for (int64_t c = 0; c < channels(); ++c) {
      float sum = bias[c] * dbias[c];
      for (int64_t k = 0; k < width; ++k) {
        sum += weight[c * width + k] * dweight[c * width + k];
        dweight[c * width + k] *= scale[c];
      }
      dscale[c] = sum;
      dbias[c] *= scale[c];
    }
  }

  // Back through the layer norm, and past the branch.
  void to_x(const Gradients& gradients, const float* dnormed, const float* dy, float* dx) const {
    layer_norm_grad(rows(), channels(), x, parameter(norm), all.epsilon, dnormed, dy, dx, gradients.of(norm, layer),
                    gradients.of(norm + 1, layer));
  }
};

// Rows of a band from `top`, each number ended by ending(row)(number, column) while it is in the first cache:
// out = ending of input · packed weight.
template <class Ending>
void multiply_rows(int64_t top, int64_t rows, int64_t width, int64_t depth, const float* input, const float* packed,
                   float* out, const Ending& ending) {
  const auto finish = [&](int64_t row, int64_t count, int64_t column, int64_t columns) {
    for (int64_t r = row; r < row + count; ++r) {
      const auto end = ending(top + r);
      float* to = out + r * width;
#pragma omp simd
      for (int64_t j = column; j < column + columns; ++j) to[j] = end(to[j], j);
    }
  };
  multiply_band(rows, width, depth, {input, depth, 1}, packed, out, width, finish);
}

// out = ending of input · weightᵀ; input(top, bottom) gives some rows.
template <class Input, class Ending>
void project(int64_t rows, int64_t depth, int64_t width, const float* weight, const Input& input, float* out,
             const Ending& ending) {
  float* right = scratch(kRightPanels, packed_size(width, depth));
  pack_right({weight, 1, depth}, width, depth, right);
  split_bands(rows, [&](int64_t top, int64_t bottom) {
    multiply_rows(top, bottom - top, width, depth, input(top, bottom), right, out + top * width, ending);
  });
}

// ---- cross-covariance attention ------------------------------------------------------------------------------------

struct AttentionBranch : Branch {
  using L = Layers;

  AttentionBranch(const Layers& all, int64_t layer, const float* x) : Branch{all, layer, 0, L::kNorm1Gamma, L::kScale1, x} {}

  Heads heads() const { return {all.images, all.tokens, all.channels, all.heads, all.normalised}; }

  void forward(float* projected, float* attended, float* out) const {
    const int64_t channels = all.channels;
    const auto normed = [&](int64_t top, int64_t bottom) {
      float* rows = scratch(kFirst, (bottom - top) * channels);
      normalise(top, bottom, rows);
      return rows;
    };
    project(rows(), channels, 3 * channels, parameter(L::kQkv), normed, projected, [bias = parameter(L::kQkvBias)](int64_t) {
      return [=](float value, int64_t column) { return value + bias[column]; };
    });
    cross_covariance(heads(), projected, parameter(L::kTemperature), attended);
    project(rows(), channels, channels, parameter(L::kProj),
            [&](int64_t top, int64_t) { return attended + top * channels; }, out, onto_x(L::kProjBias));
  }

  void backward(const Gradients& to, const float* projected, const float* attended, const float* dy, float* dx) const {
    const int64_t channels = all.channels;
    const std::vector<float> proj = scaled(L::kProj, channels);
    float *dattended = scratch(kActive, rows() * channels), *dprojected = scratch(kPassed, rows() * 3 * channels);
    affine_grad(rows(), channels, channels, attended, proj.data(), kept(dy), dattended, to.of(L::kProj, layer),
                to.of(L::kProjBias, layer));
    unscale(to, L::kProj, channels);
    cross_covariance_grad(heads(), projected, parameter(L::kTemperature), dattended, dprojected,
                          to.of(L::kTemperature, layer));
    float* dnormed = dattended;  // which nobody needs any more
    affine_grad(rows(), 3 * channels, channels, normed(), parameter(L::kQkv), dprojected, dnormed, to.of(L::kQkv, layer),
                to.of(L::kQkvBias, layer));
    to_x(to, dnormed, dy, dx);
  }
};

// ---- local patch interaction; normalises by `mean` and biased `variance` (C) ----------------------------------------

template <class Form>
struct LocalBranch : Branch {
  using L = Layers;

  LocalBranch(const Layers& all, int64_t layer, const float* x) : Branch{all, layer, 1, L::kNorm3Gamma, L::kScale3, x} {}

  // The batch norm of rows of activations.
  void batch_norm(const float* active, const float* mean, const float* variance, float* out) const {
    BatchNorm{all.channels, parameter(L::kBatchGamma), parameter(L::kBatchBeta), mean, variance, all.batch_epsilon}.run(
        rows(), active, [=](int64_t at, float value) { out[at] = value; });
  }

  // `moving` writes the batch's statistics to mean and variance, else the running ones.
  void forward(bool moving, float* convolved, float* mean, float* variance, float* out) const {
    const int64_t channels = all.channels;
    float* active = scratch(kActive, rows() * channels);
    convolve(all.grid, all.images, normed(), parameter(L::kConv1), parameter(L::kConv1Bias), false, convolved);
    activate<Form>(rows() * channels, convolved, active);
    if (moving) {
      batch_moments(rows(), channels, active, mean, variance);
    } else {
      std::copy_n(parameter(L::kMean), channels, mean);
      std::copy_n(parameter(L::kVariance), channels, variance);
    }
    batch_norm(active, mean, variance, active);
    convolve(all.grid, all.images, active, parameter(L::kConv2), nullptr, false, out);
    split_rows(rows(), channels, [&](int64_t first, int64_t last) {
      const auto ending = onto_x(L::kConv2Bias);
      for (int64_t row = first; row < last; ++row) {
        const auto end = ending(row);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = end(out[row * channels + c], c);
      }
    });
  }

  void backward(const Gradients& to, bool moving, const float* convolved, const float* mean, const float* variance,
                const float* dy, float* dx) const {
    const int64_t channels = all.channels;
    const float* up = kept(dy);
    float *active = scratch(kActive, rows() * channels), *passed = scratch(kPassed, rows() * channels);
    float* normal = scratch(kNormed, rows() * channels);
    activate<Form>(rows() * channels, convolved, active);
    batch_norm(active, mean, variance, normal);
    convolve_grad(all.grid, all.images, normal, up, to.of(L::kConv2, layer), to.of(L::kConv2Bias, layer));
    unscale(to, L::kConv2, 9);
    convolve(all.grid, all.images, up, scaled(L::kConv2, 9).data(), nullptr, true, passed);
    batch_norm_grad(rows(), channels, active, parameter(L::kBatchGamma), mean, variance, all.batch_epsilon, moving, passed,
                    passed, to.of(L::kBatchGamma, layer), to.of(L::kBatchBeta, layer));
    activate_grad<Form>(rows() * channels, convolved, passed, passed);
    convolve_grad(all.grid, all.images, normed(), passed, to.of(L::kConv1, layer), to.of(L::kConv1Bias, layer));
    float* dnormed = active;  // which nobody needs any more
    convolve(all.grid, all.images, passed, parameter(L::kConv1), nullptr, true, dnormed);
    to_x(to, dnormed, dy, dx);
  }
};

// ---- MLP ---------------------------------------------------------------------------------------------------------------

template <class Form>
struct MlpBranch : Branch {
  using L = Layers;

  MlpBranch(const Layers& all, int64_t layer, const float* x) : Branch{all, layer, 2, L::kNorm2Gamma, L::kScale2, x} {}

  void forward(float* inner, float* out) const {
    const int64_t channels = all.channels, hidden = all.hidden;
    float* right = scratch(kMoreRightPanels, packed_size(hidden, channels));
    pack_right({parameter(L::kFc1), 1, channels}, hidden, channels, right);
    const float* bias = parameter(L::kFc1Bias);
    const auto activated = [&](int64_t top, int64_t bottom) {
      const int64_t count = bottom - top;
      float *rows = scratch(kFirst, count * channels), *active = scratch(kSecond, count * hidden);
      normalise(top, bottom, rows);
      multiply_rows(top, count, hidden, channels, rows, right, inner + top * hidden, [=](int64_t row) {
        float* to = active + (row - top) * hidden;
        return [=](float value, int64_t column) {
          to[column] = Form::value(value + bias[column]);
          return value + bias[column];
        };
      });
      return active;
    };
    project(rows(), hidden, channels, parameter(L::kFc2), activated, out, onto_x(L::kFc2Bias));
  }

  void backward(const Gradients& to, const float* inner, const float* dy, float* dx) const {
    const int64_t channels = all.channels, hidden = all.hidden;
    const float* up = kept(dy);
    const std::vector<float> fc2 = scaled(L::kFc2, hidden);
    float *active = scratch(kActive, rows() * hidden), *dinner = scratch(kPassed, rows() * hidden);
    float* right = scratch(kRightPanels, packed_size(hidden, channels));
    pack_right({fc2.data(), hidden, 1}, hidden, channels, right);
    split_bands(rows(), [=](int64_t top, int64_t bottom) {
      const auto ending = [=](int64_t row) {
        const float* from = inner + row * hidden;
        float* active_row = active + row * hidden;
        return [=](float value, int64_t column) {
          active_row[column] = Form::value(from[column]);
          return value * Form::slope(from[column]);
        };
      };
      multiply_rows(top, bottom - top, hidden, channels, up + top * channels, right, dinner + top * hidden, ending);
    });
    multiply(channels, hidden, rows(), {up, 1, channels}, {active, hidden, 1}, nullptr, to.of(L::kFc2, layer));
    column_sums(rows(), channels, up, to.of(L::kFc2Bias, layer));
    unscale(to, L::kFc2, hidden);
    float* dnormed = active;  // which nobody needs any more
    affine_grad(rows(), hidden, channels, normed(), parameter(L::kFc1), dinner, dnormed, to.of(L::kFc1, layer),
                to.of(L::kFc1Bias, layer));
    to_x(to, dnormed, dy, dx);
  }
};

// ---- all layers ----------------------------------------------------------------------------------------------------

// x (B, N, C) and the operands of Layers → (B, N, C), what the gradient needs, batch means and biased variances.
// `moving` normalises by the batch's statistics, else by the running ones.
template <class Form>
void trained_blocks(const Arguments& a, bool normalised, bool moving) {
  const Layers all(a, normalised);
  float* out = a.floats(Layers::kOperands);
  const Kept kept{all, a.floats(Layers::kOperands + 1)};
  float *means = a.floats(Layers::kOperands + 2), *variances = a.floats(Layers::kOperands + 3);
  for (int64_t layer = 0; layer < all.depth; ++layer) {
    float *first = kept.after_attention(layer), *second = kept.after_local(layer);
    AttentionBranch(all, layer, kept.before(layer)).forward(kept.projected(layer), kept.attended(layer), first);
    LocalBranch<Form>(all, layer, first)
        .forward(moving, kept.convolved(layer), means + layer * all.channels, variances + layer * all.channels, second);
    MlpBranch<Form>(all, layer, second).forward(kept.inner(layer), layer + 1 < all.depth ? kept.after(layer) : out);
  }
}

// The operands of Layers, what the forward operation put out beside its result, dy → dx and the parameters' gradients.
template <class Form>
void trained_blocks_grad(const Arguments& a, bool normalised, bool moving) {
  const Layers all(a, normalised);
  const Gradients to{all};
  const Kept kept{all, a.floats(Gradients::kKept)};
  const float *means = a.floats(Gradients::kBatchMean), *variances = a.floats(Gradients::kBatchVariance);
  const float* dy = a.floats(Gradients::kDy);
  float* dx = a.floats(Gradients::kDx);
  for (int64_t layer = all.depth - 1; layer >= 0; --layer, dy = dx) {
    const float *first = kept.after_attention(layer), *second = kept.after_local(layer);
    MlpBranch<Form>(all, layer, second).backward(to, kept.inner(layer), dy, dx);
    LocalBranch<Form>(all, layer, first)
        .backward(to, moving, kept.convolved(layer), means + layer * all.channels, variances + layer * all.channels, dx, dx);
    AttentionBranch(all, layer, kept.before(layer)).backward(to, kept.projected(layer), kept.attended(layer), dx, dx);
  }
}

}  // namespace xcit
