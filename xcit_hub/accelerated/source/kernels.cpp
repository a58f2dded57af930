// XCiT's operations for CPUs: float32, forward and backward. This is the list of them.
//
// Every one has the signature of MindSpore's ahead-of-time custom operators: inputs first, then outputs, in `data`, in the
// order of operands.py; row-major, contiguous. Rows are tokens of C channels. Nothing here knows MindSpore otherwise.

#include "arguments.h"
#include "block.h"
#include "block_training.h"
#include "class_attention.h"
#include "class_gather.h"
#include "gelu.h"
#include "linear.h"
#include "norms.h"
#include "operands.h"
#include "patch_embed.h"
#include "sums.h"

using namespace xcit;

static_assert(kPanel % kNR == 0, "packed weights have room for whole panels");

XCIT_OPERATION(GeluErf, gelu<Erf>(a))
XCIT_OPERATION(GeluErfGrad, gelu_grad<Erf>(a))
XCIT_OPERATION(GeluTanh, gelu<Tanh>(a))
XCIT_OPERATION(GeluTanhGrad, gelu_grad<Tanh>(a))
XCIT_OPERATION(LayerNorm, layer_norm(a))
XCIT_OPERATION(LayerNormGrad, layer_norm_grad(a))
XCIT_OPERATION(Linear, linear(a))
XCIT_OPERATION(LinearGrad, linear_grad(a))
XCIT_OPERATION(PackedLinear, packed_linear(a))
XCIT_OPERATION(SquaredSum, squared_sum(a))

XCIT_OPERATION_WITH_INTEGERS(ClassAttention, operands::ClassAttention::kHeads, class_attention(a))
XCIT_OPERATION_WITH_INTEGERS(ClassAttentionGrad, operands::ClassAttentionGrad::kHeads, class_attention_grad(a))

XCIT_OPERATION_WITH_INTEGERS(FusedStemErf, operands::FusedStem::kWidths, FusedStem<Erf>(a).run())
XCIT_OPERATION_WITH_INTEGERS(FusedStemTanh, operands::FusedStem::kWidths, FusedStem<Tanh>(a).run())

// Each in evaluation; in training by the batch's or the running statistics.
#define XCIT_STAGE(name, form, image, last)                                   \
  XCIT_OPERATION(Stage##name, Stage<form>(a, image, last).evaluate())         \
  XCIT_OPERATION(StageMoving##name, Stage<form>(a, image, last).train(true))  \
  XCIT_OPERATION(StageFrozen##name, Stage<form>(a, image, last).train(false))
#define XCIT_FIRST_STAGE(name, form)                                                                       \
  XCIT_STAGE(name, form, true, false)                                                                      \
  XCIT_OPERATION(StageMoving##name##Grad, Stage<form>(a, true, false).backward_to_parameters(true))        \
  XCIT_OPERATION(StageMoving##name##GradOfImage, Stage<form>(a, true, false).backward_to_image(true))      \
  XCIT_OPERATION(StageFrozen##name##Grad, Stage<form>(a, true, false).backward_to_parameters(false))       \
  XCIT_OPERATION(StageFrozen##name##GradOfImage, Stage<form>(a, true, false).backward_to_image(false))
#define XCIT_LATER_STAGE(name, form, last)                                                 \
  XCIT_STAGE(name, form, false, last)                                                      \
  XCIT_OPERATION(StageMoving##name##Grad, Stage<form>(a, false, last).backward(true))      \
  XCIT_OPERATION(StageFrozen##name##Grad, Stage<form>(a, false, last).backward(false))

XCIT_FIRST_STAGE(ImageErf, Erf)
XCIT_FIRST_STAGE(ImageTanh, Tanh)
XCIT_LATER_STAGE(Erf, Erf, false)
XCIT_LATER_STAGE(Tanh, Tanh, false)
XCIT_LATER_STAGE(Last, Erf, true)

#define XCIT_BLOCKS(name, form, normalised)                                                                        \
  XCIT_STACK(Blocks##name, blocks<form>(a, normalised))                                                            \
  XCIT_OPERATION_WITH_INTEGERS(FusedBlocks##name, operands::FusedBlocks::kWhere, fused_blocks<Block<form>>(a, normalised)) \
  XCIT_STACK(BlocksMoving##name, train_blocks<form>(a, normalised, true))                                          \
  XCIT_STACK(BlocksMoving##name##Grad, blocks_grad<form>(a, normalised, true))                                     \
  XCIT_STACK(BlocksFrozen##name, train_blocks<form>(a, normalised, false))                                         \
  XCIT_STACK(BlocksFrozen##name##Grad, blocks_grad<form>(a, normalised, false))
#define XCIT_STACK(name, ...) XCIT_OPERATION_WITH_INTEGERS(name, operands::Blocks::kSides, __VA_ARGS__)

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

// Not an operation but a plain function: weight (N, K) → its transpose as products read it, over zeros, since panels may be
// narrower here than the result allows for.
extern "C" __attribute__((visibility("default"))) void PackWeight(const float* weight, int64_t width, int64_t depth, float* packed) {
  pack_weight(weight, width, depth, packed);
}
