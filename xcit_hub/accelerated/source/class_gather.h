// What the class token gathers from all tokens: class attention without its projection, forward and backward.
//
// With one query, neither keys nor values are formed: the query goes back through the key matrix to a probe of every head,
// which is held against the tokens, and the value matrix is applied to their one weighted mean. The key bias shifts every
// score alike, and softmax does not see it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "gemm.h"
#include "linear.h"
#include "memory.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// Scores become weights, in place.
inline void softmax(float* scores, int64_t count) {
  const float greatest = *std::max_element(scores, scores + count);
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t n = 0; n < count; ++n) {
    scores[n] = exponential(scores[n] - greatest);
    sum += scores[n];
  }
  for (int64_t n = 0; n < count; ++n) scores[n] /= sum;
}

// query (C) of all heads, key (C, C) → probe (h, C)
inline void probes(int64_t heads, int64_t channels, const float* query, const float* key, float* probe) {
  const int64_t dim = channels / heads;
  for (int64_t head = 0; head < heads; ++head) {
    multiply_small(1, channels, dim, rows_of(query + head * dim, dim), key + head * dim * channels, channels, probe + head * channels,
                   channels);
  }
}

// Of one image, T tokens of C channels, the class token first; h heads.
struct ClassGather {
  const int64_t tokens, channels, heads;
  const float *weight, *bias;  // (3·C, C) and (3·C), of queries, keys and values

  int64_t dim() const { return channels / heads; }
  const float* matrix(int64_t which) const { return weight + which * channels * channels; }

  // What the gradient reads again: the scaled query (C), a probe (h, C), weights (h, T) and a mean (h, C).
  struct Places {
    float *query, *probe, *scores, *mean;
  };

  // x (T, C) → all places
  void attend(const float* x, const Places& p) const {
    const int64_t tokens = this->tokens, channels = this->channels, heads = this->heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim()));
    affine_few(1, channels, channels, x, matrix(0), bias, p.query);
    for (int64_t c = 0; c < channels; ++c) p.query[c] *= scale;
    probes(heads, channels, p.query, matrix(1), p.probe);
    held_against(x, p.probe, p.scores);
    for (int64_t head = 0; head < heads; ++head) softmax(p.scores + head * tokens, tokens);
    multiply_small(heads, channels, tokens, rows_of(p.scores, tokens), x, channels, p.mean, channels);
  }

  // x (T, C), rows (h, C) → products (h, T)
  void held_against(const float* x, const float* rows, float* products) const {
    const int64_t tokens = this->tokens, channels = this->channels, heads = this->heads;
    split_rows(tokens, heads * channels, [=](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        for (int64_t head = 0; head < heads; ++head) products[head * tokens + n] = dot(rows + head * channels, x + n * channels, channels);
      }
    }, kLeastToWake);
  }

  // mean (h, C) → out (C)
  void values(const float* mean, float* out) const {
    for (int64_t head = 0, first = 0; head < heads; ++head, first += dim()) {
      affine_few(1, dim(), channels, mean + head * channels, matrix(2) + first * channels, bias + 2 * channels + first, out + first);
    }
  }

  // x (T, C), its places, dy (C) → dx (T, C), dquery (C) before the scale, dprobe (h, C)
  void backward(const float* x, const Places& p, const float* dy, float* dx, float* dquery, float* dprobe) const {
    const Buffer buffer(heads * (channels + tokens));
    float *dmean = buffer, *dscores = dmean + heads * channels;
    probes(heads, channels, dy, matrix(2), dmean);
    held_against(x, dmean, dscores);
    for (int64_t head = 0; head < heads; ++head) {
      const float* weights = p.scores + head * tokens;
      float *slopes = dscores + head * tokens, along = 0.0f;
#pragma omp simd reduction(+ : along)
      for (int64_t n = 0; n < tokens; ++n) along += weights[n] * slopes[n];
#pragma omp simd
      for (int64_t n = 0; n < tokens; ++n) slopes[n] = weights[n] * (slopes[n] - along);
    }
    multiply_small(heads, channels, tokens, rows_of(dscores, tokens), x, channels, dprobe, channels);
    multiply_small(tokens, channels, heads, rows_of(p.scores, tokens).transposed(), dmean, channels, dx, channels);
    multiply_small(tokens, channels, heads, rows_of(dscores, tokens).transposed(), p.probe, channels, dx, channels, true);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim()));
    for (int64_t c = 0; c < channels; ++c) dquery[c] = scale * dot(matrix(1) + c * channels, dprobe + c / dim() * channels, channels);
    multiply_small(1, channels, channels, rows_of(dquery, channels), matrix(0), channels, dx, channels, true);
  }
};

template <class Operands>
ClassGather gather_of(const Operands& d) {
  return {d.arguments.dim(d.kX, 1), d.arguments.dim(d.kX, 2), *d.heads, d.weight, d.bias};
}

// x (B, T, C), heads (1), weight (3·C, C), bias (3·C) → out (B, 1, C)
inline void class_attention(const Arguments& a) {
  const operands::ClassAttention d(a);
  const ClassGather gather = gather_of(d);
  const int64_t image = gather.tokens * gather.channels, rows = gather.heads * gather.channels;
  Team::instance().split(a.dim(d.kX, 0), 1, [&](int64_t first, int64_t last) {
    const Buffer buffer(gather.channels + 2 * rows + gather.heads * gather.tokens);
    float *query = buffer, *probe = query + gather.channels, *mean = probe + rows, *scores = mean + rows;
    for (int64_t at = first; at < last; ++at) {
      gather.attend(d.x + at * image, {query, probe, scores, mean});
      gather.values(mean, d.out + at * gather.channels);
    }
  });
}

// The same and dy (B, 1, C) → dx (B, T, C), dweight (3·C, C), dbias (3·C)
inline void class_attention_grad(const Arguments& a) {
  const operands::ClassAttentionGrad d(a);
  const ClassGather gather = gather_of(d);
  const int64_t images = a.dim(d.kX, 0), channels = gather.channels, dim = gather.dim(), rows = gather.heads * channels;
  const int64_t image = gather.tokens * channels;
  const Buffer buffer(images * (2 * channels + 3 * rows));  // of all images, for the sums over them
  float *query = buffer, *dquery = query + images * channels, *probe = dquery + images * channels;
  float *mean = probe + images * rows, *dprobe = mean + images * rows;
  Team::instance().split(images, 1, [&](int64_t first, int64_t last) {
    const Buffer scores(gather.heads * gather.tokens);
    for (int64_t at = first; at < last; ++at) {
      const ClassGather::Places places{query + at * channels, probe + at * rows, scores, mean + at * rows};
      gather.attend(d.x + at * image, places);
      gather.backward(d.x + at * image, places, d.dy + at * channels, d.dx + at * image, dquery + at * channels, dprobe + at * rows);
    }
  });
  // A head's share of a matrix is what came back to its rows (B, d) with what they were multiplied with (B, C).
  Team::instance().split(3 * gather.heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t which = item / gather.heads, head = item % gather.heads;
      const float* up = which == 0 ? dquery : which == 1 ? query : d.dy;
      const float* by = which == 0 ? d.x : (which == 1 ? dprobe : mean) + head * channels;
      multiply_small(dim, channels, images, rows_of(up + head * dim, channels).transposed(), by, which == 0 ? image : rows,
                     d.dweight + (which * channels + head * dim) * channels, channels);
    }
  });
  column_sums(images, channels, dquery, d.dbias);
  std::fill_n(d.dbias + channels, channels, 0.0f);
  column_sums(images, channels, d.dy, d.dbias + 2 * channels);
}

}  // namespace xcit
