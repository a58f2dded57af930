// Products of bfloat16 numbers, summed in float32.
//
// A bfloat16 is the upper half of a float32. Both factors are rounded to it, to the nearest, ties to even. One instruction of
// AVX512-BF16 (vdpbf16ps) adds two products; it takes numbers below 2⁻¹²⁶ as zero.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "gemm.h"
#include "memory.h"
#include "narrow.h"
#include "tiles.h"

namespace xcit {

inline std::uint16_t rounded(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool is_number = (bits & 0x7fffffffu) <= 0x7f800000u;  // rounding could make a zero of what is not
  return (is_number ? bits + 0x7fffu + (bits >> 16 & 1u) : bits | 0x400000u) >> 16;
}

// x (count) → to
inline void round_row(const float* x, int64_t count, std::uint16_t* to) {
  int64_t done = 0;
#if defined(__AVX512BF16__)
  for (; done + kLanes <= count; done += kLanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + done), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + done)));
  }
#endif
#pragma omp simd
  for (int64_t i = done; i < count; ++i) to[i] = rounded(x[i]);
}

struct Bfloat16Step {
  using Number = float;
  using Sums = Lanes;

  // sum + a's first half · b's first halves + a's second · b's second
  static Lanes add(Lanes sum, std::uint32_t a, const Words& b) {
#if defined(__AVX512BF16__)
    return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(a)), (__m512bh)b);
#else
    float first, second;
    const std::uint32_t low = a << 16, high = a & 0xffff0000u;
    std::memcpy(&first, &low, sizeof first);
    std::memcpy(&second, &high, sizeof second);
    return sum + second * (Lanes)(b & 0xffff0000u) + first * (Lanes)(b << 16);
#endif
  }

#if defined(__AMX_TILE__)
  // The same of a whole register of sums, by those of A and B that tiles.h names.
  template <int Sums>
  static void add_tile() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(kLeft), "i"(kRight));
  }
#endif
};

// What a block multiplies; see block_narrow.h.
struct Bfloat16Factors {
  static int64_t words_of(int64_t steps) { return (steps + 1) / 2; }
  static int64_t packed_words(int64_t width, int64_t depth) { return packed_size(width, words_of(depth)); }

  struct Rows {
    std::uint16_t* data;
    int64_t words;

    std::uint16_t* row(int64_t i) const { return data + 2 * words * i; }
    void round(int64_t i, const float* x, int64_t steps) const { round_row(x, steps, row(i)); }

    // The same by parts, in any order, and an end.
    void part(int64_t i, const float* x, int64_t first, int64_t count) const { round_row(x, count, row(i) + first); }
    void whole() const {}
  };

  // Rows of so many steps in this thread's workspace, their last word filled up; and such as are rounded by parts.
  static Rows rows_in(Use use, int64_t rows, int64_t steps) {
    const int64_t words = words_of(steps);
    const Rows all{reinterpret_cast<std::uint16_t*>(workspace(use, rows * words)), words};
    for (int64_t i = 0; i < rows && steps % 2; ++i) all.row(i)[steps] = 0;
    return all;
  }
  static Rows parts_in(Use use, int64_t rows, int64_t steps) { return rows_in(use, rows, steps); }

  // weight (N, K) → its transpose as a packed B.
  static void pack(const float* weight, int64_t width, int64_t depth, float* to) {
    const int64_t words = words_of(depth);
    const Buffer buffer(width * words, true);
    const Rows rows{reinterpret_cast<std::uint16_t*>(&buffer[0]), words};
    for (int64_t n = 0; n < width; ++n) rows.round(n, weight + n * depth, depth);
    pack_weight(buffer, width, words, to);
  }

  template <class Finish>
  static void multiply(int64_t rows, const Rows& a, const float* b, int64_t width, int64_t depth, const Finish& finish) {
    multiply_words<Bfloat16Step>(rows, reinterpret_cast<const Word*>(a.data), {b, width, words_of(depth)}, finish);
  }
};

}  // namespace xcit
