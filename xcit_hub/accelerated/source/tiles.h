// Matrix products of narrow numbers by the tiles of Intel's AMX, where a library is compiled for them; else as in narrow.h.
//
// A core has eight registers of up to 16 rows of 16 words. Six hold the sums of two times 16 rows by three times 16 columns, one
// the rows of A, one the words of B: 16 steps of a packed panel, just as they lie there.
//
//                       columns   0 … 15   16 … 31   32 … 47
//       upper 16 rows             sums 0    sums 1    sums 2     += kLeft · kRight, each in turn
//       lower 16 rows             sums 3    sums 4    sums 5
//
// The words that are left of the depth, less than 16, other instructions add to what was stored.

#pragma once

#include <algorithm>
#include <cstdint>

#include "gemm.h"
#include "narrow.h"

namespace xcit {

#if defined(__AMX_TILE__)

constexpr int64_t kTileRows = 16, kTileWords = 16;
static_assert(kNR == kVectors * kTileWords && kKC % kTileWords == 0, "a panel is some tiles wide, a chunk of it some tiles deep");

constexpr int kLeft = 6, kRight = 7;  // after those of sums

template <int Tile>
void load_tile(const void* from, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(Tile) : "memory");
}

template <int Tile>
void store_tile(void* to, int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_bytes), "i"(Tile) : "memory");
}

inline void clear_tiles() {
  asm volatile(
      "tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\t"
      "tilezero %tmm3\n\ttilezero %tmm4\n\ttilezero %tmm5");
}

// The registers of this thread, of one size while this lives, and free again afterwards.
class Tiles {
 public:
  explicit Tiles(int64_t rows) {
    struct alignas(64) {
      std::uint8_t palette = 1, start = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } sizes;
    for (int tile = 0; tile <= kRight; ++tile) {
      sizes.row_bytes[tile] = sizeof(Word) * kTileWords;
      sizes.rows[tile] = static_cast<std::uint8_t>(tile == kRight ? kTileWords : rows);
    }
    asm volatile("ldtilecfg %0" ::"m"(sizes));  // GCC's own function names eight of these bytes alone as read
  }
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// The sums from the register First on += a's rows · b's steps, 16 words of each.
template <class Step, int Vectors, int First>
void add_tiles(const Word* a, int64_t words, const float* b) {
  load_tile<kLeft>(a, words * sizeof(Word));
  load_tile<kRight>(b, kNR * sizeof(Word));
  Step::template add_tile<First>();
  if constexpr (Vectors > 1) {
    load_tile<kRight>(b + kLanes, kNR * sizeof(Word));
    Step::template add_tile<First + 1>();
  }
  if constexpr (Vectors > 2) {
    load_tile<kRight>(b + 2 * kLanes, kNR * sizeof(Word));
    Step::template add_tile<First + 2>();
  }
}

template <int Vectors, int First>
void store_tiles(void* to) {
  constexpr int64_t kRow = kNR * sizeof(Word);
  store_tile<First>(to, kRow);
  if constexpr (Vectors > 1) store_tile<First + 1>(static_cast<char*>(to) + kTileWords * sizeof(Word), kRow);
  if constexpr (Vectors > 2) store_tile<First + 2>(static_cast<char*>(to) + 2 * kTileWords * sizeof(Word), kRow);
}

// A tile of C, kNR sums a row: `count` rows of a, as many as the registers have or, with Lower, twice as many, by the panel of b.
template <class Step, int Vectors, bool Lower>
void tile_kernel(const Word* a, int64_t count, const Packed& b, int64_t panel, typename Step::Number* tile) {
  const int64_t words = b.depth;
  const Word* lower = a + kTileRows * words;
  clear_tiles();
  for (int64_t begin = 0; begin < words; begin += kKC) {
    const int64_t steps = std::min(kKC, words - begin), whole = steps - steps % kTileWords;
    const float* from = b.panel(panel, begin, steps);
    for (int64_t k = 0; k < whole; k += kTileWords) {
      add_tiles<Step, Vectors, 0>(a + begin + k, words, from + k * kNR);
      if constexpr (Lower) add_tiles<Step, Vectors, kVectors>(lower + begin + k, words, from + k * kNR);
    }
    if (begin + steps < words) continue;
    store_tiles<Vectors, 0>(tile);
    if constexpr (Lower) store_tiles<Vectors, kVectors>(tile + kTileRows * kNR);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t k = whole; k < steps; ++k) {
        for (int v = 0; v < Vectors; ++v) {
          auto* sums = reinterpret_cast<typename Step::Sums*>(tile + r * kNR + v * kLanes);
          *sums = Step::add(*sums, a[r * words + begin + k], *reinterpret_cast<const Words*>(from + k * kNR + v * kLanes));
        }
      }
    }
  }
}

template <class Step>
auto tile_kernel_for(int64_t vectors, bool lower) {
  using Kernel = void (*)(const Word*, int64_t, const Packed&, int64_t, typename Step::Number*);
  static constexpr Kernel kKernels[2][kVectors] = {
      {tile_kernel<Step, 1, false>, tile_kernel<Step, 2, false>, tile_kernel<Step, 3, false>},
      {tile_kernel<Step, 1, true>, tile_kernel<Step, 2, true>, tile_kernel<Step, 3, true>},
  };
  return kKernels[lower][vectors - 1];
}

#endif

// C (rows, width) = A · B by this thread alone, as multiply_narrow of narrow.h.
template <class Step, class Finish>
void multiply_words(int64_t rows, const Word* a, const Packed& b, const Finish& finish) {
#if defined(__AMX_TILE__)
  alignas(64) typename Step::Number tile[2 * kTileRows * kNR];
  for (int64_t top = 0, count; top < rows; top += count) {
    const bool lower = rows - top >= 2 * kTileRows;
    count = lower ? 2 * kTileRows : std::min(kTileRows, rows - top);
    const Tiles registers(std::min(kTileRows, count));
    for (int64_t panel = 0; panel < panels_of(b.width); ++panel) {
      const int64_t column = panel * kNR, columns = std::min(kNR, b.width - column), vectors = (columns + kLanes - 1) / kLanes;
      tile_kernel_for<Step>(vectors, lower)(a + top * b.depth, count, b, panel, tile);
      for (int64_t r = 0; r < count; ++r) finish(top + r, tile + r * kNR, column, columns);
    }
  }
#else
  multiply_narrow<Step>(rows, a, b, finish);
#endif
}

}  // namespace xcit
