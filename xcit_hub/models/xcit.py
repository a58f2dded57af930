"""XCiT: Cross-Covariance Image Transformers (El-Nouby et al., NeurIPS 2021, arXiv:2106.09681), in MindSpore.

The whole network, by MindSpore's own operations; the same code runs in graph mode and in PyNative, on every device. It
computes what facebookresearch/xcit ``xcit.py`` and timm ``models/xcit.py`` compute, and the dialect says where MindCV's
differs. Parameters carry MindCV's names, so that its checkpoints load strictly; the interface follows timm's ``Xcit``.

Shapes: B images, N = Hp·Wp tokens of C channels, h heads of d = C / h channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr
from numpy.typing import NDArray

from xcit_hub.checkpoints import dtypes
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import InputError
from xcit_hub.models.functions import device_target, functions, settle_threads
from xcit_hub.models.initialization import initialize
from xcit_hub.models.private import compiled_once, forget_recomputation
from xcit_hub.parameters import BATCH_NORM_EPSILON, FOURIER_CHANNELS, LAYER_NORM_EPSILON, stem_widths
from xcit_hub.variants import Architecture, Dialect, GlobalPool

Indices = int | Sequence[int] | None

_BATCH_NORM_MOMENTUM = 0.9  # MindSpore's momentum is 1 − torch's
_NORMALIZE_EPSILON = 1e-12  # as torch.nn.functional.normalize
_TEMPERATURE = 10000.0  # of the positional encoding
_FLOATING = (mstype.float32, mstype.float16, mstype.bfloat16, mstype.float64)
_DTYPES = {mstype.float32: "float32", mstype.float16: "float16", mstype.bfloat16: "bfloat16"}
_GLOBAL_POOLS = ("token", "avg", "")


class Gelu(nn.Cell):
    """Gaussian error linear unit, ``erf`` or ``tanh`` form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        way = functions().gelu[form]
        self.function = way() if isinstance(way, type) else way

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return self.function(x)


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm((dim,), epsilon=LAYER_NORM_EPSILON)


def batch_norm(dim: int, dialect: Dialect) -> nn.BatchNorm2d:
    """Batch norm of PyTorch's epsilon and momentum, by the statistics that the dialect says."""
    always = True if dialect.statistics == "batch" else None  # None: in training only
    return nn.BatchNorm2d(dim, BATCH_NORM_EPSILON, _BATCH_NORM_MOMENTUM, use_batch_statistics=always)


def _layer_scale(dim: int, eta: float, name: str) -> Parameter:
    return Parameter(initializer(eta, (dim,), mstype.float32), name=name)


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1, group: int = 1, bias: bool) -> nn.Conv2d:
    """3×3 convolution with one row of zeros around the image."""
    return functions().convolution(
        in_channels, out_channels, 3, stride=stride, pad_mode="pad", padding=1, group=group, has_bias=bias
    )


def _tokens(grid: Tensor) -> Tensor:
    """(B, C, Hp, Wp) to (B, N, C)."""
    return grid.reshape(grid.shape[0], grid.shape[1], -1).transpose(0, 2, 1)


class ConvPatchEmbed(nn.Cell):
    """Image to tokens by 3×3 convolutions, each with batch norm, GELU between them."""

    def __init__(self, architecture: Architecture, in_chans: int, dialect: Dialect) -> None:
        super().__init__()
        cells: list[nn.Cell] = []
        channels = in_chans
        for width, stride in zip(stem_widths(architecture), architecture.stem_strides, strict=True):
            if cells:
                cells.append(Gelu(dialect.gelu))
            convolution = conv3x3(channels, width, stride=stride, bias=False)
            cells.append(nn.SequentialCell([convolution, batch_norm(width, dialect)]))
            channels = width
        self.proj = nn.SequentialCell(cells)

    def construct(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, in_chans, H, W) to tokens (B, N, C) and their grid (Hp, Wp); each stride of 2 rounds up."""
        grid = self.proj(image.astype(self.proj[0][0].weight.dtype))
        return _tokens(grid), (grid.shape[2], grid.shape[3])


def fourier_axis(length: int) -> NDArray[np.float32]:
    """Return the position features of one axis, (length, 32) float32: sines and cosines in turn."""
    waves = FOURIER_CHANNELS // 2
    exponent = 2.0 * (np.arange(waves) // 2) / waves
    period = np.power(np.float32(_TEMPERATURE), exponent.astype(np.float32))
    position = np.arange(1, length + 1, dtype=np.float32)
    phase = (position / (position[-1] + np.float32(1e-6)) * np.float32(2.0 * math.pi))[:, None] / period
    both = np.stack([np.sin(phase[:, 0::2]), np.cos(phase[:, 1::2])], axis=2)
    return both.reshape(length, waves).astype(np.float32)


@lru_cache(maxsize=64)
def _fourier_features(height: int, width: int) -> Tensor:
    rows, columns = fourier_axis(height)[:, None], fourier_axis(width)[None, :]
    each = [np.broadcast_to(axis, (height, width, axis.shape[2])) for axis in (rows, columns)]
    return Tensor(np.concatenate(each, axis=2).reshape(height * width, -1))


@constexpr
def fourier_features(height: int, width: int) -> Tensor:
    """Return the position features of a grid, (N, 64) float32, rows' and columns': once per resolution, a constant."""
    return _fourier_features(height, width)


class PositionalEncodingFourier(nn.Cell):
    """Positional encoding: fixed Fourier features, projected to the tokens' width by a learned 1×1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(FOURIER_CHANNELS, dim, 1, has_bias=True)
        self.project = ops.MatMul(transpose_b=True)

    def construct(self, height: int, width: int) -> Tensor:
        """Return the encoding of a grid of tokens, (N, C)."""
        # A 1×1 convolution of features that no image changes is one matrix product.
        weight = self.token_projection.weight.reshape(-1, FOURIER_CHANNELS)
        features = fourier_features(height, width).astype(weight.dtype)
        return self.project(features, weight) + self.token_projection.bias


class XCA(nn.Cell):
    """Cross-covariance attention: channels attend to channels, linear in the number of tokens (paper, section 3.2)."""

    def __init__(self, dim: int, num_heads: int, normalize: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.normalize = normalize
        self.temperature = Parameter(initializer("ones", (num_heads, 1, 1), mstype.float32), name="temperature")
        self.qkv = nn.Dense(dim, 3 * dim)
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = nn.Dense(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        batch, tokens, dim = x.shape
        heads = (batch, self.num_heads, dim // self.num_heads, tokens)
        query, key, value = ops.split(self.qkv(x).transpose(0, 2, 1), dim, axis=1)
        query, key, value = query.reshape(heads), key.reshape(heads), value.reshape(heads)
        attention = self.matmul_transposed(query, key)  # (B, h, d, d)
        if self.normalize:
            # Dividing the d×d product by both norms is dividing N-long queries and keys, with far fewer divisions.
            attention = attention / (_l2_norm(query) * _l2_norm(key).transpose(0, 1, 3, 2))
        attention = ops.softmax(attention * self.temperature.astype(attention.dtype), -1)
        mixed = self.matmul(self.attn_drop(attention), value)
        return self.proj_drop(self.proj(mixed.reshape(batch, dim, tokens).transpose(0, 2, 1)))


def _l2_norm(x: Tensor) -> Tensor:
    """L2 norm over the last axis, kept, and bounded below as torch's ``normalize`` does."""
    return ops.maximum(ops.sqrt((x * x).sum(-1, keepdims=True)), _NORMALIZE_EPSILON)


class LPI(nn.Cell):
    """Local patch interaction: two depth-wise 3×3 convolutions over the token grid (paper, section 3.3)."""

    def __init__(self, dim: int, dialect: Dialect) -> None:
        super().__init__()
        self.conv1 = conv3x3(dim, dim, group=dim, bias=True)
        self.act = Gelu(dialect.gelu)
        self.bn = batch_norm(dim, dialect)
        self.conv2 = conv3x3(dim, dim, group=dim, bias=True)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C); N = height · width in raster order."""
        grid = x.transpose(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)
        return _tokens(self.conv2(self.bn(self.act(self.conv1(grid)))))


class Mlp(nn.Cell):
    """Two affine maps with a GELU between them, applied to every token."""

    def __init__(self, dim: int, hidden: int, gelu: str, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Dense(dim, hidden)
        self.act = Gelu(gelu)
        self.fc2 = nn.Dense(hidden, dim)
        self.drop = nn.Dropout(p=drop)

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


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


class XCABlock(nn.Cell):
    """Cross-covariance attention, then local patch interaction, then the MLP, each a scaled residual branch."""

    def __init__(
        self, architecture: Architecture, dialect: Dialect, *, proj_drop: float, attn_drop: float, drop_path: float
    ) -> None:
        super().__init__()
        dim, eta = architecture.embed_dim, architecture.eta
        self.norm1 = _layer_norm(dim)
        self.attn = XCA(dim, architecture.num_heads, dialect.normalize_qk, attn_drop, proj_drop)
        self.norm2 = _layer_norm(dim)
        self.mlp = Mlp(dim, architecture.mlp_hidden, dialect.gelu, proj_drop)
        self.norm3 = _layer_norm(dim)
        self.local_mp = LPI(dim, dialect)
        self.drop_path = DropPath(drop_path)
        self.gamma1 = _layer_scale(dim, eta, "gamma1")
        self.gamma2 = _layer_scale(dim, eta, "gamma2")
        self.gamma3 = _layer_scale(dim, eta, "gamma3")

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        kept = self.drop_path(3 * x.shape[0]) if self._drops_path() else None
        x = x + self._keep(kept, 0, self.gamma1 * self.attn(self.norm1(x)))
        # The order is the official code's: LPI (3) before the MLP (2), whatever the numbers suggest.
        x = x + self._keep(kept, 1, self.gamma3 * self.local_mp(self.norm3(x), height, width))
        return x + self._keep(kept, 2, self.gamma2 * self.mlp(self.norm2(x)))

    def _drops_path(self) -> bool:
        return self.training and self.drop_path.rate > 0.0

    def _keep(self, kept: Tensor | None, which: int, branch: Tensor) -> Tensor:
        """Multiply each sample of the branch (B, N, C) by its factor of ``kept`` (3 · B)."""
        if kept is None:
            return branch
        count = branch.shape[0]
        return branch * kept[which * count : (which + 1) * count].reshape(-1, 1, 1).astype(branch.dtype)


class ClassAttention(nn.Cell):
    """The class token gathers from all tokens (CaiT, arXiv:2103.17239, section 3)."""

    def __init__(self, dim: int, num_heads: int, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Dense(dim, 3 * dim)
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = nn.Dense(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map all tokens, class token first, (B, 1 + N, C), to the new class token (B, 1, C)."""
        batch, _, dim = x.shape
        query, key, value = ops.split(self.qkv(x), dim, axis=2)
        query = self._heads(query[:, :1]) * self.scale
        attention = ops.softmax(self.matmul_transposed(query, self._heads(key)), -1)  # (B, h, 1, 1 + N)
        gathered = self.matmul(self.attn_drop(attention), self._heads(value))
        return self.proj_drop(self.proj(gathered.reshape(batch, 1, dim)))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, n, C) to (B, h, n, d)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(0, 2, 1, 3)


class ClassAttentionBlock(nn.Cell):
    """Class attention and an MLP on the class token; patch tokens only pass the norms."""

    def __init__(self, architecture: Architecture, dialect: Dialect, *, proj_drop: float, attn_drop: float) -> None:
        super().__init__()
        dim, eta = architecture.embed_dim, architecture.eta
        self.tokens_norm = architecture.tokens_norm
        self.norm1 = _layer_norm(dim)
        self.attn = ClassAttention(dim, architecture.num_heads, attn_drop, proj_drop)
        self.norm2 = _layer_norm(dim)
        self.mlp = Mlp(dim, architecture.mlp_hidden, dialect.gelu, proj_drop)
        self.gamma1 = _layer_scale(dim, eta, "gamma1")
        self.gamma2 = _layer_scale(dim, eta, "gamma2")

    def construct(self, cls_token: Tensor, tokens: Tensor, tokens_wanted: bool) -> tuple[Tensor, Tensor]:
        """Map the class token (B, 1, C) and the patch tokens (B, N, C) to new ones.

        Where nobody reads the patch tokens afterwards, ``tokens_wanted=False`` returns them as they came.
        """
        tokens_normed = self.norm1(tokens)
        gathered = self.attn(ops.concat((self.norm1(cls_token), tokens_normed), axis=1))
        cls_token = self.norm2(cls_token + self.gamma1 * gathered)
        cls_token = cls_token + self.gamma2 * self.mlp(cls_token)
        if tokens_wanted:
            tokens = tokens + self.gamma1 * tokens_normed
            if self.tokens_norm:
                tokens = self.norm2(tokens)
            # The official block adds the patch tokens to themselves; published weights rely on it.
            tokens = tokens + tokens
        return cls_token, tokens


@compiled_once
class _Backbone(nn.Cell):
    """What the whole network and its features alone share: images become tokens, tokens become maps."""

    config: Any  # what xcit_hub.load attaches

    def __call__(self, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Refuse an image that does not fit before a graph is compiled for it, then run :meth:`construct`."""
        check_image(image.shape, image.dtype, self.in_chans)
        settle_threads()
        return super().__call__(image, *args, **kwargs)

    def cast(self, dtype: Any) -> None:
        """Round every parameter to ``dtype`` and compute in it from now on; images are rounded to it, too.

        What is too small for it becomes zero, as in any rounding.

        Args:
            dtype: ``mindspore.float32``, ``float16`` or ``bfloat16``.

        Raises:
            InputError: it is another, or the device does not compute in it.
            WeightsError: a number is too large for it; the network is as it was.
        """
        if dtype not in _DTYPES or (dtype == mstype.bfloat16 and device_target() == "CPU"):
            raise InputError(
                f"The network cannot be cast to {_DTYPES.get(dtype, dtype)} on {device_target()}.",
                where="network.cast(dtype)",
                fix="Choose float32 or float16, or bfloat16 where the device is not a CPU.",
            )
        for parameter in self.get_parameters():
            if parameter.dtype == mstype.float32:
                dtypes.cast(StoredTensor.of(parameter.asnumpy()), _DTYPES[dtype], (parameter.name,)).numpy()
        for parameter in self.get_parameters():
            parameter.set_dtype(dtype)
        self.compile_cache.clear()

    def to_float(self, dst_type: Any) -> nn.Cell:
        """Compute in another precision, with the parameters as they are: ``nn.Cell.to_float``, also after a call."""
        super().to_float(dst_type)
        self.compile_cache.clear()
        return self

    def _embed(self, image: Tensor) -> tuple[Tensor, int, int]:
        """Map images (B, in_chans, H, W) to tokens with their positions (B, N, C), and the grid's sides."""
        check_image(image.shape, image.dtype, self.in_chans)
        tokens, (height, width) = self.patch_embed(image)
        if self.pos_embeder is not None:
            tokens = tokens + self.pos_embeder(height, width)
        return self.pos_drop(tokens), height, width

    def _through(self, tokens: Tensor, height: int, width: int, first: int, last: int) -> Tensor:
        """Pass tokens (B, N, C) through the blocks [first, last)."""
        for index in range(first, last):  # a slice of a CellList renames the parameters in it
            tokens = self.blocks[index](tokens, height, width)
        return tokens

    def _after_each(self, tokens: Tensor, height: int, width: int, wanted: Sequence[int]) -> list[Tensor]:
        """Return the tokens after each of the ``wanted`` blocks, (B, N, C), the first one first."""
        done, found = 0, []
        for index in range(self.depth):
            if index in wanted:
                tokens = self._through(tokens, height, width, done, index + 1)
                done = index + 1
                found.append(tokens)
        return found

    def _as_map(self, tokens: Tensor, height: int, width: int) -> Tensor:
        return tokens.transpose(0, 2, 1).reshape(tokens.shape[0], self.embed_dim, height, width)


class XCiT(_Backbone):
    """The network. Build it with :func:`xcit_hub.create_model`.

    Args:
        architecture: widths, depths and strides.
        dialect: what XCA, the activation and batch norm compute.
        num_classes: outputs of the classifier; 0 leaves it out.
        in_chans: channels of the input.
        global_pool: what the classifier reads: the class token, the mean patch token, or every token.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout after the positional encoding.
        proj_drop_rate: dropout after attention's projection and in the MLPs.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the cross-covariance blocks, the same in each.

    Raises:
        InputError: the pooling or the strides are impossible.
    """

    def __init__(
        self,
        architecture: Architecture,
        dialect: Dialect,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: GlobalPool = "token",
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        _check_pool(global_pool)
        dim = architecture.embed_dim
        self.architecture = architecture
        self.dialect = dialect
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool = global_pool
        self.embed_dim = self.num_features = self.head_hidden_size = dim
        self.num_prefix_tokens = 1
        self.patch_size = architecture.patch_size
        self.depth = architecture.depth
        drops = {"proj_drop": proj_drop_rate, "attn_drop": attn_drop_rate}

        self.patch_embed = ConvPatchEmbed(architecture, in_chans, dialect)
        self.cls_token = Parameter(initializer("zeros", (1, 1, dim), mstype.float32), name="cls_token")
        self.pos_drop = nn.Dropout(p=pos_drop_rate)
        self.blocks = nn.CellList(
            [XCABlock(architecture, dialect, **drops, drop_path=drop_path_rate) for _ in range(architecture.depth)]
        )
        self.cls_attn_blocks = nn.CellList(
            [ClassAttentionBlock(architecture, dialect, **drops) for _ in range(architecture.cls_attn_layers)]
        )
        self.norm = _layer_norm(dim)
        self.head_drop = nn.Dropout(p=drop_rate)
        self.head = nn.Dense(dim, num_classes) if num_classes else nn.Identity()
        self.pos_embeder = PositionalEncodingFourier(dim) if architecture.use_pos_embed else None

    def construct(self, image: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, num_classes), or to (B, 1 + N, num_classes) without pooling.

        Raises:
            InputError: the channels or the dtype are wrong.
        """
        if self.global_pool == "token":
            cls_token, _ = self._class_attention(self._backbone(image), False)
            return self.head(self.head_drop(self.norm(cls_token)[:, 0]))
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to all normalised tokens, class token first, (B, 1 + N, C)."""
        cls_token, tokens = self._class_attention(self._backbone(image), True)
        return self.norm(ops.concat((cls_token, tokens), axis=1))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify what :meth:`forward_features` returned; ``pre_logits`` stops before the classifier."""
        if self.global_pool == "avg":
            features = features[:, self.num_prefix_tokens :].mean(axis=1)
        elif self.global_pool == "token":
            features = features[:, 0]
        features = self.head_drop(features)
        return features if pre_logits else self.head(features)

    def forward_intermediates(
        self,
        image: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the tokens after chosen cross-covariance blocks, as timm's method of this name.

        Args:
            image: (B, in_chans, H, W).
            indices: the last n blocks if an int, all if None, else these (negative ones count from the end).
            norm: apply the final norm to each intermediate.
            stop_early: do not run the blocks after the last one chosen.
            output_fmt: (B, C, Hp, Wp) or (B, N, C).
            intermediates_only: return the list alone, else (normalised tokens (B, 1 + N, C), list).

        Raises:
            InputError: an index is out of range, the format is unknown, or the image does not fit.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(
                f"There is no output format {output_fmt!r}.", where="output_fmt=…", fix="Choose 'NCHW' or 'NLC'."
            )
        wanted = take_indices(self.depth, indices)
        tokens, height, width = self._embed(image)
        found = self._after_each(tokens, height, width, wanted)
        features = [self.norm(tokens) for tokens in found] if norm else found
        maps = output_fmt == "NCHW"
        intermediates = [self._as_map(tokens, height, width) for tokens in features] if maps else features
        if intermediates_only:
            return intermediates
        last = max(wanted) + 1
        tokens = found[-1] if stop_early else self._through(found[-1], height, width, last, self.depth)
        cls_token, tokens = self._class_attention(tokens, True)
        return self.norm(ops.concat((cls_token, tokens), axis=1)), intermediates

    def get_classifier(self) -> nn.Cell:
        """Return the classifier: a Dense cell, or Identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """Replace the classifier by a freshly initialised one, and the pooling if one is given.

        Raises:
            InputError: the pooling is unknown, or there cannot be so many classes.
        """
        check_count(num_classes, "num_classes", least=0)
        if global_pool is not None:
            _check_pool(global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = nn.Dense(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.update_parameters_name("head.")
        initialize(self.head.get_parameters(), self.architecture.eta, seed=None)
        for parameter in self.head.get_parameters():
            parameter.set_dtype(self.cls_token.dtype)
        self.head.add_flags(**self.norm.get_flags())  # those of to_float
        self.head.set_train(self.training)
        self.compile_cache.clear()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block's activations in the backward pass instead of keeping them."""
        for block in (*self.blocks, *self.cls_attn_blocks):
            forget_recomputation(block)
            if enable:
                block.recompute()
        self.compile_cache.clear()

    def no_weight_decay(self) -> set[str]:
        """Name the parameters of two or more dimensions that weight decay leaves out, as timm does."""
        return {name for name in self.parameters_dict() if name == "cls_token" or name.startswith("pos_embeder.")}

    def parameter_layers(self) -> dict[str, int]:
        """Map every trainable parameter to its layer for layer-wise learning rates, 0 nearest the image, as in timm."""
        return {parameter.name: self._layer_of(parameter.name) for parameter in self.trainable_params()}

    def _layer_of(self, name: str) -> int:
        part, _, rest = name.partition(".")
        first_of = {"blocks": 1, "cls_attn_blocks": 1 + self.depth}
        if part in first_of:
            return first_of[part] + int(rest.partition(".")[0])
        last_block = self.depth + len(self.cls_attn_blocks)
        return {"norm": last_block, "head": last_block + 1}.get(part, 0)

    def _backbone(self, image: Tensor) -> Tensor:
        tokens, height, width = self._embed(image)
        return self._through(tokens, height, width, 0, self.depth)

    def _class_tokens(self, tokens: Tensor) -> Tensor:
        """Return the class token of every image, (B, 1, C)."""
        # Added to zeros rather than broadcast: a graph may be exported before the number of images is known.
        return self.cls_token + ops.zeros_like(tokens[:, :1])

    def _class_attention(self, tokens: Tensor, tokens_wanted: bool) -> tuple[Tensor, Tensor]:
        cls_token = self._class_tokens(tokens)
        last = len(self.cls_attn_blocks) - 1
        for index, block in enumerate(self.cls_attn_blocks):
            cls_token, tokens = block(cls_token, tokens, tokens_wanted or index < last)
        return cls_token, tokens


class XCiTFeatures(_Backbone):
    """The first blocks of an XCiT as a feature pyramid's backbone: images in, a list of (B, C, Hp, Wp) maps out.

    Args:
        network: the whole network; its parameters keep their names.
        out_indices: which blocks to return, as :meth:`XCiT.forward_intermediates` takes them.
    """

    def __init__(self, network: XCiT, out_indices: Indices = 3) -> None:
        super().__init__(auto_prefix=False)
        self.out_indices = take_indices(network.depth, out_indices)
        self.depth = max(self.out_indices) + 1
        self.architecture = network.architecture
        self.dialect = network.dialect
        self.embed_dim = network.embed_dim
        self.in_chans = network.in_chans
        self.patch_size = network.patch_size
        self.patch_embed = network.patch_embed
        self.pos_embeder = network.pos_embeder
        self.pos_drop = network.pos_drop
        self.blocks = nn.CellList(list(network.blocks)[: self.depth], auto_prefix=False)

    def construct(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_chans, H, W) to one (B, C, Hp, Wp) map for each of ``out_indices``."""
        tokens, height, width = self._embed(image)
        found = self._after_each(tokens, height, width, self.out_indices)
        return [self._as_map(tokens, height, width) for tokens in found]

    @property
    def channels(self) -> list[int]:
        """Channels of each map."""
        return [self.embed_dim] * len(self.out_indices)

    @property
    def reductions(self) -> list[int]:
        """Pixels of the image that one cell of each map covers, along a side."""
        return [self.patch_size] * len(self.out_indices)


def check_count(value: object, option: str, *, least: int) -> None:
    """Refuse what is no whole number or too small; None is an option that was not given.

    Raises:
        InputError: it is.
    """
    if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least):
        raise InputError(
            f"{option} is {value!r:.40}.", where=f"{option}=…", fix=f"Give a whole number, {least} or more."
        )


def take_indices(depth: int, indices: Indices) -> tuple[int, ...]:
    """Resolve block indices as timm does: None is all, n is the last n, negative ones count from the end.

    Raises:
        InputError: an index is out of range, or there is none.
    """
    if indices is None:
        return tuple(range(depth))
    if isinstance(indices, int):
        if not 0 < indices <= depth:
            raise InputError(
                f"The last {indices} blocks were asked for; there are {depth}.",
                where="indices=… or out_indices=…",
                fix=f"Ask for 1 to {depth}.",
            )
        return tuple(range(depth - indices, depth))
    if len(indices) == 0:
        raise InputError(
            "No block was asked for.", where="indices=… or out_indices=…", fix=f"Use {-depth} to {depth - 1}."
        )
    resolved = tuple(index + depth if index < 0 else index for index in indices)
    for given, index in zip(indices, resolved, strict=True):
        if not 0 <= index < depth:
            raise InputError(
                f"There is no block {given}; there are {depth}.",
                where="indices=… or out_indices=…",
                fix=f"Use {-depth} to {depth - 1}.",
            )
    return resolved


@constexpr
def check_image(shape: Sequence[int], dtype: Any, in_chans: int) -> bool:
    """Refuse a batch of images that the network does not take.

    Raises:
        InputError: its dtype is not a floating-point one, or its shape not (B, in_chans, H, W).
    """
    if dtype not in _FLOATING:
        raise InputError(
            f"The image is {dtype}; this network takes normalised floating-point images.",
            where="the image",
            fix="xcit_hub.preprocess makes one of a photograph; or convert it with .astype(mindspore.float32).",
        )
    if len(shape) != 4 or shape[1] != in_chans or 0 in shape:
        raise InputError(
            f"The input has shape {tuple(shape)}; this network takes (batch, {in_chans}, height, width).",
            where="the image",
            fix="xcit_hub.preprocess makes (channels, height, width) of a photograph, and [None] a batch of it.",
        )
    return True


def _check_pool(global_pool: str) -> None:
    if global_pool not in _GLOBAL_POOLS:
        raise InputError(
            f"There is no pooling {global_pool!r}.", where="global_pool=…", fix="Choose 'token', 'avg' or ''."
        )
