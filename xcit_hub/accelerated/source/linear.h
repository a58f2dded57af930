// Affine maps.

#pragma once

#include <cstdint>

#include "arguments.h"
#include "gemm.h"
#include "operands.h"

namespace xcit {

// x (…, K), weight (N, K), bias (N) → out (…, N)
inline void linear(const Arguments& a) {
  const operands::Linear d(a);
  const int64_t width = a.dim(d.kWeight, 0), depth = a.dim(d.kWeight, 1);
  const Packed weight = pack_weight(d.weight, width, depth, workspace(Use::kPackedB, packed_size(width, depth)));
  multiply(a.size(d.kX) / depth, rows_of(d.x, depth), weight, d.out, add_bias(d.bias, d.out, width));
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

// x (rows, K), weight (N, K), dy (rows, N) → dx (rows, K), dweight (N, K), dbias (N)
inline void affine_grad(int64_t rows, int64_t width, int64_t depth, const float* x, const float* weight, const float* dy,
                        float* dx, float* dweight, float* dbias) {
  multiply(rows, depth, width, rows_of(dy, width), rows_of(weight, depth), dx);
  multiply(width, depth, rows, rows_of(dy, width).transposed(), rows_of(x, depth), dweight);
  column_sums(rows, width, dy, dbias);
}

// x (…, K), weight (N, K), dy (…, N) → dx (…, K), dweight (N, K), dbias (N)
inline void linear_grad(const Arguments& a) {
  const operands::LinearGrad d(a);
  const int64_t width = a.dim(d.kWeight, 0), depth = a.dim(d.kWeight, 1);
  affine_grad(a.size(d.kX) / depth, width, depth, d.x, d.weight, d.dy, d.dx, d.dweight, d.dbias);
}

}  // namespace xcit
