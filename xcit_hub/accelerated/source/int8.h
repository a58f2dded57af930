// Products of whole numbers of 8 bits, summed in 32 bits, and what they stand for.
//
// A row of A is a scale times whole numbers of -127 … 127, the scale a 127th of its greatest magnitude, found anew for each row;
// a column of B likewise, once. One instruction of AVX512-VNNI (vpdpbusd) adds four products, and wants A without signs: 128
// is added to every number of A, and 128 times the sum of B's column taken off what comes of it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#include "gemm.h"
#include "memory.h"
#include "narrow.h"
#include "tiles.h"

namespace xcit {

typedef std::int32_t Integer __attribute__((may_alias));
typedef float Scale __attribute__((may_alias));
typedef std::int32_t Integers __attribute__((vector_size(sizeof(Lanes)), aligned(4), may_alias));

constexpr std::int32_t kMiddle = 128;  // what stands for zero

// x (count) → to, and the scale: x is about scale · (to − 128). Not a number where any of x is none, or infinite.
inline float quantise(const float* x, int64_t count, std::uint8_t* to) {
  float greatest = 0.0f, faults = 0.0f;
#pragma omp simd reduction(max : greatest) reduction(+ : faults)
  for (int64_t i = 0; i < count; ++i) {
    greatest = std::max(greatest, std::fabs(x[i]));
    faults += x[i] * 0.0f;
  }
  const bool sound = faults == 0.0f;
  if (!sound || greatest < 1e-30f) {  // whose inverse is beyond float32
    std::fill_n(to, count, kMiddle);
    return sound ? 0.0f : NAN;
  }
  const float inverse = 127.0f / greatest;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<std::int32_t>(x[i] * inverse + (kMiddle + 0.5f));
  return greatest / 127.0f;
}

struct Int8Step {
  using Number = std::int32_t;
  using Sums = Integers;

  // sum + a's four numbers without signs · b's with signs
  static Integers add(Integers sum, std::uint32_t a, const Words& b) {
#if defined(__AVX512VNNI__)
    return (Integers)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(static_cast<int>(a)), (__m512i)b);
#else
    for (int byte = 0; byte < 4; ++byte) {
      sum += static_cast<std::int32_t>(a >> 8 * byte & 0xffu) * ((Integers)(b << (24 - 8 * byte)) >> 24);
    }
    return sum;
#endif
  }

#if defined(__AMX_TILE__)
  // The same of a whole register of sums, by those of A and B that tiles.h names.
  template <int Sums>
  static void add_tile() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(kLeft), "i"(kRight));
  }
#endif
};

// What a block multiplies; see block_narrow.h.
struct Int8Factors {
  static int64_t words_of(int64_t steps) { return (steps + 3) / 4; }
  // After B's words, of every column: the scale, and 128 times the sum.
  static int64_t packed_words(int64_t width, int64_t depth) { return packed_size(width, words_of(depth)) + 2 * packed_size(width, 1); }

  struct Rows {
    std::uint8_t* data;
    float *scales, *parts;
    int64_t count, steps, words;

    std::uint8_t* row(int64_t i) const { return data + 4 * words * i; }
    void round(int64_t i, const float* x, int64_t) const { scales[i] = quantise(x, steps, row(i)); }

    // The same by parts, in any order, and an end.
    void part(int64_t i, const float* x, int64_t first, int64_t size) const { std::copy_n(x, size, parts + i * steps + first); }
    void whole() const {
      for (int64_t i = 0; i < count; ++i) round(i, parts + i * steps, steps);
    }
  };

  // Rows of so many steps in this thread's workspace, their last word filled up; and such as are rounded by parts.
  static Rows rows_in(Use use, int64_t rows, int64_t steps) { return rows_of_size(use, rows, steps, 0); }
  static Rows parts_in(Use use, int64_t rows, int64_t steps) { return rows_of_size(use, rows, steps, rows * steps); }

  // weight (N, K) → its transpose as a packed B, scales and sums.
  static void pack(const float* weight, int64_t width, int64_t depth, float* to) {
    const int64_t words = words_of(depth), columns = packed_size(width, 1);
    const Buffer buffer(width * words, true);
    Scale* scales = to + packed_size(width, words);
    Integer* sums = reinterpret_cast<Integer*>(scales + columns);
    for (int64_t n = 0; n < width; ++n) {
      std::uint8_t* row = reinterpret_cast<std::uint8_t*>(&buffer[n * words]);
      scales[n] = quantise(weight + n * depth, depth, row);
      sums[n] = 0;
      for (int64_t k = 0; k < depth; ++k) {
        const std::int32_t number = row[k] - kMiddle;
        sums[n] += kMiddle * number;
        row[k] = static_cast<std::uint8_t>(number);
      }
    }
    pack_weight(buffer, width, words, to);
  }

  template <class Finish>
  static void multiply(int64_t rows, const Rows& a, const float* b, int64_t width, int64_t depth, const Finish& finish) {
    const Scale* scales = b + packed_size(width, words_of(depth));
    const Integer* shifts = reinterpret_cast<const Integer*>(scales + packed_size(width, 1));
    multiply_words<Int8Step>(rows, reinterpret_cast<const Word*>(a.data), {b, width, words_of(depth)},
                              [&](int64_t row, const std::int32_t* sums, int64_t column, int64_t count) {
                                float values[kNR];
                                const float scale = a.scales[row];
#pragma omp simd
                                for (int64_t j = 0; j < count; ++j) {
                                  values[j] = static_cast<float>(sums[j] - shifts[column + j]) * (scale * scales[column + j]);
                                }
                                finish(row, values, column, count);
                              });
  }

 private:
  static Rows rows_of_size(Use use, int64_t rows, int64_t steps, int64_t parts) {
    const int64_t words = words_of(steps);
    float* data = workspace(use, rows * (words + 1) + parts);
    const Rows all{reinterpret_cast<std::uint8_t*>(data), data + rows * words, data + rows * (words + 1), rows, steps, words};
    for (int64_t i = 0; i < rows; ++i) std::fill_n(all.row(i) + steps, 4 * words - steps, 0);
    return all;
  }
};

}  // namespace xcit
