// Matrix products C = A · B as BLIS computes them: one micro-kernel, packed panels, and an epilogue.
//
// The micro-kernel adds KC steps to a tile of MR × NR numbers of C that stays in registers. B is packed: KC steps of NR
// columns lie one after another in a panel, so that the micro-kernel reads B in a line. One panel, of a B with 4 steps and
// 6 columns, NR = 4 (the second is filled up with zeros):
//
//       columns  0  1  2  3 | 4  5             panel 0                  panel 1
//     step 0     a  b  c  d | e  f             a b c d                  e f 0 0
//     step 1     g  h  i  j | k  l      →      g h i j  ← one step      k l 0 0
//     step 2     m  n  o  p | q  r             m n o p                  q r 0 0
//     step 3     s  t  u  v | w  x             s t u v                  w x 0 0
//
// More than KC steps are cut into chunks, each with all its panels: chunk 0 panel 0, chunk 0 panel 1, …, chunk 1 panel 0, …
// A is read where it lies if its steps lie beside one another; else MC rows of it are packed likewise, MR in place of NR.

#pragma once

#include <algorithm>
#include <cstdint>

#include "memory.h"
#include "threads.h"

namespace xcit {

// One register of floats. A tile of kMR × kNR sums, a step of B and a number of A fill the register file: 32 registers
// of AVX-512 and of NEON, 16 of AVX2.
#if defined(__AVX512F__)
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int kMR = 8;
#elif defined(__AVX2__)
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int kMR = 4;
#else
typedef float Lanes __attribute__((vector_size(16), aligned(4), may_alias));
constexpr int kMR = 8;
#endif
constexpr int kVectors = 3;
constexpr int64_t kLanes = sizeof(Lanes) / sizeof(float);
constexpr int64_t kNR = kVectors * kLanes;  // divides kPanel of operands.h
// A panel of either factor stays in the first caches, and sums of sums round as little as PyTorch's.
constexpr int64_t kKC = 192;
constexpr int64_t kMC = 12 * kMR;

// Entry (i, j) stands at data[i · row + j · column].
struct Matrix {
  const float* data;
  int64_t row, column;

  Matrix at(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
  Matrix transposed() const { return {data, column, row}; }
};

// (·, columns), contiguous.
inline Matrix rows_of(const float* data, int64_t columns) { return {data, columns, 1}; }

// ---- packing -------------------------------------------------------------------------------------------------------

constexpr int64_t kSquare = 16, kLine = 16;  // numbers of a line of memory

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define XCIT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int FourPlaces __attribute__((vector_size(16)));
#define XCIT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, FourPlaces{__VA_ARGS__})
#endif

// to(k, i) = from(i, k) of four times four, in registers.
inline void transpose_four(const float* from, int64_t from_row, float* to, int64_t to_row) {
  const auto row = [=](int64_t i) { return *reinterpret_cast<const Four*>(from + i * from_row); };
  const auto put = [=](int64_t k, Four numbers) { *reinterpret_cast<Four*>(to + k * to_row) = numbers; };
  const Four a = row(0), b = row(1), c = row(2), d = row(3);
  const Four ab = XCIT_SHUFFLE(a, b, 0, 4, 1, 5), cd = XCIT_SHUFFLE(c, d, 0, 4, 1, 5);
  put(0, XCIT_SHUFFLE(ab, cd, 0, 1, 4, 5));
  put(1, XCIT_SHUFFLE(ab, cd, 2, 3, 6, 7));
  const Four ab_high = XCIT_SHUFFLE(a, b, 2, 6, 3, 7), cd_high = XCIT_SHUFFLE(c, d, 2, 6, 3, 7);
  put(2, XCIT_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  put(3, XCIT_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
}

// to(k, i) = from(i, k)
inline void transpose(const Matrix& from, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  if (rows % 4 == 0 && columns % 4 == 0 && from.column == 1) {
    for (int64_t i = 0; i < rows; i += 4) {
      for (int64_t k = 0; k < columns; k += 4) transpose_four(from.data + i * from.row + k, from.row, to + k * to_row + i, to_row);
    }
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < columns; ++k) to[k * to_row + i] = from.data[i * from.row + k * from.column];
    }
  }
}

// m (rows, steps) → panels of Width rows, step after step, the last panel filled up with zeros.
template <int64_t Width>
void pack(const Matrix& m, int64_t rows, int64_t steps, float* panels) {
  for (int64_t first = 0; first < rows; first += Width, panels += Width * steps) {
    const int64_t count = std::min(Width, rows - first);
    const Matrix from = m.at(first, 0);
    if (count < Width) std::fill_n(panels, Width * steps, 0.0f);
    if (m.row == 1 && Width < kLine && kLine % Width == 0 && rows - first >= kLine) {  // whole lines of memory, several panels
      for (int64_t k = 0; k < steps; ++k) {
        const float* line = from.data + k * m.column;
        __builtin_prefetch(line + 16 * m.column);
#pragma GCC unroll 4
        for (int64_t panel = 0; panel < kLine / Width; ++panel) {
#pragma omp simd
          for (int64_t i = 0; i < Width; ++i) panels[(panel * steps + k) * Width + i] = line[panel * Width + i];
        }
      }
      first += kLine - Width, panels += (kLine - Width) * steps;
    } else if (m.row == 1 && count == Width) {  // a size that the compiler knows: no call for every step
      for (int64_t k = 0; k < steps; ++k) {
        const float* line = from.data + k * m.column;
#pragma omp simd
        for (int64_t i = 0; i < Width; ++i) panels[k * Width + i] = line[i];
      }
    } else if (m.row == 1) {
      for (int64_t k = 0; k < steps; ++k) std::copy_n(from.data + k * m.column, count, panels + k * Width);
    } else {
      for (int64_t i = 0; i < count; i += kSquare) {
        for (int64_t k = 0; k < steps; k += kSquare) {
          // Ask for the next rows: of so many streams at once a processor fetches none ahead by itself.
          for (int64_t next = i + kSquare; next < i + 2 * kSquare; ++next) __builtin_prefetch(from.data + next * from.row + k);
          transpose(from.at(i, k), std::min(kSquare, count - i), std::min(kSquare, steps - k), panels + k * Width + i, Width);
        }
      }
    }
  }
}

inline int64_t panels_of(int64_t width) { return (width + kNR - 1) / kNR; }
inline int64_t packed_size(int64_t width, int64_t depth) { return panels_of(width) * kNR * depth; }

// B (depth, width), packed.
struct Packed {
  const float* data;
  int64_t width, depth;

  // The panel of the chunk that begins at step `begin` and has `steps`.
  const float* panel(int64_t which, int64_t begin, int64_t steps) const {
    return data + (begin * panels_of(width) + which * steps) * kNR;
  }
};

// b (depth, width) → to, of packed_size(width, depth).
inline Packed pack_b(const Matrix& b, int64_t width, int64_t depth, float* to) {
  const int64_t panels = panels_of(width), chunks = (depth + kKC - 1) / kKC;
  Team::instance().split(chunks * panels, 4, [=](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t begin = item / panels * kKC, steps = std::min(kKC, depth - begin), panel = item % panels;
      pack<kNR>(b.at(begin, panel * kNR).transposed(), std::min(kNR, width - panel * kNR), steps,
                to + (begin * panels + panel * steps) * kNR);
    }
  });
  return {to, width, depth};
}

// weight (N, K) → its transpose as a packed B.
inline Packed pack_weight(const float* weight, int64_t width, int64_t depth, float* to) {
  return pack_b(rows_of(weight, depth).transposed(), width, depth, to);
}

// ---- the micro-kernel ------------------------------------------------------------------------------------------------

// A tile of C, `count` rows of Vectors · kLanes numbers: c = [c +] a · b. Rows of a from `count` on are the last one again,
// and what they give is left out.
template <int Rows, int Vectors>
void micro_kernel(const Matrix& a, int64_t count, const float* b, int64_t b_row, int64_t steps, float* c, int64_t c_row,
                  bool add) {
  const float* rows[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) rows[r] = a.data + std::min<int64_t>(r, count - 1) * a.row;
  Lanes sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[r][v] = Lanes{};
  }
  for (int64_t k = 0, at = 0; k < steps; ++k, at += a.column, b += b_row) {
    Lanes right[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) right[v] = *reinterpret_cast<const Lanes*>(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sum[r][v] += rows[r][at] * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    if (r >= count) break;
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      Lanes* to = reinterpret_cast<Lanes*>(c + r * c_row + v * kLanes);
      *to = add ? *to + sum[r][v] : sum[r][v];
    }
  }
}

using MicroKernel = void (*)(const Matrix&, int64_t, const float*, int64_t, int64_t, float*, int64_t, bool);

// For so many rows and vectors: half tiles are for the ends of C.
inline MicroKernel kernel_for(int64_t rows, int64_t vectors) {
  static constexpr MicroKernel kKernels[2][kVectors] = {
      {micro_kernel<kMR / 2, 1>, micro_kernel<kMR / 2, 2>, micro_kernel<kMR / 2, 3>},
      {micro_kernel<kMR, 1>, micro_kernel<kMR, 2>, micro_kernel<kMR, 3>},
  };
  return kKernels[rows > kMR / 2][vectors - 1];
}

// ---- products --------------------------------------------------------------------------------------------------------
//
// An epilogue is what becomes of finished sums while they are in the first cache: epilogue(row) gives a function that is
// called with (sum, column) for some columns at a time and stores what it makes of it, in C or elsewhere. One that reads or
// writes elsewhere may have a `fetch`, which asks memory for some columns of it ahead of the sums: rows are too far apart
// for processors to foresee.

inline auto keep_sums(int64_t) {
  return [](float, int64_t) {};
}

template <class Epilogue>
auto fetch(const Epilogue& epilogue, int64_t row, int64_t column, int64_t columns)
    -> decltype(epilogue.fetch(row, column, columns)) {
  epilogue.fetch(row, column, columns);
}
inline void fetch(...) {}

// Ask memory for some numbers that will be read, or written.
template <bool Written>
void fetch_line(const float* data, int64_t count) {
  for (int64_t at = 0; at < count; at += kLine) __builtin_prefetch(data + at, Written);
}

// c(row, column) = sum + bias
inline auto add_bias(const float* bias, float* c, int64_t width) {
  return [=](int64_t row) {
    float* to = c + row * width;
    return [=](float sum, int64_t column) { to[column] = sum + bias[column]; };
  };
}

// A tile of C, `count` rows of `columns` numbers, rows `width` apart: c = [c +] a · a panel of B.
inline void multiply_tile(const Matrix& a, int64_t count, int64_t columns, const float* panel, int64_t steps, float* c, int64_t width,
                          bool add) {
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  const MicroKernel kernel = kernel_for(count, vectors);
  if (columns == vectors * kLanes) return kernel(a, count, panel, kNR, steps, c, width, add);
  float edge[kMR * kNR];
  kernel(a, count, panel, kNR, steps, edge, kNR, false);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t j = 0; j < columns; ++j) c[r * width + j] = (add ? c[r * width + j] : 0.0f) + edge[r * kNR + j];
  }
}

// The columns of some panels of C (rows, width), contiguous, by this thread alone. `top` is what the epilogue calls the first row.
template <class Epilogue>
void multiply_panels(int64_t first_panel, int64_t last_panel, int64_t top, int64_t rows, const Matrix& a, const Packed& b, float* c,
                     const Epilogue& epilogue) {
  for (int64_t begin = 0; begin < b.depth; begin += kKC) {
    const int64_t steps = std::min(kKC, b.depth - begin);
    Matrix left = a.at(0, begin);
    int64_t next_tile = kMR * a.row;
    if (a.column != 1) {
      next_tile = kMR * steps;
      float* packed = workspace(Use::kPackedA, (rows + kMR - 1) / kMR * next_tile);
      pack<kMR>(left, rows, steps, packed);
      left = {packed, 1, kMR};
    }
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const float* right = b.panel(panel, begin, steps);
      const int64_t column = panel * kNR, columns = std::min(kNR, b.width - column);
      Matrix tile = left;
      for (int64_t row = 0; row < rows; row += kMR, tile.data += next_tile) {
        const int64_t count = std::min<int64_t>(kMR, rows - row);
        const bool finished = begin + steps == b.depth;
        for (int64_t r = 0; finished && r < count; ++r) fetch(epilogue, top + row + r, column, columns);
        multiply_tile(tile, count, columns, right, steps, c + row * b.width + column, b.width, begin > 0);
        for (int64_t r = 0; finished && r < count; ++r) {
          const auto end = epilogue(top + row + r);
          const float* sums = c + (row + r) * b.width;
#pragma omp simd
          for (int64_t j = column; j < column + columns; ++j) end(sums[j], j);
        }
      }
    }
  }
}

// The same of all columns.
template <class Epilogue>
void multiply_band(int64_t top, int64_t rows, const Matrix& a, const Packed& b, float* c, const Epilogue& epilogue) {
  multiply_panels(0, panels_of(b.width), top, rows, a, b, c, epilogue);
}

// Call job(top, bottom) for bands of rows, whole tiles, kMC at most: of a size that stays in a core's cache.
template <class Job>
void split_bands(int64_t rows, const Job& job) {
  Team::instance().split((rows + kMR - 1) / kMR, 1, [&](int64_t first, int64_t last) {
    const int64_t tiles = last - first, bands = (tiles * kMR + kMC - 1) / kMC;
    for (int64_t band = 0; band < bands; ++band) {
      job((first + tiles * band / bands) * kMR, std::min(rows, (first + tiles * (band + 1) / bands) * kMR));
    }
  });
}

// C (rows, width), contiguous, = A · B by all threads.
template <class Epilogue>
void multiply(int64_t rows, const Matrix& a, const Packed& b, float* c, const Epilogue& epilogue) {
  split_bands(rows, [&](int64_t top, int64_t bottom) {
    multiply_band(top, bottom - top, a.at(top, 0), b, c + top * b.width, epilogue);
  });
}

// The same of a B (depth, width) that is not packed yet.
inline void multiply(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const Matrix& b, float* c) {
  multiply(rows, a, pack_b(b, width, depth, workspace(Use::kPackedB, packed_size(width, depth))), c, keep_sums);
}

// C (rows, width), contiguous, = A · B over so many steps that no cache holds either factor: chunk after chunk of them is packed
// by who multiplies it, and C stays in the cache. Where threads are many and their rows few, B is packed once for all of them.
inline void multiply_long(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const Matrix& b, float* c) {
  const int64_t shares = 2 * Team::instance().size(), tiles = (rows + kMR - 1) / kMR, least = (tiles + shares - 1) / shares;
  if (rows < shares * kMC) return multiply(rows, width, depth, a, b, c);
  Team::instance().split(tiles, least, [=](int64_t first, int64_t last) {
    const int64_t top = first * kMR, count = std::min(rows, last * kMR) - top;
    float *left = workspace(Use::kPackedA, (last - first) * kMR * kKC), *right = workspace(Use::kPackedB, packed_size(width, kKC));
    for (int64_t begin = 0; begin < depth; begin += kKC) {
      const int64_t steps = std::min(kKC, depth - begin);
      pack<kMR>(a.at(top, begin), count, steps, left);
      pack<kNR>(b.at(begin, 0).transposed(), width, steps, right);
      for (int64_t column = 0; column < width; column += kNR) {
        for (int64_t row = 0; row < count; row += kMR) {
          multiply_tile({left + row * steps, 1, kMR}, std::min<int64_t>(kMR, count - row), std::min(kNR, width - column),
                        right + column * steps, steps, c + (top + row) * width + column, width, begin > 0);
        }
      }
    }
  });
}

inline int64_t whole_registers(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

// c (rows, width) += aᵀ · b of a few steps, a (steps, rows), b (steps, width), by this thread alone; width is of whole registers.
inline void add_product(int64_t rows, int64_t width, int64_t steps, const float* a, const float* b, float* c) {
  float* left = workspace(Use::kPackedA, (rows + kMR - 1) / kMR * kMR * steps);
  pack<kMR>(rows_of(a, rows).transposed(), rows, steps, left);
  for (int64_t column = 0; column < width; column += kNR) {
    const int64_t vectors = std::min<int64_t>(kVectors, (width - column) / kLanes);
    for (int64_t row = 0; row < rows; row += kMR) {
      const int64_t count = std::min<int64_t>(kMR, rows - row);
      kernel_for(count, vectors)({left + row * steps, 1, kMR}, count, b + column, width, steps, c + row * width + column, width, true);
    }
  }
}

// A product too small to pack: C (rows, width), rows c_row apart, = [C +] A · B, whose rows are contiguous, b_row apart.
inline void multiply_small(int64_t rows, int64_t width, int64_t steps, const Matrix& a, const float* b, int64_t b_row, float* c,
                           int64_t c_row, bool add = false) {
  int64_t column = 0;
  for (int64_t vectors; (vectors = std::min<int64_t>(kVectors, (width - column) / kLanes)) > 0; column += vectors * kLanes) {
    for (int64_t row = 0; row < rows; row += kMR) {
      const int64_t count = std::min<int64_t>(kMR, rows - row);
      kernel_for(count, vectors)(a.at(row, 0), count, b + column, b_row, steps, c + row * c_row + column, c_row, add);
    }
  }
  for (; column < width; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      float sum = 0.0f, *to = c + row * c_row + column;
      for (int64_t k = 0; k < steps; ++k) sum += a.data[row * a.row + k * a.column] * b[k * b_row + column];
      *to = add ? *to + sum : sum;
    }
  }
}

}  // namespace xcit
