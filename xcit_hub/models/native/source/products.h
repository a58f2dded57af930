// Matrix products.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "arguments.h"
#include "threads.h"

namespace xcit {

// One register of floats; a tile of kTileRows × kTileVectors of them, and what it needs beside, fits the register file.
#ifdef __AVX512F__
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int kTileRows = 8, kTileVectors = 3;
#else
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int kTileRows = 4, kTileVectors = 3;
#endif
constexpr int64_t kLanes = sizeof(Lanes) / sizeof(float);
constexpr int64_t kTileWidth = kTileVectors * kLanes;
constexpr int64_t kDepth = 384;      // steps at a time: a panel of either factor then stays in the first caches
constexpr int64_t kBandTiles = 12;   // tiles of rows packed at a time

// Entry (i, j) stands at data[i · row + j · column].
struct Matrix {
  const float* data;
  int64_t row, column;

  Matrix at(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
  Matrix transposed() const { return {data, column, row}; }
};

// Panels of `width` rows of m, step after step, the last panel filled up with zeros.
inline void pack(const Matrix& m, int64_t rows, int64_t steps, int64_t width, float* panels) {
  for (int64_t first = 0; first < rows; first += width, panels += width * steps) {
    const int64_t count = std::min(width, rows - first);
    const float* from = m.data + first * m.row;
    if (count < width) std::fill_n(panels, width * steps, 0.0f);
    if (m.row == 1) {
      for (int64_t k = 0; k < steps; ++k) std::copy_n(from + k * m.column, count, panels + k * width);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t k = 0; k < steps; ++k) panels[k * width + i] = from[i * m.row + k * m.column];
      }
    }
  }
}

// A tile of C from one panel of each factor: c = [c +] a · b, whole tiles only.
inline void multiply_tile(const float* a, const float* b, int64_t steps, float* c, int64_t c_row, bool add) {
  Lanes sum[kTileRows][kTileVectors] = {};
  for (int64_t k = 0; k < steps; ++k, a += kTileRows, b += kTileWidth) {
    Lanes right[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) right[v] = *reinterpret_cast<const Lanes*>(b + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] += a[r] * right[v];
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) {
      Lanes* to = reinterpret_cast<Lanes*>(c + r * c_row + v * kLanes);
      *to = add ? *to + sum[r][v] : sum[r][v];
    }
  }
}

inline int64_t packed_size(int64_t width, int64_t depth) { return (width + kTileWidth - 1) / kTileWidth * kTileWidth * depth; }

// The right factor B (depth, width) as multiply_band reads it: chunks of kDepth steps, in each one panel after another.
inline void pack_right(const Matrix& b, int64_t width, int64_t depth, float* packed) {
  const int64_t panels = (width + kTileWidth - 1) / kTileWidth, chunks = (depth + kDepth - 1) / kDepth;
  Team::instance().split(chunks * panels, 4, [=](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t begin = item / panels * kDepth, steps = std::min(kDepth, depth - begin), panel = item % panels;
      pack(b.at(begin, panel * kTileWidth).transposed(), std::min(kTileWidth, width - panel * kTileWidth), steps,
           kTileWidth, packed + (begin * panels + panel * steps) * kTileWidth);
    }
  });
}

// Memory of this thread that outlives the call: fresh memory would be cleared page by page each time. One drawer for
// each use that may be open at the same time.
enum Drawer { kLeftPanels, kRightPanels, kFirst, kSecond, kDrawers };

inline float* scratch(Drawer drawer, int64_t floats) {
  static thread_local std::unique_ptr<float[]> drawers[kDrawers];
  static thread_local int64_t sizes[kDrawers] = {};
  if (sizes[drawer] < floats) {
    drawers[drawer].reset(new float[floats]);
    sizes[drawer] = floats;
  }
  return drawers[drawer].get();
}

// Some rows of C (rows, width) = A (rows, depth) · B, by this thread alone. left(row, count, step, steps, panels) packs a
// piece of A.
template <class Left>
void multiply_band(int64_t rows, int64_t width, int64_t depth, const Left& left, const float* right, float* c,
                   int64_t c_row) {
  const int64_t panels = (width + kTileWidth - 1) / kTileWidth;
  const int64_t padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
  float* lefts = scratch(kLeftPanels, padded * std::min(kDepth, depth));
  float edge[kTileRows * kTileWidth];
  for (int64_t begin = 0; begin < depth; begin += kDepth) {
    const int64_t steps = std::min(kDepth, depth - begin);
    left(0, rows, begin, steps, lefts);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const float* packed = right + (begin * panels + panel * steps) * kTileWidth;
      const int64_t column = panel * kTileWidth, columns = std::min(kTileWidth, width - column);
      for (int64_t row = 0; row < rows; row += kTileRows) {
        float* to = c + row * c_row + column;
        if (columns == kTileWidth && row + kTileRows <= rows) {
          multiply_tile(lefts + row * steps, packed, steps, to, c_row, begin > 0);
          continue;
        }
        multiply_tile(lefts + row * steps, packed, steps, edge, kTileWidth, false);
        for (int64_t r = 0; r < std::min<int64_t>(kTileRows, rows - row); ++r) {
          for (int64_t j = 0; j < columns; ++j) {
            to[r * c_row + j] = (begin > 0 ? to[r * c_row + j] : 0.0f) + edge[r * kTileWidth + j];
          }
        }
      }
    }
  }
}

// How a piece of a matrix is packed as the left factor.
inline auto from_matrix(const Matrix& a) {
  return [=](int64_t row, int64_t count, int64_t step, int64_t steps, float* panels) {
    pack(a.at(row, step), count, steps, kTileRows, panels);
  };
}

// Call job(top, bottom) for bands of rows, whole tiles: of a size that stays in a core's cache, at least four a thread.
template <class Job>
void split_bands(int64_t rows, const Job& job) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t bands = std::max(std::min(tiles, 4 * Team::instance().size()), (tiles + kBandTiles - 1) / kBandTiles);
  Team::instance().split(bands, 1, [&](int64_t first, int64_t last) {
    for (int64_t band = first; band < last; ++band) {
      job(tiles * band / bands * kTileRows, std::min(rows, tiles * (band + 1) / bands * kTileRows));
    }
  });
}

// C (rows, width), contiguous, = A (rows, depth) · B (depth, width) [+ bias].
inline void multiply(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const Matrix& b, const float* bias, float* c) {
  float* right = scratch(kRightPanels, packed_size(width, depth));
  pack_right(b, width, depth, right);
  split_bands(rows, [=](int64_t top, int64_t bottom) {
    multiply_band(bottom - top, width, depth, from_matrix(a.at(top, 0)), right, c + top * width, width);
    if (!bias) return;
    for (int64_t row = top; row < bottom; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) c[row * width + j] += bias[j];
    }
  });
}

// x (…, K), weight (N, K), bias (N) → (…, N)
inline void linear(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0), rows = a.size(0) / depth;
  multiply(rows, width, depth, {a.floats(0), depth, 1}, {a.floats(1), 1, depth}, a.floats(2), a.floats(3));
}

// x, weight, dy → dx, d weight, d bias
inline void linear_grad(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0), rows = a.size(0) / depth;
  const float *x = a.floats(0), *weight = a.floats(1), *dy = a.floats(2);
  multiply(rows, depth, width, {dy, width, 1}, {weight, depth, 1}, nullptr, a.floats(3));
  multiply(width, depth, rows, {dy, 1, width}, {x, depth, 1}, nullptr, a.floats(4));
  sum_rows(rows, width, a.floats(5), [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) sum[j] += dy[row * width + j];
    }
  });
}

// weight (N, K) → its transpose, packed as a right factor
inline void pack_weight(const Arguments& a) {
  const int64_t width = a.dim(0, 0), depth = a.dim(0, 1);
  pack_right({a.floats(0), 1, depth}, width, depth, a.floats(1));
}

}  // namespace xcit
