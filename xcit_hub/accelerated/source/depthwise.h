// Depth-wise 3×3 convolution of a grid (B, H, W, C).

#pragma once

#include <algorithm>
#include <cstdint>

#include "memory.h"
#include "threads.h"

namespace xcit {

struct Grid {
  int64_t height, width, channels;
};

// (C, 1, 3, 3) to (9, C): channels are what is contiguous in tokens.
inline void taps_first(const float* weight, int64_t channels, float* taps) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < 9; ++tap) taps[tap * channels + c] = weight[c * 9 + tap];
  }
}

// Call visit(tap, neighbour) for the taps of the window around (y, x) that lie inside the grid.
template <class Visit>
inline void window(const Grid& g, int64_t y, int64_t x, const Visit& visit) {
  for (int64_t down = -1; down <= 1; ++down) {
    if (y + down < 0 || y + down >= g.height) continue;
    for (int64_t right = -1; right <= 1; ++right) {
      if (x + right < 0 || x + right >= g.width) continue;
      visit((down + 1) * 3 + right + 1, (y + down) * g.width + x + right);
    }
  }
}

// One row of the grid: out(token) = bias + Σ taps · neighbours; flipped turns the window by half a turn.
inline void convolve_row(const Grid& g, int64_t y, const float* image, const float* taps, const float* bias, bool flipped,
                  float* out) {
  const int64_t channels = g.channels;
  for (int64_t x = 0; x < g.width; ++x) {
    float* to = out + x * channels;
    if (bias) {
      std::copy_n(bias, channels, to);
    } else {
      std::fill_n(to, channels, 0.0f);
    }
    if (y > 0 && y + 1 < g.height && x > 0 && x + 1 < g.width) {
      const float* from = image + ((y - 1) * g.width + x - 1) * channels;
      const int64_t line = g.width * channels;
      const int64_t turn = flipped ? -channels : channels;
      const float* tap = flipped ? taps + 8 * channels : taps;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        float sum = to[c];
        for (int64_t down = 0; down < 3; ++down) {
          for (int64_t right = 0; right < 3; ++right) {
            sum += from[down * line + right * channels + c] * tap[(down * 3 + right) * turn + c];
          }
        }
        to[c] = sum;
      }
    } else {
      window(g, y, x, [=](int64_t tap, int64_t token) {
        const float *from = image + token * channels, *weight = taps + (flipped ? 8 - tap : tap) * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] += from[c] * weight[c];
      });
    }
  }
}

inline void convolve(const Grid& g, int64_t images, const float* x, const float* weight, const float* bias, bool flipped,
              float* y) {
  const Buffer packed(9 * g.channels);
  taps_first(weight, g.channels, packed);
  const float* taps = packed;
  split_rows(images * g.height, g.width * g.channels, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* image = x + row / g.height * g.height * g.width * g.channels;
      convolve_row(g, row % g.height, image, taps, bias, flipped, y + row * g.width * g.channels);
    }
  });
}

// dy → d weight (C, 1, 3, 3), d bias (C)
inline void convolve_grad(const Grid& g, int64_t images, const float* x, const float* dy, float* dweight, float* dbias) {
  const int64_t channels = g.channels;
  const Buffer sums(10 * channels);
  sum_rows(images * g.height, 10 * channels, sums, [&](int64_t first, int64_t last, float* sum) {
    for (int64_t row = first; row < last; ++row) {
      const float* image = x + row / g.height * g.height * g.width * channels;
      for (int64_t column = 0; column < g.width; ++column) {
        const float* up = dy + (row * g.width + column) * channels;
        float* bias = sum + 9 * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) bias[c] += up[c];
        window(g, row % g.height, column, [=](int64_t tap, int64_t token) {
          const float* from = image + token * channels;
          float* to = sum + tap * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) to[c] += up[c] * from[c];
        });
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < 9; ++tap) dweight[c * 9 + tap] = sums[tap * channels + c];
    dbias[c] = sums[9 * channels + c];
  }
}

}  // namespace xcit
