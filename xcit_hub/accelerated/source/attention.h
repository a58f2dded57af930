// Cross-covariance attention.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "gelu.h"
#include "products.h"
#include "threads.h"

namespace xcit {

// C(m, n) = Σₖ A(m, k) · B(k, n) for small C; A has any strides, rows of B and C are contiguous.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;

  template <int Rows, int Vectors>
  void tile(int64_t m, int64_t n, int64_t steps) const {
    Lanes sum[Rows][Vectors] = {};
    const float *left = a + m * a_row, *right = b + n;
    for (int64_t k = 0; k < steps; ++k, left += a_step, right += b_step) {
      Lanes value[Vectors];
      for (int v = 0; v < Vectors; ++v) value[v] = *reinterpret_cast<const Lanes*>(right + v * kLanes);
      for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < Vectors; ++v) sum[r][v] += left[r * a_row] * value[v];
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) *reinterpret_cast<Lanes*>(c + (m + r) * c_row + n + v * kLanes) = sum[r][v];
    }
  }

  template <int Vectors>
  void columns(int64_t rows, int64_t n, int64_t steps) const {
    int64_t m = 0;
    for (; m + 8 <= rows; m += 8) tile<8, Vectors>(m, n, steps);
    for (; m < rows; ++m) tile<1, Vectors>(m, n, steps);
  }

  void run(int64_t rows, int64_t width, int64_t steps) const {
    int64_t n = 0;
    for (; n + 3 * kLanes <= width; n += 3 * kLanes) columns<3>(rows, n, steps);
    for (; n + kLanes <= width; n += kLanes) columns<1>(rows, n, steps);
    for (int64_t m = 0; n < width && m < rows; ++m) {
      for (int64_t rest = n; rest < width; ++rest) {
        float sum = 0.0f;
        for (int64_t k = 0; k < steps; ++k) sum += a[m * a_row + k * a_step] * b[k * b_step + rest];
        c[m * c_row + rest] = sum;
      }
    }
  }
};

// One head of one image: queries, keys and values are columns of the tokens' 3·C numbers.
struct Head {
  const float *query, *key, *value;
  int64_t tokens, dim, stride;
  bool normalised;
  std::vector<float> query_scale, key_scale, cosine, attention;  // scale is one over the norm; the last two are (dim, dim)

  Head(const float* qkv, int64_t tokens, int64_t channels, int64_t dim, int64_t head, bool normalised)
      : query(qkv + head * dim),
        key(query + channels),
        value(key + channels),
        tokens(tokens),
        dim(dim),
        stride(3 * channels),
        normalised(normalised),
        query_scale(scales(query)),
        key_scale(scales(key)),
        cosine(dim * dim),
        attention(dim * dim) {}

  std::vector<float> scales(const float* rows) const {
    std::vector<float> squares(dim, 0.0f);
    if (!normalised) return std::vector<float>(dim, 1.0f);
    for (int64_t token = 0; token < tokens; ++token) {
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) squares[i] += rows[token * stride + i] * rows[token * stride + i];
    }
    for (float& square : squares) square = 1.0f / std::max(std::sqrt(square), 1e-12f);
    return squares;
  }

  void attend(float temperature) {
    Product{query, 1, stride, key, stride, cosine.data(), dim}.run(dim, dim, tokens);
    for (int64_t i = 0; i < dim; ++i) {
      float *cos = &cosine[i * dim], *row = &attention[i * dim];
      float greatest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : greatest)
      for (int64_t j = 0; j < dim; ++j) {
        cos[j] *= query_scale[i] * key_scale[j];
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

inline std::vector<float> transposed(const std::vector<float>& square, int64_t dim) {
  std::vector<float> turned(dim * dim);
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < dim; ++j) turned[j * dim + i] = square[i * dim + j];
  }
  return turned;
}

struct Heads {
  int64_t images, tokens, channels, heads;
  bool normalised;
};

// qkv (B, N, 3·C), temperature (h) → (B, N, C)
inline void cross_covariance(const Heads& all, const float* qkv, const float* temperature, float* out) {
  const int64_t images = all.images, tokens = all.tokens, channels = all.channels, heads = all.heads;
  const int64_t dim = channels / heads;
  const bool normalised = all.normalised;
  Team::instance().split(images * heads, 1, [=](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / heads, which = item % heads;
      Head head(qkv + image * tokens * 3 * channels, tokens, channels, dim, which, normalised);
      head.attend(temperature[which]);
      const std::vector<float> turned = transposed(head.attention, dim);
      Product{head.value, head.stride, 1, turned.data(), dim, out + image * tokens * channels + which * dim, channels}
          .run(tokens, dim, dim);
    }
  });
}

// qkv, temperature, d out → d qkv, d temperature
inline void cross_covariance_grad(const Heads& all, const float* qkv, const float* temperature, const float* up, float* dqkv,
                                  float* dtemperature) {
  const int64_t images = all.images, tokens = all.tokens, channels = all.channels, heads = all.heads;
  const int64_t dim = channels / heads;
  const bool normalised = all.normalised;
  std::vector<float> shares(images * heads);
  Team::instance().split(images * heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / heads, which = item % heads;
      Head head(qkv + image * tokens * 3 * channels, tokens, channels, dim, which, normalised);
      head.attend(temperature[which]);
      const float* dout = up + image * tokens * channels + which * dim;
      float* dquery = dqkv + image * tokens * 3 * channels + which * dim;
      float *dkey = dquery + channels, *dvalue = dkey + channels;

      std::vector<float> slope(dim * dim);  // of attention, then of the cosines
      Product{dout, 1, channels, head.value, head.stride, slope.data(), dim}.run(dim, dim, tokens);
      Product{dout, channels, 1, head.attention.data(), dim, dvalue, head.stride}.run(tokens, dim, dim);
      // A cosine does not change along its own vector: what the norms take away again.
      std::vector<float> query_share(dim, 0.0f), key_share(dim, 0.0f);
      float share = 0.0f;
      for (int64_t i = 0; i < dim; ++i) {
        float *row = &slope[i * dim], mean = 0.0f;
        const float *attention = &head.attention[i * dim], *cosine = &head.cosine[i * dim];
        for (int64_t j = 0; j < dim; ++j) mean += row[j] * attention[j];
        for (int64_t j = 0; j < dim; ++j) {
          row[j] = attention[j] * (row[j] - mean);
          share += row[j] * cosine[j];
          row[j] *= temperature[which];
          query_share[i] += row[j] * cosine[j];
          key_share[j] += row[j] * cosine[j];
          row[j] *= head.query_scale[i] * head.key_scale[j];
        }
      }
      shares[item] = share;
      const std::vector<float> turned = transposed(slope, dim);
      Product{head.key, head.stride, 1, turned.data(), dim, dquery, head.stride}.run(tokens, dim, dim);
      Product{head.query, head.stride, 1, slope.data(), dim, dkey, head.stride}.run(tokens, dim, dim);
      if (!normalised) continue;
      for (int64_t i = 0; i < dim; ++i) {
        query_share[i] *= head.query_scale[i] * head.query_scale[i];
        key_share[i] *= head.key_scale[i] * head.key_scale[i];
      }
      for (int64_t token = 0; token < tokens; ++token) {
        const int64_t at = token * head.stride;
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) {
          dquery[at + i] -= head.query[at + i] * query_share[i];
          dkey[at + i] -= head.key[at + i] * key_share[i];
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
