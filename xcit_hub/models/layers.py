"""The parts of XCiT: patch embedding, Fourier position, cross-covariance attention, local patch interaction, class
attention.

Shapes: B images, N = Hp·Wp tokens of C channels, h heads of d = C / h channels. Parameters carry MindCV's names.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr
from numpy.typing import NDArray

from xcit_hub.accelerated.cells import where
from xcit_hub.accelerated.operations import Modes
from xcit_hub.models.kernels import kernels
from xcit_hub.parameters import stem_widths
from xcit_hub.variants import Architecture, Dialect

_LAYER_NORM_EPSILON = 1e-6
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.9  # MindSpore's momentum is 1 − torch's
_FOURIER_FREQUENCIES = 32
_NORMALIZE_EPSILON = 1e-12  # as torch.nn.functional.normalize


def layer_norm(dim: int) -> nn.LayerNorm:
    """Normalise the last axis, epsilon 1e-6 as in the paper's code (MindSpore's default is 1e-7)."""
    return kernels().layer_norm((dim,), epsilon=_LAYER_NORM_EPSILON)


def dense(in_channels: int, out_channels: int) -> nn.Dense:
    """Affine map of the last axis."""
    return kernels().dense(in_channels, out_channels)


def _batch_norm(dim: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(dim, eps=_BATCH_NORM_EPSILON, momentum=_BATCH_NORM_MOMENTUM)


def conv3x3(
    kind: type[nn.Conv2d], in_channels: int, out_channels: int, *, stride: int = 1, group: int = 1, bias: bool
) -> nn.Conv2d:
    """3×3 convolution with one row of zeros around the image."""
    return kind(in_channels, out_channels, 3, stride=stride, pad_mode="pad", padding=1, group=group, has_bias=bias)


class Gelu(nn.Cell):
    """The dialect's activation, by the way that suits the device."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.function = kernels().gelu(form)

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return self.function(x)


class DropPath(nn.Cell):
    """Stochastic depth: in training, zero a whole sample's branch with probability ``rate`` and rescale the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.sample_dropout = nn.Dropout(p=rate)

    def construct(self, count: int) -> Tensor:
        """Draw the factors of ``count`` branches, one a sample, (count) float32."""
        # Dropout of ones is exactly the mask of whole samples.
        return self.sample_dropout(ops.ones((count,), mstype.float32))


def _move(statistic: Parameter, value: Tensor) -> None:
    """Move a running statistic of a batch norm towards the batch's."""
    kept, value = _BATCH_NORM_MOMENTUM, ops.stop_gradient(value).reshape(statistic.shape)
    ops.assign(statistic, statistic * kept + value * (1.0 - kept))


def _by_batch(norm: nn.BatchNorm2d) -> bool:
    """Tell whether a batch norm takes the batch's statistics, as MindSpore's own decides it."""
    return norm.training if norm.use_batch_statistics is None else norm.use_batch_statistics


def _move_both(norm: nn.BatchNorm2d, mean: Tensor, biased_variance: Tensor, count: int) -> None:
    """Move the running statistics towards those of ``count`` numbers a channel."""
    _move(norm.moving_mean, mean)
    _move(norm.moving_variance, biased_variance * (count / max(count - 1, 1)))


class ConvPatchEmbed(nn.Cell):
    """Image to tokens by stride-2 3×3 convolutions, each with BatchNorm (facebook ``ConvPatchEmbed``).

    Where there are compiled stages, each convolution is computed in one piece with what follows it, see
    :class:`XCABlock`.
    """

    positions = False  # whether it adds the position encoding; see xcit_hub.accelerated.fused

    def __init__(self, architecture: Architecture, in_chans: int, gelu: str) -> None:
        super().__init__()
        stages: list[nn.Cell] = []
        channels = in_chans
        for width in stem_widths(architecture):
            if stages:
                stages.append(Gelu(gelu))
            convolution = conv3x3(kernels().convolution, channels, width, stride=2, bias=False)
            stages.append(nn.SequentialCell([convolution, _batch_norm(width)]))
            channels = width
        self.proj = nn.SequentialCell(stages)
        stage = kernels().stage
        self.in_one_piece = stage is not None
        if stage is not None:
            last = len(stages) - 1
            self.stages = [stage(gelu, place == 0, place == last) for place in range(0, len(stages), 2)]
            self.epsilon = Tensor([_BATCH_NORM_EPSILON], mstype.float32)

    def take_apart(self) -> None:
        """Compute cell by cell from now on."""
        self.in_one_piece = False

    def construct(self, image: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to tokens (B, N, C)."""
        if not self.in_one_piece:
            return _tokens(self.proj(image))
        grid = image.astype(mstype.float32)
        for index in range(len(self.stages)):
            grid = self._stage(index, grid)
        return grid.reshape(grid.shape[0], -1, grid.shape[3])

    def _stage(self, index: int, x: Tensor) -> Tensor:
        """Map the image, or (B, H, W, K) after it, to (B, H / 2, W / 2, N)."""
        evaluate, train, train_frozen = self.stages[index]
        convolution, norm = self.proj[2 * index][0], self.proj[2 * index][1]
        operands = (
            *(x, convolution.weight, self.epsilon),
            *(norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance),
        )
        if _by_batch(norm):
            out, _, mean, variance = train(*operands)
            _move_both(norm, mean, variance, out.shape[0] * out.shape[1] * out.shape[2])
            return out
        return train_frozen(*operands)[0] if self.training else evaluate(*operands)


@lru_cache(maxsize=64)
def _fourier_array(height: int, width: int) -> NDArray[np.float32]:
    """Sines and cosines of the 2-D position, (N, 64) float32, in raster order (facebook
    ``PositionalEncodingFourier``).
    """
    exponent = 2.0 * (np.arange(_FOURIER_FREQUENCIES) // 2) / _FOURIER_FREQUENCIES
    period = np.power(np.float32(10000.0), exponent.astype(np.float32))
    axes = []
    for length in (height, width):
        position = np.arange(1, length + 1, dtype=np.float32)
        phase = (position / (position[-1] + np.float32(1e-6)) * np.float32(2.0 * math.pi))[:, None] / period
        waves = np.stack([np.sin(phase[:, 0::2]), np.cos(phase[:, 1::2])], axis=2)
        axes.append(waves.reshape(length, _FOURIER_FREQUENCIES))
    rows = np.broadcast_to(axes[0][:, None], (height, width, _FOURIER_FREQUENCIES))
    columns = np.broadcast_to(axes[1][None, :], (height, width, _FOURIER_FREQUENCIES))
    return np.concatenate([rows, columns], axis=2).reshape(height * width, -1).astype(np.float32)


@lru_cache(maxsize=64)
def _fourier_tensor(height: int, width: int) -> Tensor:
    return Tensor(_fourier_array(height, width))


@constexpr
def fourier_features(height: int, width: int) -> Tensor:
    """Return the position features of a grid, (N, 64) float32: computed once per resolution, a constant in graphs."""
    return _fourier_tensor(height, width)


class FourierPosition(nn.Cell):
    """Positional encoding: fixed Fourier features, projected to the tokens' width by a learned 1×1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        channels = 2 * _FOURIER_FREQUENCIES
        self.token_projection = nn.Conv2d(channels, dim, 1, has_bias=True)
        self.project = ops.MatMul(transpose_b=True)

    def construct(self, height: int, width: int) -> Tensor:
        """Return the encoding of a grid of tokens, (N, C)."""
        weight = self.token_projection.weight
        features = fourier_features(height, width).astype(weight.dtype)
        # A 1×1 convolution of features that no image changes is one matrix product.
        return self.project(features, weight.reshape(weight.shape[0], -1)) + self.token_projection.bias


class Mlp(nn.Cell):
    """Two affine maps with a GELU between them, applied to every token."""

    def __init__(self, dim: int, hidden: int, gelu: str, drop: float) -> None:
        super().__init__()
        self.fc1 = dense(dim, hidden)
        self.act = Gelu(gelu)
        self.fc2 = dense(hidden, dim)
        self.drop = nn.Dropout(p=drop)

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class XCA(nn.Cell):
    """Cross-covariance attention: channels attend to channels, linear in the number of tokens (paper, section 3.2)."""

    def __init__(self, dim: int, num_heads: int, normalize: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.normalize = normalize
        self.temperature = Parameter(initializer("ones", (num_heads, 1, 1), mstype.float32), name="temperature")
        self.qkv = dense(dim, 3 * dim)
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = dense(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.project = ops.MatMul(transpose_b=True)
        self.covariance = ops.BatchMatMul(transpose_b=True)
        self.mix_channels = ops.BatchMatMul()

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        batch, tokens, dim = x.shape
        # Three products and three small transposes: one product's 5-D permutation costs three times as much on CPU.
        query_weight, key_weight, value_weight = ops.split(self.qkv.weight, dim)
        query_bias, key_bias, value_bias = ops.split(self.qkv.bias, dim)
        query = self._heads(x, query_weight, query_bias)
        key = self._heads(x, key_weight, key_bias)
        value = self._heads(x, value_weight, value_bias)
        attention = self.covariance(query, key)  # (B, h, d, d)
        if self.normalize:
            # Dividing the d×d product by both norms is dividing N-long queries and keys, with far fewer divisions.
            key_norm = _l2_norm(key).reshape(batch, self.num_heads, 1, -1)
            attention = attention / (_l2_norm(query) * key_norm)
        attention = self.attn_drop(ops.softmax(attention * self.temperature, -1))
        mixed = self.mix_channels(attention, value).reshape(batch, dim, tokens).transpose(0, 2, 1)
        return self.proj_drop(self.proj(mixed))

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Project tokens (B, N, C) and lay them out by head, (B, h, d, N)."""
        batch, tokens, dim = x.shape
        projected = self.project(x.reshape(-1, dim), weight) + bias
        projected = projected.reshape(batch, tokens, dim).transpose(0, 2, 1)
        return projected.reshape(batch, self.num_heads, -1, tokens)


def _l2_norm(x: Tensor) -> Tensor:
    """L2 norm over the last axis, kept, and bounded below as torch's ``normalize`` does."""
    return ops.maximum(ops.sqrt((x * x).sum(-1, keepdims=True)), _NORMALIZE_EPSILON)


class LPI(nn.Cell):
    """Local patch interaction: two depth-wise 3×3 convolutions over the token grid (paper, section 3.3)."""

    def __init__(self, dim: int, gelu: str) -> None:
        super().__init__()
        convolution = kernels().convolution
        self.conv1 = conv3x3(convolution, dim, dim, group=dim, bias=True)
        self.act = Gelu(gelu)
        self.bn = _batch_norm(dim)
        self.conv2 = conv3x3(convolution, dim, dim, group=dim, bias=True)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C); N = height · width in raster order."""
        grid = x.transpose(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)
        return _tokens(self.conv2(self.bn(self.act(self.conv1(grid)))))


def _tokens(grid: Tensor) -> Tensor:
    """(B, C, H, W) to (B, N, C)."""
    return grid.reshape(grid.shape[0], grid.shape[1], -1).transpose(0, 2, 1)


def _layer_scale(dim: int, eta: float, name: str) -> Parameter:
    return Parameter(initializer(eta, (dim,), mstype.float32), name=name)


class XCABlock(nn.Cell):
    """Cross-covariance attention, then local patch interaction, then the MLP, each a scaled residual branch.

    Where there are compiled blocks, it is computed in one piece: the cells that hold its parameters are not called.
    Call :meth:`take_apart` before hooking into such a cell or replacing it.
    """

    layers = 1  # how many blocks the parameters are of; see xcit_hub.accelerated.stacked

    def __init__(
        self,
        architecture: Architecture,
        dialect: Dialect,
        *,
        proj_drop: float,
        attn_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.norm1 = layer_norm(dim)
        self.attn = XCA(dim, architecture.num_heads, dialect.normalize_qk, attn_drop, proj_drop)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, dim * architecture.mlp_ratio, dialect.gelu, proj_drop)
        self.norm3 = layer_norm(dim)
        self.local_mp = LPI(dim, dialect.gelu)
        self.drop_path = DropPath(drop_path)
        self.drops_path = drop_path > 0.0
        self.gamma1 = _layer_scale(dim, architecture.eta, "gamma1")
        self.gamma2 = _layer_scale(dim, architecture.eta, "gamma2")
        self.gamma3 = _layer_scale(dim, architecture.eta, "gamma3")
        blocks = kernels().blocks
        self.in_one_piece = False
        # A block in one piece has no place to drop anything inside.
        if blocks is not None and proj_drop == attn_drop == 0.0:
            self._join(blocks(dialect.gelu, dialect.normalize_qk))

    def _join(self, blocks: Modes) -> None:
        self.in_one_piece = True
        self.evaluate, self.train, self.train_frozen = blocks
        self.all_kept = Tensor([1.0], mstype.float32)
        self.epsilons = Tensor([_LAYER_NORM_EPSILON, _BATCH_NORM_EPSILON], mstype.float32)

    def take_apart(self) -> None:
        """Compute step by step, cell by cell, from now on; other precisions than float32 need it."""
        self.in_one_piece = False

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        if self.in_one_piece:
            return self._at_once(x, height, width)
        kept = self.drop_path(3 * x.shape[0]) if self._drops() else None
        x = x + self.gamma1 * self._keep(kept, 0, self.attn(self.norm1(x)))
        # The order is the official code's: LPI (3) before the MLP (2), whatever the numbers suggest.
        x = x + self.gamma3 * self._keep(kept, 1, self.local_mp(self.norm3(x), height, width))
        return x + self.gamma2 * self._keep(kept, 2, self.mlp(self.norm2(x)))

    def _drops(self) -> bool:
        return self.drops_path and self.training

    def _keep(self, kept: Tensor | None, which: int, branch: Tensor) -> Tensor:
        """Multiply each sample of the branch (B, N, C) by its factor of ``kept`` (3 · B)."""
        if kept is None:
            return branch
        count = branch.shape[0]
        return branch * kept[which * count : (which + 1) * count].reshape(-1, 1, 1).astype(branch.dtype)

    def _at_once(self, x: Tensor, height: int, width: int) -> Tensor:
        kept = self.drop_path(3 * self.layers * x.shape[0]) if self._drops() else self.all_kept
        attn, conv1, bn, conv2, mlp = self.attn, self.local_mp.conv1, self.local_mp.bn, self.local_mp.conv2, self.mlp
        operands = (
            *(x, kept, where(height, width, x.shape[1]), self.epsilons),
            *(self.norm1.gamma, self.norm1.beta, attn.qkv.weight, attn.qkv.bias, attn.temperature),
            *(attn.proj.weight, attn.proj.bias, self.gamma1),
            *(self.norm3.gamma, self.norm3.beta, conv1.weight, conv1.bias, bn.gamma, bn.beta),
            *(conv2.weight, conv2.bias, self.gamma3),
            *(
                self.norm2.gamma,
                self.norm2.beta,
                mlp.fc1.weight,
                mlp.fc1.bias,
                mlp.fc2.weight,
                mlp.fc2.bias,
                self.gamma2,
            ),
            *(bn.moving_mean, bn.moving_variance),
        )
        if _by_batch(bn):
            out, _, mean, variance = self.train(*operands)
            _move_both(bn, mean, variance, x.shape[0] * x.shape[1])
            return out
        return self.train_frozen(*operands)[0] if self.training else self.evaluate(*operands)


class ClassAttention(nn.Cell):
    """The class token gathers from all tokens (CaiT, arXiv:2103.17239, section 3).

    Only one query exists, so neither keys nor values are formed for N tokens: the query is taken back through the key
    matrix, and the value matrix is applied to the one weighted mean. The key bias shifts every score alike and softmax
    does not see it.
    """

    def __init__(self, dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = dense(dim, 3 * dim)
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = dense(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.project = ops.MatMul(transpose_b=True)
        self.per_head = ops.BatchMatMul()
        self.per_head_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map all tokens, class token first, (B, 1 + N, C), to the new class token (B, 1, C)."""
        batch, _, dim = x.shape
        heads, head_dim = self.num_heads, dim // self.num_heads
        query_weight, key_weight, value_weight = ops.split(self.qkv.weight, dim)
        query_bias, _, value_bias = ops.split(self.qkv.bias, dim)
        query = (self.project(x[:, 0], query_weight) + query_bias) * self.scale
        query = query.reshape(batch, heads, head_dim).transpose(1, 0, 2)
        probe = self.per_head(query, key_weight.reshape(heads, head_dim, dim)).transpose(1, 0, 2)  # (B, h, C)
        attention = self.attn_drop(ops.softmax(self.per_head_transposed(probe, x), -1))  # (B, h, 1 + N)
        mean = self.per_head(attention, x).transpose(1, 0, 2)  # (h, B, C)
        value = self.per_head_transposed(mean, value_weight.reshape(heads, head_dim, dim)).transpose(1, 0, 2)
        # Dropout may leave the weights summing to something else than one.
        value = value + attention.sum(-1, keepdims=True) * value_bias.reshape(heads, head_dim)
        return self.proj_drop(self.proj(value.reshape(batch, 1, dim)))


class ClassAttentionBlock(nn.Cell):
    """Class attention and an MLP on the class token; patch tokens only pass the norms."""

    def __init__(self, architecture: Architecture, dialect: Dialect, *, proj_drop: float, attn_drop: float) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.tokens_norm = architecture.tokens_norm
        self.norm1 = layer_norm(dim)
        self.attn = ClassAttention(dim, architecture.num_heads, attn_drop, proj_drop)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, dim * architecture.mlp_ratio, dialect.gelu, proj_drop)
        self.gamma1 = _layer_scale(dim, architecture.eta, "gamma1")
        self.gamma2 = _layer_scale(dim, architecture.eta, "gamma2")

    def construct(self, cls_token: Tensor, tokens: Tensor, tokens_wanted: bool) -> tuple[Tensor, Tensor]:
        """Map a class token (B, 1, C), or (1, 1, C) for all images, and patch tokens (B, N, C) to new ones.

        Where nobody reads the patch tokens afterwards, ``tokens_wanted=False`` returns them as they came.
        """
        if cls_token.shape[0] != tokens.shape[0]:
            cls_token = ops.broadcast_to(cls_token, (tokens.shape[0], *cls_token.shape[1:]))
        cls_normed = self.norm1(cls_token)
        tokens_normed = self.norm1(tokens)
        gathered = self.attn(ops.concat((cls_normed, tokens_normed), axis=1))
        cls_token = self.norm2(cls_token + self.gamma1 * gathered)
        cls_token = cls_token + self.gamma2 * self.mlp(cls_token)
        if tokens_wanted:
            tokens = tokens + self.gamma1 * tokens_normed
            if self.tokens_norm:
                tokens = self.norm2(tokens)
            # The official block adds the patch tokens to themselves; published weights rely on it.
            tokens = tokens + tokens
        return cls_token, tokens
