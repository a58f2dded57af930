// Cross-covariance blocks in training: the forward of block.h that keeps what its gradient needs, and that gradient.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "attention.h"
#include "block.h"
#include "depthwise.h"
#include "gelu.h"
#include "gemm.h"
#include "linear.h"
#include "memory.h"
#include "norms.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// What is kept of each layer, (layers · B · N · (8 · C + M)) but for the last layer's result, which is the operation's own.
struct Kept {
  const BlockSizes& s;
  const float* x;
  float *data, *out;

  float* at(int64_t layer, int64_t columns) const { return data + s.rows() * (layer * (8 * s.channels + s.hidden) + columns); }

  // Of a layer, from a row on.
  Places of(int64_t layer, int64_t row = 0) const {
    const int64_t c = s.channels, after = 7 * c + s.hidden;
    Places p{};
    p.x = (layer ? at(layer - 1, after) : x) + row * c;
    p.after_attention = at(layer, 0) + row * c;
    p.after_local = at(layer, c) + row * c;
    p.qkv = at(layer, 2 * c) + row * 3 * c;
    p.attended = at(layer, 5 * c) + row * c;
    p.convolved = at(layer, 6 * c) + row * c;
    p.inner = at(layer, 7 * c) + row * s.hidden;
    p.out = (layer + 1 < s.layers ? at(layer, after) : out) + row * c;
    return p;
  }
};

// Call job(first, count) for all images: one after another, each by a thread, which waits for nobody; fewer images than threads
// are worth the waiting.
template <class Job>
void split_images(int64_t images, const Job& job) {
  if (images < Team::instance().size()) return job(0, images);
  Team::instance().split(images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t which = begin; which < end; ++which) job(which, 1);
  });
}

// operands::BlocksTrain: x (B, N, C) → out (B, N, C), kept, batch_mean and biased batch_variance (layers · C).
// `moving` normalises by the batch's statistics, else by the running ones, which it puts out.
template <class Form>
void train_blocks(const Arguments& a, bool normalised, bool moving) {
  const operands::BlocksTrain d(a);
  const BlockSizes s = sizes_of_blocks(a, normalised);
  const Kept kept{s, d.x, d.kept, d.out};
  const int64_t channels = s.channels, image = s.tokens * channels;
  float* active = workspace(Use::kActive, s.rows() * channels);
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    float *mean = d.batch_mean + layer * channels, *variance = d.batch_variance + layer * channels;
    const BlockWeights w = prepared(a, s, layer);
    const auto some = [&](int64_t first, int64_t count, const auto& run) {
      Places p = kept.of(layer, first * s.tokens);
      p.active = active + first * image;
      run(Block<Form>{s, w, keep_of_blocks(a, s, layer), first, count}, p);
    };
    split_images(s.images, [&](int64_t first, int64_t count) {
      some(first, count, [&](const Block<Form>& block, Places& p) {
        p.normed = workspace(Use::kNormed, count * image);
        block.attention(p);
        block.first_convolution(p, !moving);
      });
    });
    if (moving) {
      batch_moments(s.rows(), channels, active, mean, variance);
    } else {
      std::copy_n(w.moving_mean, channels, mean);
      std::copy_n(w.moving_variance, channels, variance);
    }
    split_images(s.images, [&](int64_t first, int64_t count) {
      some(first, count, [&](const Block<Form>& block, const Places& p) {
        if (moving) {
          BatchNorm{channels, w.bn_gamma, w.bn_beta, mean, variance, s.bn_epsilon}.run(
              count * s.tokens, p.active, [to = p.active](int64_t at, float value) { to[at] = value; });
        }
        block.second_convolution(p);
        block.mlp(p);
      });
    });
  }
}

// The epilogue of dy · fc2: through GELU to `inner`, of whose values it makes GELU again. All (rows, width).
template <class Form>
struct ThroughGelu {
  const int64_t width;
  const float* inner;
  float *active, *dinner;

  auto operator()(int64_t row) const {
    const float* from = inner + row * width;
    float *again = active + row * width, *out = dinner + row * width;
    return [=](float sum, int64_t column) {
      float value, slope;
      Form::both(from[column], value, slope);
      again[column] = value;
      out[column] = sum * slope;
    };
  }

  void fetch(int64_t row, int64_t column, int64_t columns) const {
    fetch_line<false>(inner + row * width + column, columns);
    fetch_line<true>(active + row * width + column, columns);
  }
};

// A layer's way back: each branch from the gradient dy of its result to dx, of what it read, and its parameters'. dx may be dy.
template <class Form>
struct BlockGradient {
  const BlockSizes& s;
  const operands::BlockParameters p;
  const operands::BlockGradients to;
  const Keep keep;

  int64_t rows() const { return s.rows(); }

  // keep · dy
  const float* kept(int branch, const float* dy) const {
    if (keep.one_for_all && *keep.factors == 1.0f) return dy;
    const int64_t channels = s.channels;
    float* out = workspace(Use::kUp, rows() * channels);
    split_rows(rows(), channels, [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const float factor = keep.at(branch, row);
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) out[row * channels + c] = factor * dy[row * channels + c];
      }
    });
    return out;
  }

  // The layer norm of x (rows, C), again.
  const float* normed(const float* x, const float* gamma, const float* beta) const {
    const int64_t channels = s.channels;
    const float epsilon = s.epsilon;
    float* out = workspace(Use::kNormed, rows() * channels);
    split_rows(rows(), channels, [=](int64_t first, int64_t last) {
      for (int64_t at = first * channels; at < last * channels; at += channels) {
        normalise(x + at, channels, epsilon, gamma, beta, out + at);
      }
    });
    return out;
  }

  // scale (C) · weight (C, width) → out
  void scaled(const float* weight, const float* scale, int64_t width, float* out) const {
    split_rows(s.channels, width, [=](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) {
        const float factor = scale[c];
#pragma omp simd
        for (int64_t at = c * width; at < (c + 1) * width; ++at) out[at] = factor * weight[at];
      }
    });
  }

  // The gradients of the layer scale (C) and of the map before it, weight (C, width) and bias (C). They come as those of an
  // unscaled map: their products with the map are the scale's, so that its output need not be kept.
  void unscale(const float* weight, const float* bias, const float* scale, int64_t width, float* dweight, float* dbias,
               float* dscale) const {
    split_rows(s.channels, width, [=](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) {
        const float factor = scale[c];
        float sum = bias[c] * dbias[c];
        // One after another: compilers would begin a vector's sum where memory is aligned, which differs from run to run.
        for (int64_t at = c * width; at < (c + 1) * width; ++at) {
          sum += weight[at] * dweight[at];
          dweight[at] *= factor;
        }
        dscale[c] = sum;
        dbias[c] *= factor;
      }
    });
  }

  void attention(const Places& at, const float* dy, float* dx) const {
    const int64_t channels = s.channels;
    const Buffer proj(channels * channels);
    scaled(p.proj, p.gamma1, channels, proj);
    float *dattended = workspace(Use::kActive, rows() * channels), *dqkv = workspace(Use::kPassed, rows() * 3 * channels);
    affine_grad(rows(), channels, channels, at.attended, proj, kept(0, dy), dattended, to.dproj, to.dproj_bias);
    unscale(p.proj, p.proj_bias, p.gamma1, channels, to.dproj, to.dproj_bias, to.dgamma1);
    attention_grad(s.heads, s.images, at.qkv, p.temperature, dattended, dqkv, to.dtemperature);
    float* dnormed = dattended;  // which nobody needs any more
    affine_grad(rows(), 3 * channels, channels, normed(at.x, p.norm1_gamma, p.norm1_beta), p.qkv, dqkv, dnormed, to.dqkv,
                to.dqkv_bias);
    layer_norm_grad(rows(), channels, at.x, p.norm1_gamma, s.epsilon, dnormed, dy, dx, to.dnorm1_gamma, to.dnorm1_beta);
  }

  // By mean and biased variance (C); `moving` says that they come from the batch.
  void local(const Places& at, bool moving, const float* mean, const float* variance, const float* dy, float* dx) const {
    const int64_t channels = s.channels, size = rows() * channels;
    const float *up = kept(1, dy), *convolved = at.convolved;
    float *active = workspace(Use::kActive, size), *passed = workspace(Use::kPassed, size);
    float* normal = workspace(Use::kNormed, size);
    const BatchNorm norm{channels, p.bn_gamma, p.bn_beta, mean, variance, s.bn_epsilon};
    const Buffer factors(channels);
    norm.factors(factors);
    split_rows(rows(), channels, [=, factor = static_cast<const float*>(factors), shift = p.bn_beta](int64_t first, int64_t last) {
      for (int64_t row = first * channels; row < last * channels; row += channels) {
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          active[row + c] = Form::value(convolved[row + c]);
          normal[row + c] = (active[row + c] - mean[c]) * factor[c] + shift[c];
        }
      }
    });
    convolve_grad(s.grid, s.images, normal, up, to.dconv2, to.dconv2_bias);
    unscale(p.conv2, p.conv2_bias, p.gamma3, 9, to.dconv2, to.dconv2_bias, to.dgamma3);
    const Buffer conv2(9 * channels);
    scaled(p.conv2, p.gamma3, 9, conv2);
    convolve(s.grid, s.images, up, conv2, nullptr, true, passed);
    batch_norm_grad(norm, rows(), active, moving, [=](int64_t index, float) { return passed[index]; },
                    [=](int64_t index, float number) { return number * Form::slope(convolved[index]); }, passed, to.dbn_gamma,
                    to.dbn_beta);
    convolve_grad(s.grid, s.images, normed(at.after_attention, p.norm3_gamma, p.norm3_beta), passed, to.dconv1, to.dconv1_bias);
    float* dnormed = active;  // which nobody needs any more
    convolve(s.grid, s.images, passed, p.conv1, nullptr, true, dnormed);
    layer_norm_grad(rows(), channels, at.after_attention, p.norm3_gamma, s.epsilon, dnormed, dy, dx, to.dnorm3_gamma,
                    to.dnorm3_beta);
  }

  void mlp(const Places& at, const float* dy, float* dx) const {
    const int64_t channels = s.channels, hidden = s.hidden;
    const float *up = kept(2, dy), *inner = at.inner;
    const Buffer fc2(channels * hidden);
    scaled(p.fc2, p.gamma2, hidden, fc2);
    float *active = workspace(Use::kActive, rows() * hidden), *dinner = workspace(Use::kPassed, rows() * hidden);
    const Packed right =
        pack_b(rows_of(fc2, hidden), hidden, channels, workspace(Use::kPackedB, packed_size(hidden, channels)));
    multiply(rows(), rows_of(up, channels), right, dinner, ThroughGelu<Form>{hidden, inner, active, dinner});
    weight_grad(rows(), channels, hidden, up, active, to.dfc2);
    column_sums(rows(), channels, up, to.dfc2_bias);
    unscale(p.fc2, p.fc2_bias, p.gamma2, hidden, to.dfc2, to.dfc2_bias, to.dgamma2);
    float* dnormed = active;  // which nobody needs any more
    affine_grad(rows(), hidden, channels, normed(at.after_local, p.norm2_gamma, p.norm2_beta), p.fc1, dinner, dnormed, to.dfc1,
                to.dfc1_bias);
    layer_norm_grad(rows(), channels, at.after_local, p.norm2_gamma, s.epsilon, dnormed, dy, dx, to.dnorm2_gamma,
                    to.dnorm2_beta);
  }
};

// operands::BlocksGrad: what the forward read and kept, and dy (B, N, C) → dx (B, N, C) and the parameters' gradients.
template <class Form>
void blocks_grad(const Arguments& a, bool normalised, bool moving) {
  const operands::BlocksGrad d(a);
  const BlockSizes s = sizes_of_blocks(a, normalised);
  const Kept kept{s, d.x, const_cast<float*>(d.kept), nullptr};
  const float* dy = d.dy;
  for (int64_t layer = s.layers - 1; layer >= 0; --layer, dy = d.dx) {
    const Places at = kept.of(layer);
    const BlockGradient<Form> gradient{s, operands::BlockParameters::of(a, s.layers, layer),
                                       operands::BlockGradients::of(a, s.layers, layer), keep_of_blocks(a, s, layer)};
    gradient.mlp(at, dy, d.dx);
    gradient.local(at, moving, d.batch_mean + layer * s.channels, d.batch_variance + layer * s.channels, d.dx, d.dx);
    gradient.attention(at, d.dx, d.dx);
  }
}

}  // namespace xcit
