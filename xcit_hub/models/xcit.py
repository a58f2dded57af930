"""XCiT: Cross-Covariance Image Transformers (El-Nouby et al., NeurIPS 2021, arXiv:2106.09681), in MindSpore.

One network for all architectures and both dialects. Parameters carry MindCV's names, so that its checkpoints load
strictly; the interface follows timm's ``Xcit``. The same code runs in graph mode and in PyNative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer
from mindspore.nn.utils import no_init_parameters
from mindspore.ops import constexpr

from xcit_hub.accelerated.fused import fused_blocks, fused_class_blocks, fused_head, fused_patch_embed
from xcit_hub.errors import InputError
from xcit_hub.models import kernels
from xcit_hub.models.initialization import initialize
from xcit_hub.models.layers import (
    ClassAttentionBlock,
    ConvPatchEmbed,
    FourierPosition,
    XCABlock,
    dense,
    fourier_features,
    layer_norm,
)
from xcit_hub.variants import Architecture, Dialect

GlobalPool = Literal["token", "avg", ""]
Indices = int | Sequence[int] | None

_FLOATING = (mstype.float32, mstype.float16, mstype.bfloat16, mstype.float64)
_GLOBAL_POOLS = ("token", "avg", "")


@kernels.compiled_once
class _Backbone(nn.Cell):
    """What the whole network and its features alone share: images become tokens, tokens become maps."""

    patch_embed: nn.Cell
    blocks: nn.Cell  # a list; or, joined, one cell that computes them all
    joined = False
    depth: int
    config: Any  # what xcit_hub.load attaches
    fused = False

    def __call__(self, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Refuse an image that does not fit before a graph is compiled for it, then run :meth:`construct`."""
        _grid(image.shape, image.dtype, self.in_chans, self.patch_size)
        kernels.settle_threads()
        return super().__call__(image, *args, **kwargs)

    def set_train(self, mode: bool = True) -> nn.Cell:
        """Switch between training and evaluation.

        Raises:
            InputError: the network is fused, and training was asked for.
        """
        if mode and self.fused:
            raise InputError(
                "A fused network cannot be trained: what it would learn is folded into constants.",
                fix="Train the network that fuse() was called on; it is unchanged.",
            )
        return super().set_train(mode)

    def _fuse_from(self, source: _Backbone, folded: Sequence[nn.Cell] = ()) -> None:
        """Take over a network of the same kind: blocks, patch embedding and ``folded`` are, all else is as it is."""
        self.patch_embed = fused_patch_embed(source.patch_embed, source.pos_embeder, source.dialect)
        self.blocks = fused_blocks(source.blocks, source.architecture, source.dialect)
        self.joined = not isinstance(self.blocks, nn.CellList)
        self._take_from(source, folded=[self.patch_embed, self.blocks, *folded])
        for parameter in self.get_parameters():
            parameter.requires_grad = False
        self.fused = True

    def _take_from(self, source: _Backbone, folded: Sequence[nn.Cell] = ()) -> None:
        """Copy what another network of the same kind holds, but for the parameters of ``folded``; evaluate."""
        own = {id(parameter) for cell in folded for parameter in cell.get_parameters()}
        values = source.parameters_dict()
        for name, parameter in self.parameters_dict().items():
            if id(parameter) not in own:
                parameter.set_data(values[name].value().copy())
        if hasattr(source, "config"):
            self.config = source.config
        self.set_train(False)

    def take_apart(self) -> None:
        """Compute cell by cell from now on; other precisions than float32, and hooks into cells, need it.

        Raises:
            InputError: the network is fused.
        """
        self._refuse_if_fused("taken apart")
        for part in (self.patch_embed, *self.blocks):
            part.take_apart()

    @contextmanager
    def step_by_step(self) -> Iterator[None]:
        """Inside this context compute cell by cell, so that hooks see each."""
        self._refuse_if_fused("taken apart")
        joined = [part for part in (self.patch_embed, *self.blocks) if part.in_one_piece]
        self.take_apart()
        try:
            yield
        finally:
            for part in joined:
                part.in_one_piece = True

    def _refuse_if_fused(self, what: str) -> None:
        if self.fused:
            raise InputError(
                f"A fused network cannot be {what}: it holds constants made for one way of computing.",
                fix=f"Call fuse() last; the network it was called on is unchanged and can be {what}.",
            )

    def _embed(self, image: Tensor) -> Tensor:
        height, width = _grid(image.shape, image.dtype, self.in_chans, self.patch_size)
        if self.patch_embed.positions:
            return self.pos_drop(self.patch_embed(image, fourier_features(height, width)))
        return self.pos_drop(self.patch_embed(image) + self.pos_embeder(height, width))

    def _through(self, tokens: Tensor, height: int, width: int, first: int, last: int) -> Tensor:
        """Pass tokens (B, N, C) through the blocks [first, last)."""
        if self.joined:
            return self.blocks(tokens, height, width, first, last)
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
        architecture: widths and depths.
        dialect: what XCA and the activation compute.
        num_classes: outputs of the classifier; 0 leaves it out.
        in_chans: channels of the input.
        global_pool: what the classifier reads: the class token, the mean patch token, or every token.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout after the positional encoding.
        proj_drop_rate: dropout after attention's projection and in the MLPs.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the cross-covariance blocks, the same in each.
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

        self.patch_embed = ConvPatchEmbed(architecture, in_chans, dialect.gelu)
        self.cls_token = Parameter(initializer("zeros", (1, 1, dim), mstype.float32), name="cls_token")
        self.pos_drop = nn.Dropout(p=pos_drop_rate)
        self.blocks = nn.CellList(
            [
                XCABlock(
                    architecture,
                    dialect,
                    proj_drop=proj_drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=drop_path_rate,
                )
                for _ in range(architecture.depth)
            ]
        )
        self.cls_attn_blocks = nn.CellList(
            [
                ClassAttentionBlock(architecture, dialect, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate)
                for _ in range(architecture.cls_attn_layers)
            ]
        )
        self.norm = layer_norm(dim)
        self.head_drop = nn.Dropout(p=drop_rate)
        self.head = dense(dim, num_classes) if num_classes else nn.Identity()
        self.pos_embeder = FourierPosition(dim)

    def construct(self, image: Tensor) -> Tensor:
        """Map images (B, in_chans, H, W) to logits (B, num_classes), or to (B, 1 + N, num_classes) without pooling.

        Raises:
            InputError: H or W is not a multiple of the patch size, or the channels or the dtype are wrong.
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
            raise InputError(f"There is no output format {output_fmt!r}.", fix="Choose 'NCHW' or 'NLC'.")
        wanted = take_indices(self.depth, indices)
        height, width = _grid(image.shape, image.dtype, self.in_chans, self.patch_size)
        found = self._after_each(self._embed(image), height, width, wanted)
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
            InputError: the pooling is unknown.
        """
        if global_pool is not None:
            _check_pool(global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = dense(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.update_parameters_name("head.")
        initialize(self.head.get_parameters(), self.architecture.eta, seed=None)
        self.head.set_train(self.training)
        self.compile_cache.clear()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block's activations in the backward pass instead of keeping them."""
        self._refuse_if_fused("recomputed")
        for block in (*self.blocks, *self.cls_attn_blocks):
            kernels.forget_recomputation(block)
            if enable:
                block.recompute()
        self.compile_cache.clear()

    def fuse(self) -> XCiT:
        """Return a copy for inference alone, faster and equal to rounding; this network stays as it is.

        Batch norm, layer norm's gain and offset and the layer scales are folded into the neighbouring weights (see
        :mod:`xcit_hub.accelerated.fused`); on a CPU with a compiler every block is one operation. The copy has the same
        methods, parameters of its own names, no gradients, and cannot be saved as a checkpoint or trained.
        """
        copy = self._twin()
        folded = fused_class_blocks(self.cls_attn_blocks, self.architecture, self.dialect)
        if folded:
            copy.cls_attn_blocks = nn.CellList(folded)
        head = fused_head(self.head)
        if head is not None:
            copy.head = head
            folded = [*folded, head]
        copy._fuse_from(self, folded)
        return copy

    def portable(self) -> XCiT:
        """Return a copy in evaluation mode that computes by MindSpore's own operations alone, equal to rounding.

        What ``mindspore.export`` writes of it runs on other machines; the operations compiled for this CPU do not.
        """
        with kernels.portable():
            copy = self._twin()
        copy._take_from(self)
        return copy

    def _twin(self) -> XCiT:
        self._refuse_if_fused("copied")
        with no_init_parameters():
            return XCiT(
                self.architecture,
                self.dialect,
                num_classes=self.num_classes,
                in_chans=self.in_chans,
                global_pool=self.global_pool,
            )

    def cast(self, dtype: Any) -> None:
        """Round every parameter to ``dtype`` (float32, float16, bfloat16) and compute in it from now on.

        Raises:
            InputError: the network is fused.
        """
        self._refuse_if_fused("cast")
        self.take_apart()
        for parameter in self.get_parameters():
            parameter.set_dtype(dtype)
        self.compile_cache.clear()

    def no_weight_decay(self) -> set[str]:
        """Name the parameters of two or more dimensions that weight decay leaves out, as timm does."""
        return {name for name in self.parameters_dict() if name == "cls_token" or name.startswith("pos_embeder.")}

    def parameter_layers(self) -> dict[str, int]:
        """Map every trainable parameter to its layer for layer-wise learning rates, 0 nearest the image, as in timm."""
        return {parameter.name: self._layer_of(parameter.name) for parameter in self.trainable_params()}

    def _layer_of(self, name: str) -> int:
        room, _, rest = name.partition(".")
        first_of = {"blocks": 1, "cls_attn_blocks": 1 + self.depth}
        if room in first_of:
            return first_of[room] + int(rest.partition(".")[0])
        last_block = self.depth + len(self.cls_attn_blocks)
        return {"norm": last_block, "head": last_block + 1}.get(room, 0)

    def _backbone(self, image: Tensor) -> Tensor:
        height, width = _grid(image.shape, image.dtype, self.in_chans, self.patch_size)
        return self._through(self._embed(image), height, width, 0, self.depth)

    def _class_attention(self, tokens: Tensor, tokens_wanted: bool) -> tuple[Tensor, Tensor]:
        cls_token = self.cls_token
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
        height, width = _grid(image.shape, image.dtype, self.in_chans, self.patch_size)
        found = self._after_each(self._embed(image), height, width, self.out_indices)
        return [self._as_map(tokens, height, width) for tokens in found]

    def fuse(self) -> XCiTFeatures:
        """Return a copy for inference alone, see :meth:`XCiT.fuse`."""
        copy = self._twin()
        copy._fuse_from(self)
        return copy

    def portable(self) -> XCiTFeatures:
        """Return a copy of MindSpore's own operations alone, see :meth:`XCiT.portable`."""
        with kernels.portable():
            copy = self._twin()
        copy._take_from(self)
        return copy

    def _twin(self) -> XCiTFeatures:
        self._refuse_if_fused("copied")
        with no_init_parameters():
            network = XCiT(self.architecture, self.dialect, num_classes=0, in_chans=self.in_chans)
        return XCiTFeatures(network, self.out_indices)

    @property
    def channels(self) -> list[int]:
        """Channels of each map."""
        return [self.embed_dim] * len(self.out_indices)

    @property
    def reductions(self) -> list[int]:
        """Pixels of the image that one cell of each map covers, along a side."""
        return [self.patch_size] * len(self.out_indices)


def take_indices(depth: int, indices: Indices) -> tuple[int, ...]:
    """Resolve block indices as timm does: None is all, n is the last n, negative ones count from the end.

    Raises:
        InputError: an index is out of range.
    """
    if indices is None:
        return tuple(range(depth))
    if isinstance(indices, int):
        if not 0 < indices <= depth:
            raise InputError(
                f"The last {indices} blocks were asked for; there are {depth}.", fix=f"Ask for 1 to {depth}."
            )
        return tuple(range(depth - indices, depth))
    resolved = tuple(index + depth if index < 0 else index for index in indices)
    for given, index in zip(indices, resolved, strict=True):
        if not 0 <= index < depth:
            raise InputError(f"There is no block {given}; there are {depth}.", fix=f"Use {-depth} to {depth - 1}.")
    return resolved


@constexpr
def _grid(shape: Sequence[int], dtype: Any, in_chans: int, patch_size: int) -> tuple[int, int]:
    """Return the token grid (Hp, Wp) of an image batch, or say why there is none."""
    if dtype not in _FLOATING:
        raise InputError(
            f"The image is {dtype}; this network takes normalised floating-point images.",
            fix="xcit_hub.preprocess makes one of a photograph; or convert it with .astype(mindspore.float32).",
        )
    if len(shape) != 4 or shape[1] != in_chans:
        raise InputError(f"The input has shape {tuple(shape)}; this network takes (batch, {in_chans}, height, width).")
    height, width = shape[2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise InputError(
            f"An image of {height}×{width} pixels does not divide into patches of {patch_size}×{patch_size}.",
            fix=f"Resize or pad it so that both sides are multiples of {patch_size}.",
        )
    return height // patch_size, width // patch_size


def _check_pool(global_pool: str) -> None:
    if global_pool not in _GLOBAL_POOLS:
        raise InputError(f"There is no pooling {global_pool!r}.", fix="Choose 'token', 'avg' or ''.")
