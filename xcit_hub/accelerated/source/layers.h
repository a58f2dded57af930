// A stack of equal cross-covariance blocks as operands of an operation.

#pragma once

#include <cstdint>

#include "arguments.h"
#include "depthwise.h"

namespace xcit {

// The grid's sides, and of some operations the layers that are wanted.
inline const std::int32_t* integers(const Arguments& a, int index) { return static_cast<std::int32_t*>(a.data[index]); }

// Sizes, and each layer's share of every parameter: those of several layers have the layers as their first axis.
struct Layers {
  // In the order of operations.blocks in Python.
  enum Operand {
    kX, kKeep, kSides, kEpsilons,
    kNorm1Gamma, kNorm1Beta, kQkv, kQkvBias, kTemperature, kProj, kProjBias, kScale1,
    kNorm3Gamma, kNorm3Beta, kConv1, kConv1Bias, kBatchGamma, kBatchBeta, kConv2, kConv2Bias, kScale3,
    kNorm2Gamma, kNorm2Beta, kFc1, kFc1Bias, kFc2, kFc2Bias, kScale2,
    kMean, kVariance, kOperands,
    kFirstTrained = kNorm1Gamma
  };

  const Arguments& a;
  const bool normalised;  // queries and keys
  const int64_t images, tokens, channels, rows, depth, hidden, heads;
  const Grid grid;
  const float epsilon, batch_epsilon;

  Layers(const Arguments& a, bool normalised)
      : a(a),
        normalised(normalised),
        images(a.dim(kX, 0)),
        tokens(a.dim(kX, 1)),
        channels(a.dim(kX, 2)),
        rows(images * tokens),
        depth(a.size(kScale1) / channels),
        hidden(a.size(kFc1Bias) / depth),
        heads(a.size(kTemperature) / depth),
        grid{integers(a, kSides)[0], integers(a, kSides)[1], channels},
        epsilon(a.floats(kEpsilons)[0]),
        batch_epsilon(a.floats(kEpsilons)[1]) {}

  int64_t size(int operand) const { return a.size(operand) / depth; }
  const float* parameter(int operand, int64_t layer) const { return a.floats(operand) + layer * size(operand); }
};

}  // namespace xcit
