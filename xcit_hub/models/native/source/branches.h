// The residual branches of a cross-covariance block, each one operation, forward and backward:
// out = x + keep · scale · branch(layer norm of x).
//
// `keep` is stochastic depth's factor, of each image or one for all; `scale` the layer scale. A gradient takes what its
// operation took, what it put out beyond `out`, and dy.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "attention.h"
#include "depthwise.h"
#include "gelu.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

struct Branch {
  enum Operand { kX, kKeep, kEpsilon, kNormGamma, kNormBeta, kScale, kOwn };  // a branch's own operands begin at kOwn
  enum Gradient { kDx, kDNormGamma, kDNormBeta, kDScale, kDOwn };             // and their gradients at kDOwn

  const Arguments& a;
  const int operands, outputs;  // of the forward operation; all outputs but the first are handed to its gradient
  const int64_t images, tokens, channels, rows;
  const float *x, *scale;

  Branch(const Arguments& a, int operands, int outputs)
      : a(a),
        operands(operands),
        outputs(outputs),
        images(a.dim(kX, 0)),
        tokens(a.dim(kX, 1)),
        channels(a.dim(kX, 2)),
        rows(images * tokens),
        x(a.floats(kX)),
        scale(a.floats(kScale)) {}

  float* output(int index) const { return a.floats(operands + index); }

  // In a gradient: an output of the forward operation but for the first, what came back for the first, and the results.
  const float* saved(int index) const { return a.floats(operands + index - 1); }
  const float* dy() const { return a.floats(operands + outputs - 1); }
  float* gradient(int index) const { return a.floats(operands + outputs + index); }

  float keep(int64_t row) const { return a.floats(kKeep)[a.size(kKeep) == 1 ? 0 : row / tokens]; }

  // The layer norm of rows [top, bottom).
  void normalise(int64_t top, int64_t bottom, float* out) const {
    for (int64_t row = top; row < bottom; ++row, out += channels) {
      xcit::normalise(x + row * channels, channels, *a.floats(kEpsilon), a.floats(kNormGamma), a.floats(kNormBeta), out);
    }
  }

  const float* normed() const {
    float* out = scratch(kNormed, rows * channels);
    split_rows(rows, channels, [=](int64_t top, int64_t bottom) { normalise(top, bottom, out + top * channels); });
    return out;
  }

  // What ends a row of the result: the branch without its last bias, by its column, becomes out.
  auto onto_x(const float* bias) const {
    return [=](int64_t row) {
      const float *from = x + row * channels, *factor = scale, kept = keep(row);
      return [=](float value, int64_t c) { return from[c] + kept * factor[c] * (value + bias[c]); };
    };
  }

  // keep · dy
  const float* kept_dy() const {
    const float* dy = this->dy();
    const float* factors = a.floats(kKeep);
    if (std::all_of(factors, factors + a.size(kKeep), [](float factor) { return factor == 1.0f; })) return dy;
    float* out = scratch(kUp, rows * channels);
    split_rows(rows, channels, [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const float factor = keep(row);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = factor * dy[row * channels + c];
      }
    });
    return out;
  }

  // scale · weight (C, width)
  std::vector<float> scaled(const float* weight, int64_t width) const {
    std::vector<float> out(channels * width);
    for (int64_t i = 0; i < channels * width; ++i) out[i] = scale[i / width] * weight[i];
    return out;
  }

  // The gradients of the layer scale and of the map before it, (C, width) and bias. dweight and dbias come as those of an
  // unscaled map: their products with the map are the scale's, so that its output need not be kept.
  void unscale(const float* weight, const float* bias, int64_t width, float* dweight, float* dbias) const {
    float* dscale = gradient(kDScale);
    for (int64_t c = 0; c < channels; ++c) {
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
  void to_x(const float* dnormed) const {
    layer_norm_grad(rows, channels, x, a.floats(kNormGamma), *a.floats(kEpsilon), dnormed, dy(), gradient(kDx),
                    gradient(kDNormGamma), gradient(kDNormBeta));
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

// ---- cross-covariance attention; also puts out qkv (B, N, 3·C) and what attends (B, N, C) --------------------------

struct AttentionBranch : Branch {
  enum Own { kQkv = kOwn, kQkvBias, kTemperature, kProj, kProjBias, kOperands };
  enum OwnGradient { kDQkv = kDOwn, kDQkvBias, kDTemperature, kDProj, kDProjBias };
  enum Output { kOut, kProjected, kAttended, kOutputs };

  const Heads heads;

  AttentionBranch(const Arguments& a, bool normalised)
      : Branch(a, kOperands, kOutputs), heads{images, tokens, channels, a.dim(kTemperature, 0), normalised} {}
};

inline void attention_branch(const Arguments& a, bool normalised) {
  using B = AttentionBranch;
  const B b(a, normalised);
  const int64_t channels = b.channels;
  float *out = b.output(B::kOut), *qkv = b.output(B::kProjected), *attended = b.output(B::kAttended);
  const auto normed = [&](int64_t top, int64_t bottom) {
    float* rows = scratch(kFirst, (bottom - top) * channels);
    b.normalise(top, bottom, rows);
    return rows;
  };
  project(b.rows, channels, 3 * channels, a.floats(B::kQkv), normed, qkv, [bias = a.floats(B::kQkvBias)](int64_t) {
    return [=](float value, int64_t column) { return value + bias[column]; };
  });
  cross_covariance(b.heads, qkv, a.floats(B::kTemperature), attended);
  project(b.rows, channels, channels, a.floats(B::kProj), [&](int64_t top, int64_t) { return attended + top * channels; },
          out, b.onto_x(a.floats(B::kProjBias)));
}

inline void attention_branch_grad(const Arguments& a, bool normalised) {
  using B = AttentionBranch;
  const B b(a, normalised);
  const int64_t rows = b.rows, channels = b.channels;
  const float* proj = a.floats(B::kProj);
  const std::vector<float> scaled = b.scaled(proj, channels);
  float *dattended = scratch(kActive, rows * channels), *dqkv = scratch(kPassed, rows * 3 * channels);
  affine_grad(rows, channels, channels, b.saved(B::kAttended), scaled.data(), b.kept_dy(), dattended,
              b.gradient(B::kDProj), b.gradient(B::kDProjBias));
  b.unscale(proj, a.floats(B::kProjBias), channels, b.gradient(B::kDProj), b.gradient(B::kDProjBias));
  cross_covariance_grad(b.heads, b.saved(B::kProjected), a.floats(B::kTemperature), dattended, dqkv,
                        b.gradient(B::kDTemperature));
  float* dnormed = dattended;  // which nobody needs any more
  affine_grad(rows, 3 * channels, channels, b.normed(), a.floats(B::kQkv), dqkv, dnormed, b.gradient(B::kDQkv),
              b.gradient(B::kDQkvBias));
  b.to_x(dnormed);
}

// ---- local patch interaction; also puts out the first convolution (B, N, C), batch mean and variance (C) ------------

struct LocalBranch : Branch {
  enum Own { kConv1 = kOwn, kConv1Bias, kGamma, kBeta, kConv2, kConv2Bias, kMean, kVariance, kBatchEpsilon, kSides,
             kOperands };
  enum OwnGradient { kDConv1 = kDOwn, kDConv1Bias, kDGamma, kDBeta, kDConv2, kDConv2Bias };
  enum Output { kOut, kConvolved, kBatchMean, kBatchVariance, kOutputs };

  const Grid grid;

  explicit LocalBranch(const Arguments& a)
      : Branch(a, kOperands, kOutputs),
        grid{static_cast<std::int32_t*>(a.data[kSides])[0], static_cast<std::int32_t*>(a.data[kSides])[1], channels} {}

  // The batch norm of rows of activations.
  void batch_norm(const float* active, const float* mean, const float* variance, float* out) const {
    const float *gamma = a.floats(kGamma), *beta = a.floats(kBeta);
    std::vector<float> factors(channels);
    for (int64_t c = 0; c < channels; ++c) factors[c] = gamma[c] / std::sqrt(variance[c] + *a.floats(kBatchEpsilon));
    const float* factor = factors.data();
    const int64_t width = channels;
    split_rows(rows, channels, [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t at = row * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) out[at + c] = (active[at + c] - mean[c]) * factor[c] + beta[c];
      }
    });
  }
};

// `moving` takes the batch's statistics, else the running ones.
template <class Form>
void local_branch(const Arguments& a, bool moving) {
  using B = LocalBranch;
  const B b(a);
  const int64_t rows = b.rows, channels = b.channels;
  float *out = b.output(B::kOut), *convolved = b.output(B::kConvolved);
  float *mean = b.output(B::kBatchMean), *variance = b.output(B::kBatchVariance);
  float* active = scratch(kActive, rows * channels);
  convolve(b.grid, b.images, b.normed(), a.floats(B::kConv1), a.floats(B::kConv1Bias), false, convolved);
  activate<Form>(rows * channels, convolved, active);
  if (moving) {
    batch_moments(rows, channels, active, mean, variance);
  } else {
    std::copy_n(a.floats(B::kMean), channels, mean);
    std::copy_n(a.floats(B::kVariance), channels, variance);
  }
  b.batch_norm(active, mean, variance, active);
  convolve(b.grid, b.images, active, a.floats(B::kConv2), nullptr, false, out);
  split_rows(rows, channels, [&](int64_t first, int64_t last) {
    const auto ending = b.onto_x(a.floats(B::kConv2Bias));
    for (int64_t row = first; row < last; ++row) {
      const auto end = ending(row);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = end(out[row * channels + c], c);
    }
  });
}

template <class Form>
void local_branch_grad(const Arguments& a, bool moving) {
  using B = LocalBranch;
  const B b(a);
  const int64_t rows = b.rows, channels = b.channels;
  const float *convolved = b.saved(B::kConvolved), *mean = b.saved(B::kBatchMean), *variance = b.saved(B::kBatchVariance);
  const float *conv2 = a.floats(B::kConv2), *up = b.kept_dy();
  float *active = scratch(kActive, rows * channels), *passed = scratch(kPassed, rows * channels);
  float* normed = scratch(kNormed, rows * channels);
  activate<Form>(rows * channels, convolved, active);
  b.batch_norm(active, mean, variance, normed);
  convolve_grad(b.grid, b.images, normed, up, b.gradient(B::kDConv2), b.gradient(B::kDConv2Bias));
  b.unscale(conv2, a.floats(B::kConv2Bias), 9, b.gradient(B::kDConv2), b.gradient(B::kDConv2Bias));
  convolve(b.grid, b.images, up, b.scaled(conv2, 9).data(), nullptr, true, passed);
  batch_norm_grad(rows, channels, active, a.floats(B::kGamma), mean, variance, *a.floats(B::kBatchEpsilon), moving, passed,
                  passed, b.gradient(B::kDGamma), b.gradient(B::kDBeta));
  activate_grad<Form>(rows * channels, convolved, passed, passed);
  convolve_grad(b.grid, b.images, b.normed(), passed, b.gradient(B::kDConv1), b.gradient(B::kDConv1Bias));
  float* dnormed = active;  // which nobody needs any more
  convolve(b.grid, b.images, passed, a.floats(B::kConv1), nullptr, true, dnormed);
  b.to_x(dnormed);
}

// ---- MLP; also puts out what its activation reads, (B, N, hidden) ---------------------------------------------------

struct MlpBranch : Branch {
  enum Own { kFc1 = kOwn, kFc1Bias, kFc2, kFc2Bias, kOperands };
  enum OwnGradient { kDFc1 = kDOwn, kDFc1Bias, kDFc2, kDFc2Bias };
  enum Output { kOut, kHidden, kOutputs };

  const int64_t hidden;

  explicit MlpBranch(const Arguments& a) : Branch(a, kOperands, kOutputs), hidden(a.dim(kFc1, 0)) {}
};

template <class Form>
void mlp_branch(const Arguments& a) {
  using B = MlpBranch;
  const B b(a);
  const int64_t channels = b.channels, hidden = b.hidden;
  float *out = b.output(B::kOut), *inner = b.output(B::kHidden);
  float* right = scratch(kMoreRightPanels, packed_size(hidden, channels));
  pack_right({a.floats(B::kFc1), 1, channels}, hidden, channels, right);
  const float* bias = a.floats(B::kFc1Bias);
  const auto activated = [&](int64_t top, int64_t bottom) {
    const int64_t count = bottom - top;
    float *rows = scratch(kFirst, count * channels), *active = scratch(kSecond, count * hidden);
    b.normalise(top, bottom, rows);
    multiply_rows(top, count, hidden, channels, rows, right, inner + top * hidden, [=](int64_t row) {
      float* to = active + (row - top) * hidden;
      return [=](float value, int64_t column) {
        to[column] = Form::value(value + bias[column]);
        return value + bias[column];
      };
    });
    return active;
  };
  project(b.rows, hidden, channels, a.floats(B::kFc2), activated, out, b.onto_x(a.floats(B::kFc2Bias)));
}

template <class Form>
void mlp_branch_grad(const Arguments& a) {
  using B = MlpBranch;
  const B b(a);
  const int64_t rows = b.rows, channels = b.channels, hidden = b.hidden;
  const float *inner = b.saved(B::kHidden), *fc2 = a.floats(B::kFc2), *up = b.kept_dy();
  const std::vector<float> scaled = b.scaled(fc2, hidden);
  float *active = scratch(kActive, rows * hidden), *dinner = scratch(kPassed, rows * hidden);
  float* right = scratch(kRightPanels, packed_size(hidden, channels));
  pack_right({scaled.data(), hidden, 1}, hidden, channels, right);
  split_bands(rows, [=](int64_t top, int64_t bottom) {
    const auto ending = [=](int64_t row) {
      const float* from = inner + row * hidden;
      float* to = active + row * hidden;
      return [=](float value, int64_t column) {
        to[column] = Form::value(from[column]);
        return value * Form::slope(from[column]);
      };
    };
    multiply_rows(top, bottom - top, hidden, channels, up + top * channels, right, dinner + top * hidden, ending);
  });
  multiply(channels, hidden, rows, {up, 1, channels}, {active, hidden, 1}, nullptr, b.gradient(B::kDFc2));
  column_sums(rows, channels, up, b.gradient(B::kDFc2Bias));
  b.unscale(fc2, a.floats(B::kFc2Bias), hidden, b.gradient(B::kDFc2), b.gradient(B::kDFc2Bias));
  float* dnormed = active;  // which nobody needs any more
  affine_grad(rows, hidden, channels, b.normed(), a.floats(B::kFc1), dinner, dnormed, b.gradient(B::kDFc1),
              b.gradient(B::kDFc1Bias));
  b.to_x(dnormed);
}

}  // namespace xcit
