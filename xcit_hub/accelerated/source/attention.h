// Cross-covariance attention (XCA): channels of a head attend to one another, over all tokens.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gelu.h"
#include "gemm.h"
#include "memory.h"
#include "threads.h"

namespace xcit {

struct Heads {
  int64_t tokens, channels, heads;
  bool normalised;  // queries and keys, over the tokens

  int64_t dim() const { return channels / heads; }
};

// What is made of a head's queries and keys: sums over tokens, which may come in several parts, then the attention.
struct HeadMap {
  const int64_t dim;
  const bool normalised;
  float *query_scale, *key_scale;  // (d), one over the norm
  float *cosine, *attention;       // (d, d)

  static int64_t size(int64_t dim) { return 2 * dim * (dim + 1); }

  // In memory of size(d).
  HeadMap(const Heads& all, float* memory)
      : dim(all.dim()),
        normalised(all.normalised),
        query_scale(memory),
        key_scale(query_scale + dim),
        cosine(key_scale + dim),
        attention(cosine + dim * dim) {}

  // Queries and keys of some tokens, (n, d) both; the first begin the sums.
  void add(const Matrix& query, const Matrix& key, int64_t tokens, bool first) const {
    add_squares(query, tokens, first, query_scale);
    add_squares(key, tokens, first, key_scale);
    multiply_small(dim, dim, tokens, query.transposed(), key.data, key.row, cosine, dim, !first);
  }

  void add_squares(const Matrix& rows, int64_t tokens, bool first, float* out) const {
    if (first) std::fill_n(out, dim, normalised ? 0.0f : 1.0f);
    if (!normalised) return;
    for (int64_t token = 0; token < tokens; ++token) {
      const float* row = rows.data + token * rows.row;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) out[i] += row[i] * row[i];
    }
  }

  // attention = softmax over j of temperature · cosine(query i, key j)
  void attend(float temperature) const {
    for (float* scale : {query_scale, key_scale}) {
      for (int64_t i = 0; i < dim && normalised; ++i) scale[i] = 1.0f / std::max(std::sqrt(scale[i]), 1e-12f);
    }
    for (int64_t i = 0; i < dim; ++i) {
      float *cos = cosine + i * dim, *row = attention + i * dim;
      const float scale = query_scale[i], *scales = key_scale;
      float greatest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : greatest)
      for (int64_t j = 0; j < dim; ++j) {
        cos[j] *= scale * scales[j];
        greatest = std::max(greatest, cos[j] * temperature);
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < dim; ++j) {
        row[j] = exponential(cos[j] * temperature - greatest);
        sum += row[j];
      }
      for (int64_t j = 0; j < dim; ++j) row[j] /= sum;
    }
  }
};

// One head of one image: queries, keys and values are columns of the tokens' 3·C numbers, (N, d) each.
struct Head {
  const Matrix query, key, value;
  const int64_t tokens, dim;
  const Buffer memory;
  const HeadMap map;

  Head(const Heads& all, int64_t which, const float* qkv, float temperature)
      : query{qkv + which * all.dim(), 3 * all.channels, 1},
        key(query.at(0, all.channels)),
        value(key.at(0, all.channels)),
        tokens(all.tokens),
        dim(all.dim()),
        memory(HeadMap::size(dim)),
        map(all, memory) {
    map.add(query, key, tokens, true);
    map.attend(temperature);
  }
};

// square (d, d) → its transpose
inline void transpose_square(const float* square, int64_t dim, float* to) {
  transpose(rows_of(square, dim), dim, dim, to, dim);
}

// qkv (N, 3·C) of one image → one of its maps (h, d, d): a head's attention transposed, what values are multiplied by.
inline void attention_map(const Heads& all, int64_t which, const float* qkv, const float* temperature, float* maps) {
  const int64_t dim = all.dim();
  transpose_square(Head(all, which, qkv, temperature[which]).map.attention, dim, maps + which * dim * dim);
}

// Some tokens' values (n, C) of one image, its maps (h, d, d) → out (n, C)
inline void mix_values(const Heads& all, int64_t tokens, const Matrix& values, const float* maps, float* out) {
  const int64_t channels = all.channels, dim = all.dim();
  for (int64_t which = 0; which < all.heads; ++which) {
    multiply_small(tokens, dim, dim, values.at(0, which * dim), maps + which * dim * dim, dim, out + which * dim, channels);
  }
}

// qkv (B, N, 3·C), temperature (h), dout (B, N, C) → dqkv (B, N, 3·C), dtemperature (h)
inline void attention_grad(const Heads& all, int64_t images, const float* qkv, const float* temperature, const float* dout,
                           float* dqkv, float* dtemperature) {
  const int64_t tokens = all.tokens, channels = all.channels, heads = all.heads, dim = all.dim(), row = 3 * channels;
  const Buffer shares(images * heads);
  Team::instance().split(images * heads, 1, [&](int64_t first, int64_t last) {
    const Buffer slopes(dim * dim), turned(dim * dim), query_shares(dim), key_shares(dim);
    float *slope = slopes, *query_share = query_shares, *key_share = key_shares;
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / heads, which = item % heads;
      const Head head(all, which, qkv + image * tokens * row, temperature[which]);
      const Matrix up = rows_of(dout + image * tokens * channels + which * dim, channels);
      float* dquery = dqkv + image * tokens * row + which * dim;
      float *dkey = dquery + channels, *dvalue = dkey + channels;

      // slope is that of attention, then of the cosines.
      multiply_small(dim, dim, tokens, up.transposed(), head.value.data, row, slope, dim);
      multiply_small(tokens, dim, dim, up, head.map.attention, dim, dvalue, row);
      // A cosine does not change along its own vector: what the norms take away again.
      std::fill_n(key_share, dim, 0.0f);
      float share = 0.0f;
      for (int64_t i = 0; i < dim; ++i) {
        float *of = slope + i * dim, mean = 0.0f, sum = 0.0f;
        const float *attention = head.map.attention + i * dim, *cosine = head.map.cosine + i * dim, *key_scale = head.map.key_scale;
        const float heat = temperature[which], scale = heat * head.map.query_scale[i];
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < dim; ++j) mean += of[j] * attention[j];
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < dim; ++j) {
          const float logit = attention[j] * (of[j] - mean), along = logit * cosine[j];
          sum += along;
          key_share[j] += heat * along;
          of[j] = logit * scale * key_scale[j];
        }
        share += sum;
        query_share[i] = heat * sum;
      }
      shares[item] = share;
      transpose_square(slope, dim, turned);
      multiply_small(tokens, dim, dim, head.key, turned, dim, dquery, row);
      multiply_small(tokens, dim, dim, head.query, slope, dim, dkey, row);
      if (!all.normalised) continue;
      for (int64_t i = 0; i < dim; ++i) {
        query_share[i] *= head.map.query_scale[i] * head.map.query_scale[i];
        key_share[i] *= head.map.key_scale[i] * head.map.key_scale[i];
      }
      for (int64_t token = 0; token < tokens; ++token) {
        const float *query = head.query.data + token * row, *key = head.key.data + token * row;
        float *to_query = dquery + token * row, *to_key = dkey + token * row;
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) {
          to_query[i] -= query[i] * query_share[i];
          to_key[i] -= key[i] * key_share[i];
        }
      }
    }
  });
  for (int64_t which = 0; which < heads; ++which) {
    dtemperature[which] = 0.0f;
    for (int64_t image = 0; image < images; ++image) dtemperature[which] += shares[image * heads + which];
  }
}

}  // namespace xcit
