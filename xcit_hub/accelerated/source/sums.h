// The sum of squares: of a gradient, for the norm of all.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "gemm.h"
#include "memory.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

constexpr int64_t kSummed = 4096;  // numbers that are added up in single precision; the sums of those are in double

inline float squares(const float* x, int64_t count) {
  constexpr int64_t kTogether = 4;  // one after another would wait for each addition
  Lanes sums[kTogether] = {};
  int64_t at = 0;
  for (; at + kTogether * kLanes <= count; at += kTogether * kLanes) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kTogether; ++v) {
      const Lanes some = *reinterpret_cast<const Lanes*>(x + at + v * kLanes);
      sums[v] += some * some;
    }
  }
  const Lanes lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float sum = 0.0f;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  for (; at < count; ++at) sum += x[at] * x[at];
  return sum;
}

// operands::SquaredSum: x, any shape → the sum of its numbers' squares (1), in an order that neither threads nor its place in
// memory decides.
inline void squared_sum(const Arguments& a) {
  const operands::SquaredSum d(a);
  const int64_t size = a.size(d.kX), blocks = (size + kSummed - 1) / kSummed;
  const Buffer sums(std::max<int64_t>(blocks, 1));
  Team::instance().split(blocks, 16, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      sums[block] = squares(d.x + block * kSummed, std::min(kSummed, size - block * kSummed));
    }
  });
  double sum = 0.0;
  for (int64_t block = 0; block < blocks; ++block) sum += sums[block];
  *d.sum = static_cast<float>(sum);
}

}  // namespace xcit
