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
// Steps at a time: a panel of either factor stays in the first caches, and sums of sums round as little as PyTorch's.
constexpr int64_t kDepth = 192;
constexpr int64_t kBandTiles = 12;   // tiles of rows packed at a time

// Entry (i, j) stands at data[i · row + j · column].
struct Matrix {
  const float* data;
  int64_t row, column;

  Matrix at(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
  Matrix transposed() const { return {data, column, row}; }
};

constexpr int64_t kSquare = 16;

// to(k, i) = from(i, k) of a square: numbers are read and written where they lie beside one another.
inline void transpose(const float* from, int64_t row, int64_t column, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  if (rows == kSquare && columns == kSquare && column == 1) {
    float square[kSquare][kSquare];
    for (int64_t i = 0; i < kSquare; ++i) {
      for (int64_t k = 0; k < kSquare; ++k) square[k][i] = from[i * row + k];
    }
    for (int64_t k = 0; k < kSquare; ++k) std::copy_n(square[k], kSquare, to + k * to_row);
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < columns; ++k) to[k * to_row + i] = from[i * row + k * column];
    }
  }
}

// Panels of `width` rows of m, step after step, the last panel filled up with zeros.
inline void pack(const Matrix& m, int64_t rows, int64_t steps, int64_t width, float* panels) {
  for (int64_t first = 0; first < rows; first += width, panels += width * steps) {
    const int64_t count = std::min(width, rows - first);
    const float* from = m.data + first * m.row;
    if (count < width) std::fill_n(panels, width * steps, 0.0f);
    if (m.row == 1) {
      for (int64_t k = 0; k < steps; ++k) std::copy_n(from + k * m.column, count, panels + k * width);
    } else {
      for (int64_t i = 0; i < count; i += kSquare) {
        for (int64_t k = 0; k < steps; k += kSquare) {
          transpose(from + i * m.row + k * m.column, m.row, m.column, std::min(kSquare, count - i),
                    std::min(kSquare, steps - k), panels + k * width + i, width);
        }
      }
    }
  }
}

// A tile of C: c = [c +] a · b. Rows of a from `count` on are the last one again, and what they give is left out.
template <int Rows, int Vectors>
void multiply_tile(const Matrix& a, int64_t count, const float* b, int64_t steps, float* c, int64_t c_row, bool add) {
  const float* rows[Rows];
  for (int r = 0; r < Rows; ++r) rows[r] = a.data + std::min<int64_t>(r, count - 1) * a.row;
  Lanes sum[Rows][Vectors] = {};
  for (int64_t k = 0, at = 0; k < steps; ++k, at += a.column, b += kTileWidth) {
    Lanes right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = *reinterpret_cast<const Lanes*>(b + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) sum[r][v] += rows[r][at] * right[v];
    }
  }
  for (int r = 0; r < Rows && r < count; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      Lanes* to = reinterpret_cast<Lanes*>(c + r * c_row + v * kLanes);
      *to = add ? *to + sum[r][v] : sum[r][v];
    }
  }
}

// By how many rows a tile has (up to half as many, up to all) and how many vectors.
using Tile = void (*)(const Matrix&, int64_t, const float*, int64_t, float*, int64_t, bool);
constexpr Tile kTiles[2][kTileVectors] = {
    {multiply_tile<kTileRows / 2, 1>, multiply_tile<kTileRows / 2, 2>, multiply_tile<kTileRows / 2, 3>},
    {multiply_tile<kTileRows, 1>, multiply_tile<kTileRows, 2>, multiply_tile<kTileRows, 3>},
};

inline int64_t panels_of(int64_t width) { return (width + kTileWidth - 1) / kTileWidth; }
inline int64_t packed_size(int64_t width, int64_t depth) { return panels_of(width) * kTileWidth * depth; }

// The right factor B (depth, width) as multiply_band reads it: chunks of kDepth steps, in each one panel after another.
inline void pack_right(const Matrix& b, int64_t width, int64_t depth, float* packed) {
  const int64_t panels = panels_of(width), chunks = (depth + kDepth - 1) / kDepth;
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
enum Drawer { kLeftPanels, kRightPanels, kMoreRightPanels, kPrepared, kFirst, kSecond, kUp, kNormed, kActive, kPassed, kDrawers };

inline float* scratch(Drawer drawer, int64_t floats) {
  static thread_local std::unique_ptr<float[]> drawers[kDrawers];
  static thread_local int64_t sizes[kDrawers] = {};
  if (sizes[drawer] < floats) {
    drawers[drawer].reset(new float[floats]);
    sizes[drawer] = floats;
  }
  return drawers[drawer].get();
}

// Some rows of C (rows, width) = A (rows, depth) · B, by this thread alone; of the columns those of some panels.
// finish(row, count, column, columns) is called for every tile of C that is done, while it is in the first cache.
template <class Finish>
void multiply_panels(int64_t first_panel, int64_t last_panel, int64_t rows, int64_t width, int64_t depth, const Matrix& a,
                     const float* right, float* c, int64_t c_row, const Finish& finish) {
  const int64_t panels = panels_of(width);
  float edge[kTileRows * kTileWidth];
  for (int64_t begin = 0; begin < depth; begin += kDepth) {
    const int64_t steps = std::min(kDepth, depth - begin);
    Matrix left = a.at(0, begin);
    int64_t next_tile = kTileRows * a.row;
    if (a.column != 1) {  // numbers that are used one after another must lie so
      next_tile = kTileRows * steps;
      float* packed = scratch(kLeftPanels, (rows + kTileRows - 1) / kTileRows * next_tile);
      pack(left, rows, steps, kTileRows, packed);
      left = {packed, 1, kTileRows};
    }
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const float* packed = right + (begin * panels + panel * steps) * kTileWidth;
      const int64_t column = panel * kTileWidth, columns = std::min(kTileWidth, width - column);
      const int64_t vectors = (columns + kLanes - 1) / kLanes;
      Matrix tile = left;
      for (int64_t row = 0; row < rows; row += kTileRows, tile.data += next_tile) {
        const int64_t count = std::min<int64_t>(kTileRows, rows - row);
        const Tile multiply_one = kTiles[count > kTileRows / 2][vectors - 1];
        float* to = c + row * c_row + column;
        if (columns == vectors * kLanes) {
          multiply_one(tile, count, packed, steps, to, c_row, begin > 0);
        } else {
          multiply_one(tile, count, packed, steps, edge, kTileWidth, false);
          for (int64_t r = 0; r < count; ++r) {
            for (int64_t j = 0; j < columns; ++j) {
              to[r * c_row + j] = (begin > 0 ? to[r * c_row + j] : 0.0f) + edge[r * kTileWidth + j];
            }
          }
        }
        if (begin + steps == depth) finish(row, count, column, columns);
      }
    }
  }
}

// The same of all columns.
template <class Finish>
void multiply_band(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const float* right, float* c,
                   int64_t c_row, const Finish& finish) {
  multiply_panels(0, panels_of(width), rows, width, depth, a, right, c, c_row, finish);
}

// Call job(top, bottom) for bands of rows, whole tiles, of a size that stays in a core's cache.
template <class Job>
void split_bands(int64_t rows, const Job& job) {
  Team::instance().split((rows + kTileRows - 1) / kTileRows, 1, [&](int64_t first, int64_t last) {
    const int64_t tiles = last - first, bands = (tiles + kBandTiles - 1) / kBandTiles;
    for (int64_t band = 0; band < bands; ++band) {
      job((first + tiles * band / bands) * kTileRows, std::min(rows, (first + tiles * (band + 1) / bands) * kTileRows));
    }
  });
}

// C (rows, width), contiguous, = A (rows, depth) · packed B [+ bias].
inline void multiply_packed(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const float* right, const float* bias,
                            float* c) {
  split_bands(rows, [=](int64_t top, int64_t bottom) {
    float* band = c + top * width;
    const auto add_bias = [=](int64_t row, int64_t count, int64_t column, int64_t columns) {
      if (!bias) return;
      for (int64_t r = row; r < row + count; ++r) {
#pragma omp simd
        for (int64_t j = column; j < column + columns; ++j) band[r * width + j] += bias[j];
      }
    };
    multiply_band(bottom - top, width, depth, a.at(top, 0), right, band, width, add_bias);
  });
}

// C (rows, width), contiguous, = A (rows, depth) · B (depth, width) [+ bias].
inline void multiply(int64_t rows, int64_t width, int64_t depth, const Matrix& a, const Matrix& b, const float* bias, float* c) {
  float* right = scratch(kRightPanels, packed_size(width, depth));
  pack_right(b, width, depth, right);
  multiply_packed(rows, width, depth, a, right, bias, c);
}

// x (…, K), weight (N, K), bias (N) → (…, N)
inline void linear(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0), rows = a.size(0) / depth;
  multiply(rows, width, depth, {a.floats(0), depth, 1}, {a.floats(1), 1, depth}, a.floats(2), a.floats(3));
}

inline void column_sums(int64_t rows, int64_t width, const float* x, float* sums) {
  sum_rows(rows, width, sums, [=](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) sum[j] += x[row * width + j];
    }
  });
}

// x (…, K), packed weight of (N, K), bias (N) → (…, N)
inline void packed_linear(const Arguments& a) {
  const int64_t depth = a.dim(0, -1), width = a.dim(2, 0);
  multiply_packed(a.size(0) / depth, width, depth, {a.floats(0), depth, 1}, a.floats(1), a.floats(2), a.floats(3));
}

// x (rows, K), weight (N, K), dy (rows, N) → dx, d weight, d bias
inline void affine_grad(int64_t rows, int64_t width, int64_t depth, const float* x, const float* weight, const float* dy,
                        float* dx, float* dweight, float* dbias) {
  multiply(rows, depth, width, {dy, width, 1}, {weight, depth, 1}, nullptr, dx);
  multiply(width, depth, rows, {dy, 1, width}, {x, depth, 1}, nullptr, dweight);
  column_sums(rows, width, dy, dbias);
}

// x, weight, dy → dx, d weight, d bias
inline void linear_grad(const Arguments& a) {
  const int64_t depth = a.dim(1, 1), width = a.dim(1, 0);
  affine_grad(a.size(0) / depth, width, depth, a.floats(0), a.floats(1), a.floats(2), a.floats(3), a.floats(4), a.floats(5));
}

}  // namespace xcit
