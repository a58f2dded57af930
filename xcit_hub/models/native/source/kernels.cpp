// XCiT's operations fused for CPUs: float32, forward and backward. This is the list of them.
//
// Every one has the signature of MindSpore's ahead-of-time custom operators: inputs first, then outputs, in `data`;
// row-major, contiguous. Rows are tokens of C channels. Nothing here knows MindSpore otherwise.

#include "arguments.h"
#include "attention.h"
#include "block.h"
#include "class_attention.h"
#include "depthwise.h"
#include "gelu.h"
#include "norms.h"
#include "patch_embed.h"
#include "products.h"
#include "residual.h"

using namespace xcit;

XCIT_OPERATION(GeluErf, gelu<Erf>(a))
XCIT_OPERATION(GeluErfGrad, gelu_grad<Erf>(a))
XCIT_OPERATION(GeluTanh, gelu<Tanh>(a))
XCIT_OPERATION(GeluTanhGrad, gelu_grad<Tanh>(a))
XCIT_OPERATION(LayerNorm, layer_norm(a))
XCIT_OPERATION(LayerNormGrad, layer_norm_grad(a))
XCIT_OPERATION(ScaledSum, scaled_sum(a))
XCIT_OPERATION(ScaledSumGrad, scaled_sum_grad(a))
XCIT_OPERATION(BatchNorm, batch_norm(a))
XCIT_OPERATION(BatchNormGrad, batch_norm_grad(a))
XCIT_OPERATION(Depthwise, depthwise(a))
XCIT_OPERATION(DepthwiseGrad, depthwise_grad(a))
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
XCIT_OPERATION(CrossCovariance, cross_covariance(a, true))
XCIT_OPERATION(CrossCovarianceGrad, cross_covariance_grad(a, true))
XCIT_OPERATION(CrossCovarianceRaw, cross_covariance(a, false))
XCIT_OPERATION(CrossCovarianceRawGrad, cross_covariance_grad(a, false))