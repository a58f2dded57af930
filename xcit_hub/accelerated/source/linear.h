// Affine maps.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "gemm.h"
#include "operands.h"

namespace xcit {

// GCC forgets to vectorise the sum where this is inlined.
__attribute__((noinline)) inline float dot(const float* a, const float* b, int64_t count) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// Up to so many rows a weight is read as it lies: to pack it takes longer than the product.
constexpr int64_t kFewRows = 3;

// x (rows, K), weight (N, K), bias (N) → out (rows, N)
inline void affine_few(int64_t rows, int64_t width, int64_t depth, const float* x, const float* weight, const float* bias, float* out) {
  split_rows(width, std::max<int64_t>(1, rows * depth), [=](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      for (int64_t row = 0; row < rows; ++row) out[row * width + n] = dot(x + row * depth, weight + n * depth, depth) + bias[n];
    }
  }, kLeastToWake);
}

// x (…, K), weight (N, K), bias (N) → out (…, N)
inline void linear(const Arguments& a) {
  const operands::Linear d(a);
  const int64_t width = a.dim(d.kWeight, 0), depth = a.dim(d.kWeight, 1), rows = a.size(d.kX) / depth;
  if (rows <= kFewRows) return affine_few(rows, width, depth, d.x, d.weight, d.bias, d.out);
  const Packed weight = pack_weight(d.weight, width, depth, workspace(Use::kPackedB, packed_size(width, depth)));
  multiply(rows, rows_of(d.x, depth), weight, d.out, add_bias(d.bias, d.out, width));
}

// x (…, K), packed weight of (N, K), bias (N) → out (…, N)
inline void packed_linear(const Arguments& a) {
  const operands::PackedLinear d(a);
  const int64_t depth = a.dim(d.kX, -1), width = a.dim(d.kBias, 0);
  multiply(a.size(d.kX) / depth, rows_of(d.x, depth), {d.weight, width, depth}, d.out, add_bias(d.bias, d.out, width));
}

inline void column_sums(int64_t rows, int64_t width, const float* x, float* sums) {
  sum_rows(rows, width, sums, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) sum[j] += x[row * width + j];
    }
  });
}

// dy (rows, N), x (rows, K) → dweight (N, K) = dyᵀ · x. Threads share the wider factor, and each reads all of the narrower one; if
// that is dy, the result comes turned and is turned back.
inline void weight_grad(int64_t rows, int64_t width, int64_t depth, const float* dy, const float* x, float* dweight) {
  if (depth <= width) return multiply_long(width, depth, rows, rows_of(dy, width).transposed(), rows_of(x, depth), dweight);
  const Buffer buffer(depth * width);
  const float* turned = buffer;
  multiply_long(depth, width, rows, rows_of(x, depth).transposed(), rows_of(dy, width), buffer);
  split_rows((width + kSquare - 1) / kSquare, kSquare * depth, [=](int64_t first, int64_t last) {
    for (int64_t n = first * kSquare; n < std::min(width, last * kSquare); n += kSquare) {
      for (int64_t k = 0; k < depth; k += kSquare) {
        transpose(rows_of(turned, width).at(k, n), std::min(kSquare, depth - k), std::min(kSquare, width - n),
                  dweight + n * depth + k, depth);
      }
    }
  });
}

// x (rows, K), weight (N, K), dy (rows, N) → dx (rows, K), dweight (N, K), dbias (N)
inline void affine_grad(int64_t rows, int64_t width, int64_t depth, const float* x, const float* weight, const float* dy,
                        float* dx, float* dweight, float* dbias) {
  multiply(rows, depth, width, rows_of(dy, width), rows_of(weight, depth), dx);
  weight_grad(rows, width, depth, dy, x, dweight);
  column_sums(rows, width, dy, dbias);
}

// x (…, K), weight (N, K), dy (…, N) → dx (…, K), dweight (N, K), dbias (N)
inline void linear_grad(const Arguments& a) {
  const operands::LinearGrad d(a);
  const int64_t width = a.dim(d.kWeight, 0), depth = a.dim(d.kWeight, 1);
  affine_grad(a.size(d.kX) / depth, width, depth, d.x, d.weight, d.dy, d.dx, d.dweight, d.dbias);
}

}  // namespace xcit
