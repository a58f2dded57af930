// Cross-covariance blocks in evaluation whose affine maps multiply narrow numbers; all else is float32, as in block.h.
//
// Rounded are the four weights of a block, once, and what they multiply: both layer norms' results, the attended values and
// the MLP's hidden numbers. Factors say how: Bfloat16Factors, Int8Factors.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "attention.h"
#include "block.h"
#include "gelu.h"
#include "gemm.h"
#include "memory.h"
#include "narrow.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// The operands that are int32: where, and the words of packed weights.
constexpr int kWordsOfFusedBlocks[] = {operands::FusedBlocks::kWhere, operands::FusedBlocks::kQkv, operands::FusedBlocks::kProj,
                                       operands::FusedBlocks::kFc1, operands::FusedBlocks::kFc2};

template <int Integers>
bool readable(int count, const char** types, const int (&integers)[Integers]) {
  for (int index = 0; index < count; ++index) {
    const bool whole = std::find(integers, integers + Integers, index) != integers + Integers;
    if (std::strcmp(types[index], whole ? "int32" : "float32") != 0) return false;
  }
  return true;
}

// A layer's branches for some images; what the MLP and the attention compute on the way is not kept.
template <class Form, class Factors>
struct NarrowBlock : Block<Form> {
  using Rows = typename Factors::Rows;

  void attention(const Places& p) const { this->attend(*this, p); }

  // x (rows, C) → qkv (rows, 3·C)
  void project(int64_t rows, const float* x, float* qkv) const {
    const auto& w = this->w;
    const int64_t channels = this->s.channels, width = 3 * channels;
    split_bands(rows, [&](int64_t top, int64_t bottom) {
      const Rows normed = normalised(top, bottom, x, w.norm1_gamma, w.norm1_beta);
      Factors::multiply(bottom - top, normed, w.qkv, width, channels, by(add_bias(w.qkv_bias, qkv, width), top));
    });
  }

  // x, values (rows, C), maps of every image → after_attention
  void mix(const Places& p, const Matrix& values, const float* maps) const {
    const auto &s = this->s, &w = this->w;
    const int64_t channels = s.channels, tokens = s.tokens, map = s.heads.heads * s.heads.dim() * s.heads.dim();
    split_bands(this->rows(), [&](int64_t top, int64_t bottom) {
      const Rows attended = Factors::rows_in(Use::kBandIn, bottom - top, channels);
      float* mixed = workspace(Use::kBandOut, (bottom - top) * channels);
      for (int64_t row = top, next; row < bottom; row = next) {  // a band may begin in one image and end in another
        next = std::min(bottom, (row / tokens + 1) * tokens);
        mix_values(s.heads, next - row, values.at(row, 0), maps + row / tokens * map, mixed + (row - top) * channels);
      }
      for (int64_t row = 0; row < bottom - top; ++row) attended.round(row, mixed + row * channels, channels);
      Factors::multiply(bottom - top, attended, w.proj, channels, channels,
                        by(this->onto(0, w.proj_bias, w.gamma1, p.x, p.after_attention), top));
    });
  }

  // after_local → out
  void mlp(const Places& p) const {
    const auto &s = this->s, &w = this->w;
    const int64_t channels = s.channels, hidden = s.hidden;
    const float* bias = w.fc1_bias;
    split_bands(this->rows(), [&](int64_t top, int64_t bottom) {
      const Rows normed = normalised(top, bottom, p.after_local, w.norm2_gamma, w.norm2_beta);
      const Rows active = Factors::parts_in(Use::kActive, bottom - top, hidden);
      Factors::multiply(bottom - top, normed, w.fc1, hidden, channels, [=](int64_t row, const float* sums, int64_t column, int64_t count) {
        float values[kNR];
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) values[j] = Form::value(sums[j] + bias[column + j]);
        active.part(row, values, column, count);
      });
      active.whole();
      Factors::multiply(bottom - top, active, w.fc2, channels, hidden,
                        by(this->onto(2, w.fc2_bias, w.gamma2, p.after_local, p.out), top));
    });
  }

 private:
  // The layer norm of the rows [top, bottom) of x, rounded.
  Rows normalised(int64_t top, int64_t bottom, const float* x, const float* gamma, const float* beta) const {
    const int64_t channels = this->s.channels;
    const Rows to = Factors::rows_in(Use::kBandIn, bottom - top, channels);
    float* row = workspace(Use::kNormed, channels);
    for (int64_t which = top; which < bottom; ++which) {
      this->normalise_rows(which, which + 1, x, gamma, beta, row);
      to.round(which - top, row, channels);
    }
    return to;
  }
};

}  // namespace xcit

// Every operation of one kind of factors, and the plain function that packs a weight for them, over zeros, as PackWeight does.
#define XCIT_NARROW_OPERATIONS(kind)                                                                          \
  static_assert(xcit::kPanel % xcit::kNR == 0, "packed weights have room for whole panels");                    \
  XCIT_NARROW_BLOCKS(Erf, kind, xcit::Erf, true)                                                              \
  XCIT_NARROW_BLOCKS(ErfRaw, kind, xcit::Erf, false)                                                          \
  XCIT_NARROW_BLOCKS(Tanh, kind, xcit::Tanh, true)                                                            \
  XCIT_NARROW_BLOCKS(TanhRaw, kind, xcit::Tanh, false)                                                        \
  extern "C" __attribute__((visibility("default")))                                                           \
  void PackWeight##kind(const float* weight, std::int64_t width, std::int64_t depth, float* packed) {         \
    xcit::kind##Factors::pack(weight, width, depth, packed);                                                  \
  }
#define XCIT_NARROW_BLOCKS(name, kind, form, normalised)                                                      \
  XCIT_OPERATION_WITH_INTEGERS(FusedBlocks##name##kind, xcit::kWordsOfFusedBlocks,                            \
                               xcit::fused_blocks<xcit::NarrowBlock<form, xcit::kind##Factors>>(a, normalised))
