// XCiT's operations fused for CPUs: float32, forward and backward. This is the list of them.
//
// Every one has the signature of MindSpore's ahead-of-time custom operators: inputs first, then outputs, in `data`;
// row-major, contiguous. Rows are tokens of C channels. Nothing here knows MindSpore otherwise.

#include "arguments.h"
#include "block.h"
#include "branches.h"
#include "class_attention.h"
#include "gelu.h"
#include "norms.h"
#include "patch_embed.h"
#include "products.h"

using namespace xcit;

XCIT_OPERATION(GeluErf, gelu<Erf>(a))
XCIT_OPERATION(GeluErfGrad, gelu_grad<Erf>(a))
XCIT_OPERATION(GeluTanh, gelu<Tanh>(a))
XCIT_OPERATION(GeluTanhGrad, gelu_grad<Tanh>(a))
XCIT_OPERATION(LayerNorm, layer_norm(a))
XCIT_OPERATION(LayerNormGrad, layer_norm_grad(a))
XCIT_OPERATION(Linear, linear(a))
XCIT_OPERATION(LinearGrad, linear_grad(a))
XCIT_OPERATION(PackedLinear, packed_linear(a))

// Each in evaluation; in evaluation with what fuse() prepared; in training by the batch's or the running statistics.
#define XCIT_STAGE(name, form, image, last)                                                     \
  XCIT_OPERATION(Stage##name, Stage<form>(a, image, last).evaluate())                           \
  XCIT_OPERATION(FusedStage##name, fused_stage<form>(a, image, last))                           \
  XCIT_OPERATION(StageMoving##name, Stage<form>(a, image, last).train(true))                    \
  XCIT_OPERATION(StageMoving##name##Grad, Stage<form>(a, image, last).backward(true))           \
  XCIT_OPERATION(StageFrozen##name, Stage<form>(a, image, last).train(false))                   \
  XCIT_OPERATION(StageFrozen##name##Grad, Stage<form>(a, image, last).backward(false))

XCIT_STAGE(ImageErf, Erf, true, false)
XCIT_STAGE(ImageTanh, Tanh, true, false)
XCIT_STAGE(Erf, Erf, false, false)
XCIT_STAGE(Tanh, Tanh, false, false)
XCIT_STAGE(Last, Erf, false, true)

#define XCIT_BLOCKS(name, form, normalised)                                                                          \
  XCIT_OPERATION_WITH_INTEGERS(Blocks##name, Layers::kSides, blocks<form>(a, normalised))                            \
  XCIT_OPERATION_WITH_INTEGERS(FusedBlocks##name, kWhere, fused_blocks<form>(a, normalised))                         \
  XCIT_OPERATION_WITH_INTEGERS(BlocksMoving##name, Layers::kSides, trained_blocks<form>(a, normalised, true))        \
  XCIT_OPERATION_WITH_INTEGERS(BlocksMoving##name##Grad, Layers::kSides, trained_blocks_grad<form>(a, normalised, true)) \
  XCIT_OPERATION_WITH_INTEGERS(BlocksFrozen##name, Layers::kSides, trained_blocks<form>(a, normalised, false))       \
  XCIT_OPERATION_WITH_INTEGERS(BlocksFrozen##name##Grad, Layers::kSides, trained_blocks_grad<form>(a, normalised, false))

XCIT_BLOCKS(Erf, Erf, true)
XCIT_BLOCKS(ErfRaw, Erf, false)
XCIT_BLOCKS(Tanh, Tanh, true)
XCIT_BLOCKS(TanhRaw, Tanh, false)

XCIT_OPERATION(ClassBlockErf, class_block<Erf>(a, true, true))
XCIT_OPERATION(ClassBlockErfRaw, class_block<Erf>(a, true, false))
XCIT_OPERATION(ClassBlockErfLast, class_block<Erf>(a, false, false))
XCIT_OPERATION(ClassBlockTanh, class_block<Tanh>(a, true, true))
XCIT_OPERATION(ClassBlockTanhRaw, class_block<Tanh>(a, true, false))
XCIT_OPERATION(ClassBlockTanhLast, class_block<Tanh>(a, false, false))

// No operation but a plain function: weight (N, K) → its transpose as products read it, over zeros, since panels may be
// narrower here than the result allows for.
extern "C" __attribute__((visibility("default"))) void PackWeight(const float* weight, int64_t width, int64_t depth, float* packed) {
  pack_right({weight, 1, depth}, width, depth, packed);
}
