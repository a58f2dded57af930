// A whole class attention block, in evaluation.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "arguments.h"
#include "attention.h"
#include "gelu.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

// GCC forgets to vectorise the sum where this is inlined.
__attribute__((noinline)) inline float dot(const float* a, const float* b, int64_t count) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// The class token gathers from all tokens; patch tokens only pass the norms. With one query, neither keys nor values are
// formed: the query goes back through the key matrix, the value matrix is applied to the one weighted mean.
template <class Form>
struct ClassBlock {
  const Arguments& a;
  const int64_t tokens, channels, hidden, heads, dim;
  const float epsilon;

  // In the order of operations.class_block in Python.
  enum Input { kClass, kTokens, kEpsilon, kGamma1, kBeta1, kQuery, kQueryBias, kKey, kValue, kValueBias, kProj, kProjBias,
               kGamma2, kBeta2, kFc1, kFc1Bias, kFc2, kFc2Bias, kScale, kClassOut, kTokensOut };

  explicit ClassBlock(const Arguments& a)
      : a(a),
        tokens(a.dim(kTokens, 1)),
        channels(a.dim(kTokens, 2)),
        hidden(a.dim(kFc1Bias, 0)),
        heads(a.dim(kKey, 0)),
        dim(channels / heads),
        epsilon(*a.floats(kEpsilon)) {}

  void norm(const float* row, Input gamma, float* out) const {
    normalise(row, channels, epsilon, a.floats(gamma), a.floats(gamma + 1), out);
  }

  // finish(one row · packed weight + bias, column) for every column.
  template <class Finish>
  void affine(const float* in, int64_t depth, int64_t width, Input weight, float* out, const Finish& finish) const {
    const float *packed = a.floats(weight), *bias = a.floats(weight + 1);
    const auto some = [=](int64_t first, int64_t last) {
      multiply_panels(first, last, 1, width, depth, {in, depth, 1}, packed, out, width,
                      [=](int64_t, int64_t, int64_t column, int64_t columns) {
#pragma omp simd
                        for (int64_t j = column; j < column + columns; ++j) out[j] = finish(out[j] + bias[j], j);
                      });
    };
    split_rows(panels_of(width), kTileWidth * depth, some, kLeastToWake);
  }

  // Scores of one head become weights, in place.
  void softmax(float* scores) const {
    const float greatest = *std::max_element(scores, scores + tokens + 1);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t n = 0; n <= tokens; ++n) {
      scores[n] = exponential(scores[n] - greatest);
      sum += scores[n];
    }
    for (int64_t n = 0; n <= tokens; ++n) scores[n] /= sum;
  }

  void run(int64_t image, bool tokens_wanted, bool tokens_norm) const {
    const int64_t all = tokens + 1, channels = this->channels;
    // One class token may stand for all images.
    const float* token = a.floats(kClass) + (a.dim(kClass, 0) == 1 ? 0 : image * channels);
    const float* patches = a.floats(kTokens) + image * tokens * channels;
    float* out = a.floats(kClassOut) + image * channels;
    std::unique_ptr<float[]> buffer(new float[all * (channels + heads) + (2 * heads + 3) * channels + hidden]);
    float *normed = buffer.get(), *scores = normed + all * channels, *probe = scores + all * heads;
    float *mean = probe + heads * channels, *query = mean + heads * channels, *value = query + channels;
    float *row = value + channels, *inner = row + channels;
    const auto as_it_is = [](float sum, int64_t) { return sum; };

    norm(token, kGamma1, normed);
    affine(normed, channels, channels, kQuery, query, as_it_is);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = head * dim;
      Product{query + first, 0, 1, a.floats(kKey) + first * channels, channels, probe + head * channels, 0}.run(1, channels, dim);
    }
    split_rows(all, channels, [=](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        float* to = normed + n * channels;
        if (n > 0) norm(patches + (n - 1) * channels, kGamma1, to);
        for (int64_t head = 0; head < heads; ++head) scores[head * all + n] = dot(probe + head * channels, to, channels);
      }
    }, kLeastToWake);
    for (int64_t head = 0; head < heads; ++head) softmax(scores + head * all);
    Product{scores, all, 1, normed, channels, mean, channels}.run(heads, channels, all);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = head * dim;
      Product{mean + head * channels, 0, 1, a.floats(kValue) + first, channels, value + first, 0}.run(1, dim, channels);
    }
    for (int64_t c = 0; c < channels; ++c) value[c] += a.floats(kValueBias)[c];
    affine(value, channels, channels, kProj, row, [=](float sum, int64_t c) { return token[c] + sum; });
    norm(row, kGamma2, out);
    affine(out, channels, hidden, kFc1, inner, [](float sum, int64_t) { return Form::value(sum); });
    affine(inner, hidden, channels, kFc2, row, as_it_is);
    for (int64_t c = 0; c < channels; ++c) out[c] += row[c];

    if (!tokens_wanted) return;
    const float* scale = a.floats(kScale);
    split_rows(tokens, channels, [=](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const float *from = patches + n * channels, *branch = normed + (n + 1) * channels;
        float* to = a.floats(kTokensOut) + (image * tokens + n) * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] = from[c] + scale[c] * branch[c];
        if (tokens_norm) norm(to, kGamma2, to);
        // The official block adds the patch tokens to themselves.
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] += to[c];
      }
    }, kLeastToWake);
  }
};

template <class Form>
void class_block(const Arguments& a, bool tokens_wanted, bool tokens_norm) {
  const ClassBlock<Form> block(a);
  Team::instance().split(a.dim(ClassBlock<Form>::kTokens, 0), 1, [&](int64_t first, int64_t last) {
    for (int64_t image = first; image < last; ++image) block.run(image, tokens_wanted, tokens_norm);
  });
}

}  // namespace xcit
