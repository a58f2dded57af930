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
XCIT_OPERATION(BlockErf, block<Erf>(a, true))
XCIT_OPERATION(BlockErfRaw, block<Erf>(a, false))
XCIT_OPERATION(BlockTanh, block<Tanh>(a, true))
XCIT_OPERATION(BlockTanhRaw, block<Tanh>(a, false))
XCIT_OPERATION(ClassBlockErf, class_block<Erf>(a, true, true))
XCIT_OPERATION(ClassBlockErfRaw, class_block<Erf>(a, true, false))
XCIT_OPERATION(ClassBlockErfLast, class_block<Erf>(a, false, false))
XCIT_OPERATION(ClassBlockTanh, class_block<Tanh>(a, true, true))
XCIT_OPERATION(ClassBlockTanhRaw, class_block<Tanh>(a, true, false))
XCIT_OPERATION(ClassBlockTanhLast, class_block<Tanh>(a, false, false))
XCIT_OPERATION(AttentionBranch, attention_branch(a, true))
XCIT_OPERATION(AttentionBranchGrad, attention_branch_grad(a, true))
XCIT_OPERATION(AttentionBranchRaw, attention_branch(a, false))
XCIT_OPERATION(AttentionBranchRawGrad, attention_branch_grad(a, false))
XCIT_OPERATION(LocalBranchErf, local_branch<Erf>(a, false))
XCIT_OPERATION(LocalBranchErfGrad, local_branch_grad<Erf>(a, false))
XCIT_OPERATION(LocalBranchTanh, local_branch<Tanh>(a, false))
XCIT_OPERATION(LocalBranchTanhGrad, local_branch_grad<Tanh>(a, false))
XCIT_OPERATION(LocalBranchMovingErf, local_branch<Erf>(a, true))
XCIT_OPERATION(LocalBranchMovingErfGrad, local_branch_grad<Erf>(a, true))
XCIT_OPERATION(LocalBranchMovingTanh, local_branch<Tanh>(a, true))
XCIT_OPERATION(LocalBranchMovingTanhGrad, local_branch_grad<Tanh>(a, true))
XCIT_OPERATION(MlpBranchErf, mlp_branch<Erf>(a))
XCIT_OPERATION(MlpBranchErfGrad, mlp_branch_grad<Erf>(a))
XCIT_OPERATION(MlpBranchTanh, mlp_branch<Tanh>(a))
XCIT_OPERATION(MlpBranchTanhGrad, mlp_branch_grad<Tanh>(a))
