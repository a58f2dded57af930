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
XCIT_OPERATION(DownsampleImageErf, downsample<Erf>(a, true, false))
XCIT_OPERATION(DownsampleImageTanh, downsample<Tanh>(a, true, false))
XCIT_OPERATION(DownsampleErf, downsample<Erf>(a, false, false))
XCIT_OPERATION(DownsampleTanh, downsample<Tanh>(a, false, false))
XCIT_OPERATION(DownsampleLast, downsample<Erf>(a, false, true))
XCIT_OPERATION(PackWeight, pack_weight(a))
XCIT_OPERATION(BlocksErf, blocks<Erf>(a, true))
XCIT_OPERATION(FusedBlocksErf, fused_blocks<Erf>(a, true))
XCIT_OPERATION(BlocksMovingErf, trained_blocks<Erf>(a, true, true))
XCIT_OPERATION(BlocksMovingErfGrad, trained_blocks_grad<Erf>(a, true, true))
XCIT_OPERATION(BlocksFrozenErf, trained_blocks<Erf>(a, true, false))
XCIT_OPERATION(BlocksFrozenErfGrad, trained_blocks_grad<Erf>(a, true, false))
XCIT_OPERATION(BlocksErfRaw, blocks<Erf>(a, false))
XCIT_OPERATION(FusedBlocksErfRaw, fused_blocks<Erf>(a, false))
XCIT_OPERATION(BlocksMovingErfRaw, trained_blocks<Erf>(a, false, true))
XCIT_OPERATION(BlocksMovingErfRawGrad, trained_blocks_grad<Erf>(a, false, true))
XCIT_OPERATION(BlocksFrozenErfRaw, trained_blocks<Erf>(a, false, false))
XCIT_OPERATION(BlocksFrozenErfRawGrad, trained_blocks_grad<Erf>(a, false, false))
XCIT_OPERATION(BlocksTanh, blocks<Tanh>(a, true))
XCIT_OPERATION(FusedBlocksTanh, fused_blocks<Tanh>(a, true))
XCIT_OPERATION(BlocksMovingTanh, trained_blocks<Tanh>(a, true, true))
XCIT_OPERATION(BlocksMovingTanhGrad, trained_blocks_grad<Tanh>(a, true, true))
XCIT_OPERATION(BlocksFrozenTanh, trained_blocks<Tanh>(a, true, false))
XCIT_OPERATION(BlocksFrozenTanhGrad, trained_blocks_grad<Tanh>(a, true, false))
XCIT_OPERATION(BlocksTanhRaw, blocks<Tanh>(a, false))
XCIT_OPERATION(FusedBlocksTanhRaw, fused_blocks<Tanh>(a, false))
XCIT_OPERATION(BlocksMovingTanhRaw, trained_blocks<Tanh>(a, false, true))
XCIT_OPERATION(BlocksMovingTanhRawGrad, trained_blocks_grad<Tanh>(a, false, true))
XCIT_OPERATION(BlocksFrozenTanhRaw, trained_blocks<Tanh>(a, false, false))
XCIT_OPERATION(BlocksFrozenTanhRawGrad, trained_blocks_grad<Tanh>(a, false, false))
XCIT_OPERATION(ClassBlockErf, class_block<Erf>(a, true, true))
XCIT_OPERATION(ClassBlockErfRaw, class_block<Erf>(a, true, false))
XCIT_OPERATION(ClassBlockErfLast, class_block<Erf>(a, false, false))
XCIT_OPERATION(ClassBlockTanh, class_block<Tanh>(a, true, true))
XCIT_OPERATION(ClassBlockTanhRaw, class_block<Tanh>(a, true, false))
XCIT_OPERATION(ClassBlockTanhLast, class_block<Tanh>(a, false, false))
