// A whole class attention block, in evaluation.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "class_gather.h"
#include "gelu.h"
#include "gemm.h"
#include "memory.h"
#include "norms.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// One row (1, depth) · packed weight (depth, width) + bias, by all threads if it is large: each(sum, column).
template <class Each>
void affine_row(const float* row, int64_t depth, int64_t width, const float* weight, const float* bias, float* sums,
                const Each& each) {
  const Packed b{weight, width, depth};
  const auto epilogue = [=](int64_t) { return [=](float sum, int64_t column) { each(sum + bias[column], column); }; };
  split_rows(panels_of(width), kNR * depth, [=](int64_t first, int64_t last) {
    multiply_panels(first, last, 0, 1, rows_of(row, depth), b, sums, epilogue);
  }, kLeastToWake);
}

// Rows of the normalised tokens that are kept; of more tokens they are normalised again where they are needed.
constexpr int64_t kMostNormed = 2048;

// The class token gathers from all tokens, see class_gather.h; patch tokens only pass the norms.
template <class Form>
struct ClassBlock : operands::LastClassBlock {
  const int64_t count, channels, hidden, heads, dim;  // count is N, of the patch tokens

  explicit ClassBlock(const Arguments& a)
      : operands::LastClassBlock(a),
        count(a.dim(kTokens, 1)),
        channels(a.dim(kTokens, 2)),
        hidden(a.dim(kFc1Bias, 0)),
        heads(a.dim(kKey, 0)),
        dim(channels / heads) {}

  // One image: cls_token (1, C), or one that stands for all images, tokens (N, C) → cls_out (C), tokens_out (N, C).
  void run(int64_t image, bool tokens_wanted, bool tokens_norm) const {
    const int64_t all = count + 1, channels = this->channels, count = this->count;
    const float* token = cls_token + (arguments.dim(kClsToken, 0) == 1 ? 0 : image * channels);
    const float* patches = tokens + image * count * channels;
    float* out = arguments.floats(tokens_wanted ? operands::ClassBlock::kClsOut : kClsOut) + image * channels;
    const int64_t kept = std::min(all, kMostNormed);
    const Buffer buffer(kept * channels + all * heads + (2 * heads + 4) * channels + hidden);
    float *normed = buffer, *scores = normed + kept * channels, *probe = scores + all * heads;
    float *mean = probe + heads * channels, *query_row = mean + heads * channels, *value_row = query_row + channels;
    float *row = value_row + channels, *sums = row + channels, *inner = sums + channels;
    const auto norm1 = [=](const float* from, float* to) { normalise(from, channels, *epsilon, norm1_gamma, norm1_beta, to); };
    // Row n of the class token and all patches, normalised.
    const auto norm1_of = [=](int64_t n, float* to) { norm1(n > 0 ? patches + (n - 1) * channels : token, to); };
    const auto norm2 = [=](const float* from, float* to) { normalise(from, channels, *epsilon, norm2_gamma, norm2_beta, to); };

    norm1(token, normed);
    affine_row(normed, channels, channels, query, query_bias, query_row, [=](float sum, int64_t c) { query_row[c] = sum; });
    probes(heads, channels, query_row, key, probe);
    split_rows(all, channels, [=](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        float* to = n < kept ? normed + n * channels : workspace(Use::kBandIn, channels);
        if (n > 0) norm1_of(n, to);
        for (int64_t head = 0; head < heads; ++head) scores[head * all + n] = dot(probe + head * channels, to, channels);
      }
    }, kLeastToWake);
    for (int64_t head = 0; head < heads; ++head) softmax(scores + head * all, all);
    for (int64_t begin = 0; begin < all; begin += kept) {
      const int64_t rows = std::min(kept, all - begin);
      if (begin > 0) {
        split_rows(rows, channels, [=](int64_t first, int64_t last) {
          for (int64_t n = first; n < last; ++n) norm1_of(begin + n, normed + n * channels);
        }, kLeastToWake);
      }
      multiply_small(heads, channels, rows, rows_of(scores, all).at(0, begin), normed, channels, mean, channels, begin > 0);
    }
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = head * dim;
      multiply_small(1, dim, channels, rows_of(mean + head * channels, channels), value + first, channels, value_row + first, dim);
    }
    for (int64_t c = 0; c < channels; ++c) value_row[c] += value_bias[c];
    affine_row(value_row, channels, channels, proj, proj_bias, sums, [=](float sum, int64_t c) { row[c] = token[c] + sum; });
    norm2(row, out);
    affine_row(out, channels, hidden, fc1, fc1_bias, inner, [=](float sum, int64_t c) { inner[c] = Form::value(sum); });
    affine_row(inner, hidden, channels, fc2, fc2_bias, sums, [=](float sum, int64_t c) { row[c] = sum; });
    for (int64_t c = 0; c < channels; ++c) out[c] += row[c];

    if (!tokens_wanted) return;
    float* tokens_out = arguments.floats(operands::ClassBlock::kTokensOut) + image * count * channels;
    split_rows(count, channels, [=](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const float *from = patches + n * channels, *branch = normed + (n + 1) * channels;
        if (kept < all) {
          float* again = workspace(Use::kBandIn, channels);
          norm1_of(n + 1, again);
          branch = again;
        }
        float* to = tokens_out + n * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] = from[c] + gamma1[c] * branch[c];
        if (tokens_norm) norm2(to, to);
        // The official block adds the patch tokens to themselves.
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] += to[c];
      }
    }, kLeastToWake);
  }
};

// operands::ClassBlock, or LastClassBlock, where tokens are not wanted any more: every image by a thread, or a large one by all.
template <class Form>
void class_block(const Arguments& a, bool tokens_wanted, bool tokens_norm) {
  const ClassBlock<Form> block(a);
  Team::instance().split(a.dim(operands::ClassBlock::kTokens, 0), 1, [&](int64_t first, int64_t last) {
    for (int64_t image = first; image < last; ++image) block.run(image, tokens_wanted, tokens_norm);
  });
}

}  // namespace xcit
