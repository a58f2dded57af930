// Cross-covariance blocks, forward: one way for evaluation, for a fused network and for training.
//
// A block is three residual branches, x + keep · scale · branch(layer norm of x): cross-covariance attention, local patch
// interaction (two depth-wise convolutions with GELU and a batch norm between) and the MLP. `keep` is stochastic depth's
// factor of an image, `scale` the layer scale. B images of N tokens of C channels, M hidden ones, h heads.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "attention.h"
#include "depthwise.h"
#include "gemm.h"
#include "memory.h"
#include "norms.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

struct BlockSizes {
  int64_t images, tokens, channels, hidden, layers;
  Heads heads;
  Grid grid;
  float epsilon, bn_epsilon;

  int64_t rows() const { return images * tokens; }
};

// Of the operands of Blocks, BlocksTrain and BlocksGrad, which begin alike.
inline BlockSizes sizes_of_blocks(const Arguments& a, bool normalised) {
  using B = operands::Blocks;
  const int64_t tokens = a.dim(B::kX, 1), channels = a.dim(B::kX, 2), layers = a.size(B::kGamma1) / channels;
  const std::int32_t* sides = a.integers(B::kSides);
  const float* epsilons = a.floats(B::kEpsilons);
  return {a.dim(B::kX, 0),
          tokens,
          channels,
          a.size(B::kFc1Bias) / layers,
          layers,
          {tokens, channels, a.size(B::kTemperature) / layers, normalised},
          {sides[0], sides[1], channels},
          epsilons[0],
          epsilons[1]};
}

// What a forward reads of a layer: the parameters, but weights of products packed, convolutions as (9, C), and the batch
// norm as (x − moving_mean) · bn_scale + bn_beta.
struct BlockWeights : operands::BlockParameters {
  const float* bn_scale;
};

// Stochastic depth's factors, of each layer, branch and image, (layers · 3 · B), or one for all.
struct Keep {
  const float* factors;
  bool one_for_all;
  int64_t images, tokens, layer;

  float at(int branch, int64_t row) const {
    return one_for_all ? *factors : factors[(layer * 3 + branch) * images + row / tokens];
  }
};

inline Keep keep_of_blocks(const Arguments& a, const BlockSizes& s, int64_t layer) {
  using B = operands::Blocks;
  return {a.floats(B::kKeep), a.size(B::kKeep) == 1, s.images, s.tokens, layer};
}

// Where a layer reads some images and leaves what it computes of them, rows (·, C) but for qkv (·, 3·C) and inner (·, M).
// after_attention, after_local and out may be x, and convolved may be active. What is null is not kept. With `values` there
// is one image, so large that of qkv only kChunk rows are there at a time, and the values are kept.
struct Places {
  const float* x;
  float *qkv, *attended, *after_attention, *normed, *convolved, *active, *after_local, *inner, *out, *values;
};

constexpr int64_t kChunk = 2048;
// Rows of the grid whose norms are there at a time where they are not kept, one more on either side.
constexpr int64_t kNormedRows = 16;

// A layer's branches for the images [first, first + count).
template <class Form>
struct Block {
  const BlockSizes& s;
  const BlockWeights& w;
  const Keep keep;
  const int64_t first, count;

  int64_t rows() const { return count * s.tokens; }

  // What ends a branch: rows of to = from + keep · scale · (sum + bias).
  auto onto(int branch, const float* bias, const float* scale, const float* from, float* to) const {
    return [=, keep = keep, first_row = first * s.tokens, channels = s.channels](int64_t row) {
      const float factor = keep.at(branch, first_row + row), *x = from + row * channels;
      float* out = to + row * channels;
      return [=](float sum, int64_t c) { out[c] = x[c] + factor * scale[c] * (sum + bias[c]); };
    };
  }

  void normalise_rows(int64_t top, int64_t bottom, const float* x, const float* gamma, const float* beta, float* out) const {
    for (int64_t row = top; row < bottom; ++row, out += s.channels) {
      normalise(x + row * s.channels, s.channels, s.epsilon, gamma, beta, out);
    }
  }

  // x → qkv, attended if it is kept, after_attention; `kind` is this, of the class that says how it projects and mixes.
  void attention(const Places& p) const { attend(*this, p); }
  template <class Kind>
  void attend(const Kind& kind, const Places& p) const {
    const int64_t width = 3 * s.channels, map = s.heads.heads * s.heads.dim() * s.heads.dim();  // of an image
    const Buffer maps(count * map);
    if (p.values) {
      maps_by_chunks(kind, p, maps);
      return kind.mix(p, rows_of(p.values, s.channels), maps);
    }
    kind.project(rows(), p.x, p.qkv);
    Team::instance().split(count * s.heads.heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        attention_map(s.heads, item % s.heads.heads, p.qkv + item / s.heads.heads * s.tokens * width, w.temperature,
                      maps + item / s.heads.heads * map);
      }
    });
    kind.mix(p, rows_of(p.qkv, width).at(0, 2 * s.channels), maps);
  }

  // x (rows, C) → qkv (rows, 3·C)
  void project(int64_t rows, const float* x, float* qkv) const {
    const int64_t channels = s.channels, width = 3 * channels;
    split_bands(rows, [&](int64_t top, int64_t bottom) {
      float* normed = workspace(Use::kBandIn, (bottom - top) * channels);
      normalise_rows(top, bottom, x, w.norm1_gamma, w.norm1_beta, normed);
      multiply_band(top, bottom - top, rows_of(normed, channels), {w.qkv, width, channels}, qkv + top * width,
                    add_bias(w.qkv_bias, qkv, width));
    });
  }

  // x of one image → values, maps (h, d, d)
  template <class Kind>
  void maps_by_chunks(const Kind& kind, const Places& p, float* maps) const {
    const int64_t channels = s.channels, width = 3 * channels, dim = s.heads.dim(), size = HeadMap::size(dim);
    const Buffer sums(s.heads.heads * size);
    for (int64_t begin = 0; begin < s.tokens; begin += kChunk) {
      const int64_t tokens = std::min(kChunk, s.tokens - begin);
      kind.project(tokens, p.x + begin * channels, p.qkv);
      Team::instance().split(s.heads.heads, 1, [&](int64_t first_head, int64_t last_head) {
        for (int64_t which = first_head; which < last_head; ++which) {
          const Matrix query{p.qkv + which * dim, width, 1};
          HeadMap(s.heads, sums + which * size).add(query, query.at(0, channels), tokens, begin == 0);
        }
      });
      split_rows(tokens, channels, [&](int64_t top, int64_t bottom) {
        for (int64_t row = top; row < bottom; ++row) {
          std::copy_n(p.qkv + row * width + 2 * channels, channels, p.values + (begin + row) * channels);
        }
      });
    }
    for (int64_t which = 0; which < s.heads.heads; ++which) {
      const HeadMap head(s.heads, sums + which * size);
      head.attend(w.temperature[which]);
      transpose_square(head.attention, dim, maps + which * dim * dim);
    }
  }

  // x, values (rows, C), maps of every image → attended if it is kept, after_attention
  void mix(const Places& p, const Matrix& values, const float* maps) const {
    const int64_t channels = s.channels, tokens = s.tokens, map = s.heads.heads * s.heads.dim() * s.heads.dim();
    split_bands(rows(), [&](int64_t top, int64_t bottom) {
      const int64_t size = (bottom - top) * channels;
      float* attended = p.attended ? p.attended + top * channels : workspace(Use::kBandIn, size);
      for (int64_t row = top, next; row < bottom; row = next) {  // a band may begin in one image and end in another
        next = std::min(bottom, (row / tokens + 1) * tokens);
        mix_values(s.heads, next - row, values.at(row, 0), maps + row / tokens * map, attended + (row - top) * channels);
      }
      multiply_band(top, bottom - top, rows_of(attended, channels), {w.proj, channels, channels},
                    workspace(Use::kBandOut, size), onto(0, w.proj_bias, w.gamma1, p.x, p.after_attention));
    });
  }

  // after_attention → normed if it is kept, convolved, and active: what GELU makes of it, through the batch norm if that is
  // known already.
  void first_convolution(const Places& p, bool batch_norm) const {
    const int64_t channels = s.channels, line = s.grid.width * channels;
    const auto normalise_into = [&](int64_t top, int64_t bottom, float* to) {
      normalise_rows(top, bottom, p.after_attention, w.norm3_gamma, w.norm3_beta, to);
    };
    if (p.normed) {
      split_rows(rows(), channels, [&](int64_t top, int64_t bottom) { normalise_into(top, bottom, p.normed + top * channels); });
    }
    Team::instance().split(count * s.grid.height, 1, [&](int64_t begin, int64_t end) {
      const float *mean = w.moving_mean, *scale = w.bn_scale, *shift = w.bn_beta, *image = nullptr;
      Grid grid = s.grid;
      int64_t top = 0, ready = begin;  // of the one image
      for (int64_t row = begin; row < end; ++row) {
        float *from = p.convolved + row * line, *to = p.active + row * line;
        if (p.normed) {
          top = row / s.grid.height * s.grid.height;
          image = p.normed + top * line;
        } else if (row == ready) {
          top = std::max<int64_t>(row - 1, 0);
          ready = std::min(end, row + kNormedRows);
          grid.height = std::min(ready + 1, s.grid.height) - top;
          float* normed = workspace(Use::kBandIn, grid.height * line);
          normalise_into(top * s.grid.width, (top + grid.height) * s.grid.width, normed);
          image = normed;
        }
        convolve_row(grid, row - top, image, w.conv1, w.conv1_bias, false, from);
        for (int64_t at = 0; at < line; at += channels) {
          if (batch_norm) {
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) to[at + c] = (Form::value(from[at + c]) - mean[c]) * scale[c] + shift[c];
          } else {
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) to[at + c] = Form::value(from[at + c]);
          }
        }
      }
    });
  }

  // after_attention, active → after_local
  void second_convolution(const Places& p) const {
    const int64_t channels = s.channels, line = s.grid.width * channels;
    Team::instance().split(count * s.grid.height, 1, [&](int64_t begin, int64_t end) {
      const auto epilogue = onto(1, w.conv2_bias, w.gamma3, p.after_attention, p.after_local);
      float* sums = workspace(Use::kBandIn, line);
      for (int64_t row = begin; row < end; ++row) {
        const float* image = p.active + row / s.grid.height * s.tokens * channels;
        convolve_row(s.grid, row % s.grid.height, image, w.conv2, nullptr, false, sums);
        for (int64_t x = 0; x < s.grid.width; ++x) {
          const auto end_of = epilogue(row * s.grid.width + x);
          const float* from = sums + x * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) end_of(from[c], c);
        }
      }
    });
  }

  // after_local → inner if it is kept, out
  void mlp(const Places& p) const {
    const int64_t channels = s.channels, hidden = s.hidden;
    const Packed fc1{w.fc1, hidden, channels}, fc2{w.fc2, channels, hidden};
    split_bands(rows(), [&](int64_t top, int64_t bottom) {
      const int64_t size = bottom - top;
      float *normed = workspace(Use::kBandIn, size * channels), *active = workspace(Use::kBandOut, size * hidden);
      const float* bias = w.fc1_bias;
      normalise_rows(top, bottom, p.after_local, w.norm2_gamma, w.norm2_beta, normed);
      const auto activate = [=](int64_t row) {
        float* to = active + row * hidden;
        return [=](float sum, int64_t column) { to[column] = Form::value(sum + bias[column]); };
      };
      const auto keep_and_activate = [=, inner = p.inner ? p.inner + top * hidden : nullptr](int64_t row) {
        float *kept = inner + row * hidden, *to = active + row * hidden;
        return [=](float sum, int64_t column) {
          kept[column] = sum + bias[column];
          to[column] = Form::value(sum + bias[column]);
        };
      };
      if (p.inner) {
        multiply_band(0, size, rows_of(normed, channels), fc1, active, keep_and_activate);
      } else {
        multiply_band(0, size, rows_of(normed, channels), fc1, active, activate);
      }
      multiply_band(top, size, rows_of(active, hidden), fc2, normed, onto(2, w.fc2_bias, w.gamma2, p.after_local, p.out));
    });
  }
};

// ---- what layers read -----------------------------------------------------------------------------------------------

// Pieces of one stretch of memory, one after another.
struct Pieces {
  float* next;

  float* take(int64_t count) {
    float* piece = next;
    next += count;
    return piece;
  }
};

// What has to be prepared of a network's parameters at every call: it may have been trained since. Lasts until the next.
inline BlockWeights prepared(const Arguments& a, const BlockSizes& s, int64_t layer) {
  const int64_t channels = s.channels, hidden = s.hidden;
  BlockWeights w{operands::BlockParameters::of(a, s.layers, layer), nullptr};
  Pieces pieces{workspace(Use::kWeights, packed_size(3 * channels, channels) + packed_size(channels, channels) +
                                             packed_size(hidden, channels) + packed_size(channels, hidden) + 19 * channels)};
  const auto packed = [&](const float*& weight, int64_t width, int64_t depth) {
    weight = pack_weight(weight, width, depth, pieces.take(packed_size(width, depth))).data;
  };
  const auto taps = [&](const float*& weight) {
    float* to = pieces.take(9 * channels);
    taps_first(weight, channels, to);
    weight = to;
  };
  packed(w.qkv, 3 * channels, channels);
  packed(w.proj, channels, channels);
  packed(w.fc1, hidden, channels);
  packed(w.fc2, channels, hidden);
  taps(w.conv1);
  taps(w.conv2);
  float* scale = pieces.take(channels);
  BatchNorm{channels, w.bn_gamma, w.bn_beta, w.moving_mean, w.moving_variance, s.bn_epsilon}.factors(scale);
  w.bn_scale = scale;
  return w;
}

// ---- evaluation -------------------------------------------------------------------------------------------------------

// x (B, N, C) → out (B, N, C) through the layers [first, last); weights(layer) says what each reads. Kind: Block of a form.
template <class Kind, class Weights>
void evaluate(const BlockSizes& s, int64_t first, int64_t last, const Weights& weights, const float* x, float* out) {
  const float one = 1.0f;
  const int64_t image = s.tokens * s.channels;
  if (first == last) std::copy_n(x, s.images * image, out);
  for (int64_t layer = first; layer < last; ++layer, x = out) {
    const BlockWeights w = weights(layer);
    const bool large = s.tokens > kChunk;
    const auto some = [&](int64_t begin, int64_t count) {
      const Kind block{s, w, {&one, true, s.images, s.tokens, layer}, begin, count};
      const int64_t first = large ? kChunk * 3 * s.channels : count * image;
      const Buffer buffer(first + (large ? 1 : 2) * count * image);
      // Queries, keys and values are read before the convolutions write.
      float *qkv = buffer, *rest = qkv + first, *to = out + begin * image;
      const Places p{x + begin * image, qkv, nullptr, to, large ? nullptr : qkv, rest, rest, to, nullptr, to, large ? rest : nullptr};
      block.attention(p);
      block.first_convolution(p, true);
      block.second_convolution(p);
      block.mlp(p);
    };
    // An image a thread needs no waiting for one another; fewer images than threads are worth the waiting.
    if (s.images < Team::instance().size()) {
      for (int64_t which = 0, step = large ? 1 : s.images; which < s.images; which += step) some(which, step);
    } else {
      Team::instance().split(s.images, 1, [&](int64_t begin, int64_t end) {
        for (int64_t which = begin; which < end; ++which) some(which, 1);
      });
    }
  }
}

// operands::Blocks: x (B, N, C) → out (B, N, C)
template <class Form>
void blocks(const Arguments& a, bool normalised) {
  const operands::Blocks d(a);
  const BlockSizes s = sizes_of_blocks(a, normalised);
  evaluate<Block<Form>>(s, 0, s.layers, [&](int64_t layer) { return prepared(a, s, layer); }, d.x, d.out);
}

// operands::FusedBlocks: the same of a fused network, whose weights were prepared once. `where`: the grid's sides, the first
// layer and the one after the last.
template <class Kind>
void fused_blocks(const Arguments& a, bool normalised) {
  using F = operands::FusedBlocks;
  const F d(a);
  const int64_t tokens = a.dim(F::kX, 1), channels = a.dim(F::kX, 2), layers = a.dim(F::kTemperature, 0);
  const BlockSizes s{a.dim(F::kX, 0),
                     tokens,
                     channels,
                     a.dim(F::kFc1Bias, 1),
                     layers,
                     {tokens, channels, a.dim(F::kTemperature, 1), normalised},
                     {d.where[0], d.where[1], channels},
                     *d.epsilon,
                     0.0f};
  const Buffer ones(channels), zeros(channels, true);  // of what is folded: exact, and quicker than a second way
  std::fill_n(&ones[0], channels, 1.0f);
  const auto weights = [&](int64_t layer) {
    const auto f = operands::FusedBlockParameters::of(a, layers, layer);
    BlockWeights w{};
    w.norm1_gamma = w.norm2_gamma = w.gamma1 = w.gamma2 = w.gamma3 = ones;
    w.norm1_beta = w.norm2_beta = w.moving_mean = zeros;
    w.qkv = f.qkv, w.qkv_bias = f.qkv_bias, w.temperature = f.temperature, w.proj = f.proj, w.proj_bias = f.proj_bias;
    w.norm3_gamma = f.norm3_gamma, w.norm3_beta = f.norm3_beta, w.conv1 = f.conv1, w.conv1_bias = f.conv1_bias;
    w.bn_scale = f.bn_scale, w.bn_beta = f.bn_shift, w.conv2 = f.conv2, w.conv2_bias = f.conv2_bias;
    w.fc1 = f.fc1, w.fc1_bias = f.fc1_bias, w.fc2 = f.fc2, w.fc2_bias = f.fc2_bias;
    return w;
  };
  evaluate<Kind>(s, d.where[2], d.where[3], weights, d.x, d.out);
}

}  // namespace xcit
