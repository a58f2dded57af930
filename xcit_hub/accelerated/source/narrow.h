// Matrix products C = A · B of narrow numbers, as in gemm.h but several steps of the sum at a time.
//
// As many steps that follow one another as fill 32 bits lie in one word, the first in its lowest bits; the last word of a row
// is filled up with zeros. A is rows of such words, B is packed as in gemm.h, words in place of numbers. With two steps a word:
//
//       a row of A, 5 steps     a b c d e   →   ab cd e0
//
// A Step says what a word of A and a register of words of B add to a register of sums: one instruction where the processor has it.
// Elsewhere other operations compute the same: to be tested, no quicker than gemm.h.

#pragma once

#include <algorithm>
#include <cstdint>

#include "gemm.h"
#include "memory.h"

namespace xcit {

typedef std::uint32_t Word __attribute__((aligned(1), may_alias));
typedef std::uint32_t Words __attribute__((vector_size(sizeof(Lanes)), aligned(4), may_alias));

// A tile of C, kNR sums a row: `count` rows of a, `words` apart, by the panel of b. Rows of a from `count` on are the last one again.
template <class Step, int Rows, int Vectors>
void narrow_kernel(const Word* a, int64_t words, int64_t count, const Packed& b, int64_t panel, typename Step::Number* tile) {
  using Sums = typename Step::Sums;
  const Word* rows[Rows];
  for (int r = 0; r < Rows; ++r) rows[r] = a + std::min<int64_t>(r, count - 1) * words;
  Sums sum[Rows][Vectors] = {};
  for (int64_t begin = 0; begin < b.depth; begin += kKC) {
    const int64_t steps = std::min(kKC, b.depth - begin);
    const float* from = b.panel(panel, begin, steps);
    for (int64_t k = begin; k < begin + steps; ++k, from += kNR) {
      Words right[Vectors];
      for (int v = 0; v < Vectors; ++v) right[v] = *reinterpret_cast<const Words*>(from + v * kLanes);
      for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < Vectors; ++v) sum[r][v] = Step::add(sum[r][v], rows[r][k], right[v]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) *reinterpret_cast<Sums*>(tile + r * kNR + v * kLanes) = sum[r][v];
  }
}

template <class Step>
auto narrow_kernel_for(int64_t rows, int64_t vectors) {
  using Kernel = void (*)(const Word*, int64_t, int64_t, const Packed&, int64_t, typename Step::Number*);
  static constexpr Kernel kKernels[2][kVectors] = {
      {narrow_kernel<Step, kMR / 2, 1>, narrow_kernel<Step, kMR / 2, 2>, narrow_kernel<Step, kMR / 2, 3>},
      {narrow_kernel<Step, kMR, 1>, narrow_kernel<Step, kMR, 2>, narrow_kernel<Step, kMR, 3>},
  };
  return kKernels[rows > kMR / 2][vectors - 1];
}

// C (rows, width) = A · B by this thread alone: finish(row, sums, column, count) is called with `count` finished sums of a row, the
// first of them the column's.
template <class Step, class Finish>
void multiply_narrow(int64_t rows, const Word* a, const Packed& b, const Finish& finish) {
  typename Step::Number tile[kMR * kNR];
  for (int64_t panel = 0; panel < panels_of(b.width); ++panel) {
    const int64_t column = panel * kNR, columns = std::min(kNR, b.width - column), vectors = (columns + kLanes - 1) / kLanes;
    for (int64_t row = 0; row < rows; row += kMR) {
      const int64_t count = std::min<int64_t>(kMR, rows - row);
      narrow_kernel_for<Step>(count, vectors)(a + row * b.depth, b.depth, count, b, panel, tile);
      for (int64_t r = 0; r < count; ++r) finish(row + r, tile + r * kNR, column, columns);
    }
  }
}

// An epilogue of gemm.h as what finishes; `top` is what it calls the first row.
template <class Epilogue>
auto by(const Epilogue& epilogue, int64_t top) {
  return [=](int64_t row, const float* sums, int64_t column, int64_t count) {
    const auto end = epilogue(top + row);
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) end(sums[j], column + j);
  };
}

}  // namespace xcit
