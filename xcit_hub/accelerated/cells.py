"""The network's cells by compiled operations: each is a plain cell whose ``construct`` is another.

Where a cell cannot be computed so (half precision, a hook inside that wants to see what passes, a part replaced), it
computes as the plain one does. That is asked at every call in PyNative mode and at every compilation in graph mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import constexpr

from xcit_hub.accelerated import operations
from xcit_hub.errors import InputError
from xcit_hub.models import xcit
from xcit_hub.models.functions import GeluErfFromExp, GeluTanhFromSigmoid, UnfoldedConv2d
from xcit_hub.models.private import forget_recomputation, is_hooked
from xcit_hub.parameters import FOURIER_CHANNELS


def as_float32(x: Tensor) -> Tensor:
    """Return it in the only type that compiled operations read."""
    return x if x.dtype == mstype.float32 else x.astype(mstype.float32)


@lru_cache(maxsize=64)
def _integers(numbers: tuple[int, ...]) -> Tensor:
    return Tensor(numbers, mstype.int32)


@constexpr
def where(height: int, width: int, tokens: int, layers: tuple[int, ...] = ()) -> Tensor:
    """Return what operations on blocks read, int32: the grid's sides, the first layer and the one after the last.

    Raises:
        InputError: that many tokens are not such a grid.
    """
    if height * width != tokens:
        raise InputError(
            f"{tokens} tokens are not a grid of {height}×{width}.",
            where="xcit_hub.accelerated.cells",
            fix="Give the height and width of the grid that the patch embedding returned with these tokens.",
        )
    return _integers((height, width, *layers))


def computes_in_half(cell: nn.Cell) -> bool:
    """Tell whether a cell computes in half precision by ``to_float``."""
    flags = vars(cell)  # Cell.to_float sets them
    return bool(flags.get("fp16") or flags.get("bf16"))


class _Part(NamedTuple):
    """A cell inside another one, and where it was found."""

    owner: nn.Cell
    name: str
    cell: nn.Cell

    def unchanged(self) -> bool:
        """Tell whether it still stands there and computes what it did, unseen."""
        cell = self.cell
        return getattr(self.owner, self.name, None) is cell and not is_hooked(cell) and not computes_in_half(cell)


def _parts(owner: nn.Cell) -> Iterator[_Part]:
    """Find every cell inside one but those of dropout, see :func:`_is_idle`, and of stochastic depth."""
    for name, cell in owner.name_cells().items():
        if not isinstance(cell, nn.Dropout | xcit.DropPath):
            yield _Part(owner, name, cell)
            yield from _parts(cell)


def _is_idle(dropout: nn.Cell, training: bool) -> bool:
    """Tell whether a dropout, or what stands in its place, changes nothing now and nobody watches what it is given."""
    rate = getattr(dropout, "p", None)
    return rate is not None and not is_hooked(dropout) and not (training and rate > 0.0)


class Gelu(xcit.Gelu):
    """GELU."""

    own = ("run",)

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.run = (operations.gelu(self.form),)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used, for float32."""
        return not computes_in_half(self)

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return self.run[0](x) if self.compiled and x.dtype == mstype.float32 else super().construct(x)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` of the last axis."""

    own = ("run", "floor")

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.run = (operations.layer_norm(),)
        self.floor = Tensor([self.epsilon], mstype.float32)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used."""
        return self.gamma.dtype == mstype.float32 and not computes_in_half(self)

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        if not self.compiled:
            return super().construct(x)
        return self.run[0](as_float32(x), self.gamma, self.beta, self.floor).astype(x.dtype)


class Dense(nn.Dense):
    """``nn.Dense``."""

    own = ("run",)

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.run = (operations.linear(),)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used."""
        plain = self.activation is None and self.has_bias
        return plain and self.weight.dtype == mstype.float32 and not computes_in_half(self)

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return (
            self.run[0](as_float32(x), self.weight, self.bias).astype(x.dtype)
            if self.compiled
            else super().construct(x)
        )


def _by_batch(norm: nn.BatchNorm2d) -> bool:
    """Tell whether a batch norm takes the batch's statistics, as MindSpore's own decides it."""
    return norm.training if norm.use_batch_statistics is None else norm.use_batch_statistics


def _move(norm: nn.BatchNorm2d, statistic: Parameter, value: Tensor) -> None:
    """Move a running statistic of a batch norm towards the batch's, by the share that MindSpore calls its momentum."""
    value = ops.stop_gradient(value).reshape(statistic.shape)
    ops.assign(statistic, statistic * (1.0 - norm.momentum) + value * norm.momentum)


def _move_both(norm: nn.BatchNorm2d, mean: Tensor, biased_variance: Tensor, count: int) -> None:
    """Move the running statistics towards those of ``count`` values a channel."""
    _move(norm, norm.moving_mean, mean)
    _move(norm, norm.moving_variance, biased_variance * (count / max(count - 1, 1)))


class PatchEmbed(xcit.ConvPatchEmbed):
    """The patch embedding, each convolution in one operation with the batch norm and the GELU after it."""

    own = ("parts", "stages", "epsilon")

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.parts = tuple(_parts(self))
        gelu, last = self.proj[1].form, len(self.proj) - 1
        self.stages = [operations.stage(gelu, place == 0, place == last) for place in range(0, last + 1, 2)]
        self.epsilon = Tensor([self.proj[0][1].eps], mstype.float32)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operations are used: they know strides of 2."""
        if any(part.name == "0" and getattr(part.cell, "stride", (2, 2)) != (2, 2) for part in self.parts):
            return False
        single = self.proj[0][0].weight.dtype == mstype.float32
        return single and not computes_in_half(self) and all(part.unchanged() for part in self.parts)

    def construct(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, in_chans, H, W) to tokens (B, N, C) and their grid (Hp, Wp)."""
        if not self.compiled:
            return super().construct(image)
        grid = as_float32(image)
        for index in range(len(self.stages)):
            grid = self._stage(index, grid)
        return grid.reshape(grid.shape[0], -1, grid.shape[3]), (grid.shape[1], grid.shape[2])

    def _stage(self, index: int, x: Tensor) -> Tensor:
        """Map the image, or (B, H, W, K) after it, to (B, H / 2, W / 2, N), rounded up."""
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


class Block(xcit.XCABlock):
    """A cross-covariance block as one operation: the cells that hold its parameters are not called."""

    own = ("parts", "modes", "epsilons", "all_kept")
    layers = 1  # how many blocks the parameters are of; see xcit_hub.accelerated.stacked

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.parts = tuple(_parts(self))
        self.modes = operations.blocks(self.mlp.act.form, self.attn.normalize)
        self.epsilons = Tensor([self.norm1.epsilon, self.local_mp.bn.eps], mstype.float32)
        self.all_kept = Tensor([1.0], mstype.float32)

    @property
    def drops_inside(self) -> bool:
        """Whether a branch drops anything in training, for which one operation has no place."""
        return not self._all_idle(training=True)

    def _all_idle(self, training: bool) -> bool:
        return all(_is_idle(drop, training) for drop in (self.attn.attn_drop, self.attn.proj_drop, self.mlp.drop))

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used."""
        if computes_in_half(self):  # mixed precision wraps the parts whose parameters are looked at here
            return False
        unchanged = self.norm1.gamma.dtype == mstype.float32 and all(part.unchanged() for part in self.parts)
        return unchanged and self._all_idle(self.training)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        if not self.compiled:
            return super().construct(x, height, width)
        evaluate, train, train_frozen = self.modes
        kept = self.drop_path(3 * self.layers * x.shape[0]) if self._drops_path() else self.all_kept
        attn, conv1, bn, conv2, mlp = self.attn, self.local_mp.conv1, self.local_mp.bn, self.local_mp.conv2, self.mlp
        operands = (
            *(x, kept, where(height, width, x.shape[1]), self.epsilons),
            *(self.norm1.gamma, self.norm1.beta, attn.qkv.weight, attn.qkv.bias, attn.temperature),
            *(attn.proj.weight, attn.proj.bias, self.gamma1),
            *(self.norm3.gamma, self.norm3.beta, conv1.weight, conv1.bias, bn.gamma, bn.beta),
            *(conv2.weight, conv2.bias, self.gamma3),
            *(self.norm2.gamma, self.norm2.beta, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias),
            *(self.gamma2, bn.moving_mean, bn.moving_variance),
        )
        if _by_batch(bn):
            out, _, mean, variance = train(*operands)
            _move_both(bn, mean, variance, x.shape[0] * x.shape[1])
            return out
        return train_frozen(*operands)[0] if self.training else evaluate(*operands)


class ClassAttention(xcit.ClassAttention):
    """Class attention, all but its projection as one operation."""

    own = ("parts", "run", "heads")

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.parts = tuple(_parts(self))
        self.run = (operations.class_attention(),)
        self.heads = Tensor([self.num_heads], mstype.int32)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used: it has no place for dropout."""
        if computes_in_half(self):
            return False
        unchanged = self.qkv.weight.dtype == mstype.float32 and all(part.unchanged() for part in self.parts)
        return unchanged and _is_idle(self.attn_drop, self.training)

    def construct(self, x: Tensor) -> Tensor:
        """Map all tokens, class token first, (B, 1 + N, C), to the new class token (B, 1, C)."""
        if not self.compiled:
            return super().construct(x)
        gathered = self.run[0](as_float32(x), self.heads, self.qkv.weight, self.qkv.bias)
        return self.proj_drop(self.proj(gathered))


class PositionalEncoding(xcit.PositionalEncodingFourier):
    """The position encoding, its projection as one operation."""

    own = ("parts", "run")

    def prepare(self) -> None:
        """Fetch what a cell that has just become one of this class lacks."""
        self.parts = tuple(_parts(self))
        self.run = (operations.linear(),)

    @property
    def compiled(self) -> bool:
        """Whether the compiled operation is used."""
        single = self.token_projection.weight.dtype == mstype.float32
        return single and not computes_in_half(self) and all(part.unchanged() for part in self.parts)

    def construct(self, height: int, width: int) -> Tensor:
        """Return the encoding of a grid of tokens, (N, C)."""
        if not self.compiled:
            return super().construct(height, width)
        weight = self.token_projection.weight.reshape(-1, FOURIER_CHANNELS)
        return self.run[0](xcit.fourier_features(height, width), weight, self.token_projection.bias)


# Cells of exactly these classes; what somebody derived from one may compute something else.
_ACCELERATED: dict[type[nn.Cell], type[nn.Cell]] = {
    xcit.Gelu: Gelu,
    nn.LayerNorm: LayerNorm,
    nn.Dense: Dense,
    xcit.ConvPatchEmbed: PatchEmbed,
    xcit.XCABlock: Block,
    xcit.ClassAttention: ClassAttention,
    xcit.PositionalEncodingFourier: PositionalEncoding,
}
_PLAIN = {accelerated: plain for plain, accelerated in _ACCELERATED.items()}


def all_cells(root: nn.Cell) -> list[nn.Cell]:
    """Return a cell and every cell inside it."""
    return [cell for _, cell in root.cells_and_names()]


def is_accelerated(root: nn.Cell) -> bool:
    """Tell whether a cell inside is computed by compiled operations."""
    return any(type(cell) in _PLAIN for cell in all_cells(root))


# What the network is built of. Other classes inside a part, such as those of mixed precision, compute something else.
_BUILT_OF = {
    *(_ACCELERATED.keys() | _PLAIN.keys()),
    *(xcit.XCA, xcit.LPI, xcit.Mlp, nn.SequentialCell, nn.BatchNorm2d, nn.Conv2d, UnfoldedConv2d),
    *(GeluErfFromExp, GeluTanhFromSigmoid),
}


def unusual_part(root: nn.Cell) -> str | None:
    """Return the name of a cell inside that the network is not built of; None where there is none."""
    for part in _parts(root):
        plain = not isinstance(part.cell, nn.Dense) or (part.cell.has_bias and part.cell.activation is None)
        if type(part.cell) not in _BUILT_OF or not plain:
            return f"{part.name} is a {type(part.cell).__name__}"
    return None


def make_accelerated(root: nn.Cell) -> None:
    """Turn every plain cell inside into the accelerated one, in place, but for those with unusual parts."""
    recomputed = forget_recomputation(root)  # it is bound to the plain ``construct``
    for cell in all_cells(root):
        kind = _ACCELERATED.get(type(cell))
        if kind is not None and unusual_part(cell) is None:
            cell.__class__ = kind
            cell.prepare()
    for cell in recomputed:
        cell.recompute()


def make_plain(root: nn.Cell) -> None:
    """Turn every accelerated cell inside into the plain one, in place."""
    recomputed = forget_recomputation(root)
    for cell in all_cells(root):
        if kind := _PLAIN.get(type(cell)):
            for name in cell.own:
                delattr(cell, name)
            cell.__class__ = kind
    for cell in recomputed:
        cell.recompute()
