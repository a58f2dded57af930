"""ONNX from a network's parameters: one builder over the table of architectures. Imports neither torch nor MindSpore.

Nodes are named after the network (``blocks.3/xca/softmax``), initializers after the parameters. Batch, height and width
are dynamic unless they are fixed; the position encoding is computed in the graph for whatever grid arrives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xcit_hub.exporters.form import ATTENTION, Form
from xcit_hub.folding import folded
from xcit_hub.parameters import BATCH_NORM_EPSILON, FOURIER_CHANNELS, LAYER_NORM_EPSILON
from xcit_hub.variants import Architecture, Dialect

Array = NDArray[Any]

_NORMALIZE_EPSILON = 1e-12  # torch.nn.functional.normalize
_POSITION_EPSILON = 1e-6  # facebook PositionalEncodingFourier
_FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass
class _Graph:
    """Nodes and initializers as they are made; ``scope`` is where in the network they belong."""

    opset: int
    dtype: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self.path.append(name)
        yield
        self.path.pop()

    def node(self, kind: str, *inputs: str, name: str, count: int = 1, **attributes: Any) -> Any:
        """Add a node; return its output's name, or the names of ``count`` outputs."""
        full = "/".join([*self.path, name])
        while full in self.used:
            full += "_"
        self.used.add(full)
        outputs = [full] if count == 1 else [f"{full}.{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=full, **attributes))
        return outputs[0] if count == 1 else outputs

    def weight(self, name: str, array: Array) -> str:
        """Add a parameter in the graph's dtype."""
        return self._initializer(name, np.asarray(array, self.dtype))

    def number(self, value: float, dtype: str | None = None) -> str:
        """Return a scalar constant."""
        return self._initializer(f"{dtype or self.dtype}:{value!r}", np.asarray(value, dtype or self.dtype))

    def integers(self, *values: int) -> str:
        """Return a constant list of int64."""
        return self._initializer(f"int64:{list(values)}", np.asarray(values, np.int64))

    def wide(self, name: str, array: Array) -> str:
        """Add a float32 constant whatever the graph computes in."""
        return self._initializer(name, np.asarray(array, np.float32))

    def _initializer(self, name: str, array: Array) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def rename(self, old: str, new: str) -> None:
        """Give the output of a node, which no other node reads, another name."""
        node = next(node for node in reversed(self.nodes) if old in node.output)
        node.output[list(node.output).index(old)] = new

    def cast(self, x: str, dtype: str, name: str) -> str:
        return str(self.node("Cast", x, name=name, to=_FLOATS[dtype]))

    def reduce(self, kind: str, x: str, axis: int, name: str, keepdims: int = 1) -> str:
        """Reduce one axis; its number became an input in opset 18 (ReduceSum's in 13)."""
        if self.opset < 18:
            return str(self.node(kind, x, name=name, axes=[axis], keepdims=keepdims))
        return str(self.node(kind, x, self.integers(axis), name=name, keepdims=keepdims))


class _Builder:
    """Writes the network into a graph, top to bottom; shapes in comments: B images, N = Hp·Wp tokens, C channels."""

    def __init__(self, arrays: Mapping[str, Array], architecture: Architecture, dialect: Dialect, form: Form) -> None:
        self.arrays = folded(arrays, architecture) if form.fuse else dict(arrays)
        self.architecture, self.dialect, self.form = architecture, dialect, form
        self.dim, self.heads = architecture.embed_dim, architecture.num_heads
        self.graph = _Graph(form.opset, form.dtype)
        self.channel_shares: list[str] = []  # (B, h, d, d) of each block
        self.class_shares: list[str] = []  # (B, h, 1, 1 + N) of each class attention block

    # ---- Layers ----

    def parameter(self, name: str) -> str:
        return self.graph.weight(name, self.arrays[name])

    def dense(self, x: str, cell: str, name: str) -> str:
        # MatMul takes (in, out).
        weight = self.graph.weight(f"{cell}.weight", self.arrays[f"{cell}.weight"].T)
        product = self.graph.node("MatMul", x, weight, name=f"{name}/matmul")
        return str(self.graph.node("Add", product, self.parameter(f"{cell}.bias"), name=name))

    def layer_norm(self, x: str, cell: str, name: str) -> str:
        if f"{cell}.gamma" in self.arrays:
            gain, offset = self.parameter(f"{cell}.gamma"), self.parameter(f"{cell}.beta")
        else:  # folded into what follows
            gain = self.graph.weight("ones", np.ones(self.dim))
            offset = self.graph.weight("zeros", np.zeros(self.dim))
        return str(
            self.graph.node("LayerNormalization", x, gain, offset, name=name, axis=-1, epsilon=LAYER_NORM_EPSILON)
        )

    def batch_norm(self, x: str, cell: str, name: str) -> str:
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        operands = [self.parameter(f"{cell}.{leaf}") for leaf in leaves]
        return str(self.graph.node("BatchNormalization", x, *operands, name=name, epsilon=BATCH_NORM_EPSILON))

    def convolution(self, x: str, cell: str, name: str, *, stride: int = 1, group: int = 1) -> str:
        operands = [self.parameter(f"{cell}.weight")]
        if f"{cell}.bias" in self.arrays:
            operands.append(self.parameter(f"{cell}.bias"))
        return str(
            self.graph.node(
                "Conv", x, *operands, name=name, kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2, group=group
            )
        )

    def gelu(self, x: str, name: str) -> str:
        graph, tanh = self.graph, self.dialect.gelu == "tanh"
        if graph.opset >= 20:
            return str(graph.node("Gelu", x, name=name, approximate="tanh" if tanh else "none"))
        with graph.scope(name):
            if tanh:
                square = graph.node("Mul", x, x, name="square")
                inner = graph.node("Mul", square, graph.number(math.sqrt(2 / math.pi) * 0.044715), name="cubic")
                inner = graph.node("Add", inner, graph.number(math.sqrt(2 / math.pi)), name="linear")
                curve = graph.node("Tanh", graph.node("Mul", x, inner, name="argument"), name="tanh")
            else:
                curve = graph.node(
                    "Erf", graph.node("Div", x, graph.number(math.sqrt(2.0)), name="argument"), name="erf"
                )
            curve = graph.node("Add", curve, graph.number(1.0), name="shifted")
            product = graph.node("Mul", x, curve, name="product")
            return str(graph.node("Mul", product, graph.number(0.5), name="half"))

    def scaled(self, x: str, gamma: str, name: str) -> str:
        """Multiply by a layer scale, unless it is folded away."""
        return str(self.graph.node("Mul", x, self.parameter(gamma), name=name)) if gamma in self.arrays else x

    # ---- Parts ----

    def pixels(self, image: str) -> str:
        """uint8 (B, H, W, C) → normalised (B, C, H, W)."""
        graph, form = self.graph, self.form
        assert form.mean is not None and form.std is not None  # noqa: S101  (what makes this step wanted)
        mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (form.mean, form.std))
        with graph.scope("preprocessing"):
            x = graph.node("Cast", image, name="float", to=TensorProto.FLOAT)
            x = graph.node("Transpose", x, name="channels_first", perm=[0, 3, 1, 2])
            x = graph.node("Mul", x, graph.wide("preprocessing.scale", 1 / (255 * std)), name="scale")
            return str(graph.node("Sub", x, graph.wide("preprocessing.shift", mean / std), name="shift"))

    def patch_embed(self, image: str) -> str:
        """(B, in_chans, H, W) → (B, C, Hp, Wp)."""
        x = image
        with self.graph.scope("patch_embed"):
            for index, stride in enumerate(self.architecture.stem_strides):
                cell = f"patch_embed.proj.{2 * index}"
                if index:
                    x = self.gelu(x, f"gelu.{index}")
                x = self.convolution(x, f"{cell}.0", f"conv.{index}", stride=stride)
                if f"{cell}.1.gamma" in self.arrays:
                    x = self.batch_norm(x, f"{cell}.1", f"norm.{index}")
        return x

    def position(self, height: str, width: str) -> str:
        """Sides of the grid, int64 (1) each → position encoding (N, C)."""
        graph = self.graph
        channels = FOURIER_CHANNELS // 2
        weight = self.arrays["pos_embeder.token_projection.weight"].reshape(self.dim, FOURIER_CHANNELS)
        encodings = []
        with graph.scope("pos_embed"):
            for axis, (side, columns) in enumerate(((height, slice(0, channels)), (width, slice(channels, None)))):
                features = self._waves(side, "yx"[axis], channels)
                part = graph.wide(f"pos_embeder.token_projection.weight.{'yx'[axis]}", weight[:, columns].T)
                encodings.append(graph.node("MatMul", features, part, name=f"project_{'yx'[axis]}"))
            rows = graph.node("Unsqueeze", encodings[0], graph.integers(1), name="rows")  # (Hp, 1, C)
            grid = graph.node("Add", rows, encodings[1], name="grid")  # (Hp, Wp, C)
            bias = graph.wide("pos_embeder.token_projection.bias", self.arrays["pos_embeder.token_projection.bias"])
            grid = graph.node("Add", grid, bias, name="bias")
            tokens = graph.node("Reshape", grid, graph.integers(-1, self.dim), name="tokens")
            return tokens if graph.dtype == "float32" else graph.cast(tokens, graph.dtype, "cast")

    def _waves(self, side: str, axis: str, channels: int) -> str:
        """Positions 1 … side → sines and cosines (side, channels), in float32."""
        graph = self.graph
        frequencies = np.float32(10000.0) ** (2.0 * np.arange(channels // 2) / channels).astype(np.float32)
        if self.form.image_size is None:
            one, scalar = graph.number(1, "int64"), graph.node("Squeeze", side, name=f"{axis}/side")
            end = graph.node("Add", scalar, one, name=f"{axis}/end")
            count = graph.node("Range", one, end, one, name=f"{axis}/range")
        else:  # onnxruntime (1.32) refuses the range where the batch is fixed as well
            known = _grid(self.form, self.architecture)["yx".index(axis)]
            count = graph.integers(*range(1, known + 1))
        place = graph.node("Cast", count, name=f"{axis}/place", to=TensorProto.FLOAT)
        length = graph.node("Cast", side, name=f"{axis}/length", to=TensorProto.FLOAT)
        length = graph.node("Add", length, graph.number(_POSITION_EPSILON, "float32"), name=f"{axis}/length_epsilon")
        share = graph.node("Div", place, length, name=f"{axis}/share")
        turn = graph.node("Mul", share, graph.number(2 * math.pi, "float32"), name=f"{axis}/turn")
        turn = graph.node("Unsqueeze", turn, graph.integers(1), name=f"{axis}/column")
        phase = graph.node("Div", turn, graph.wide("pos_embeder.frequencies", frequencies), name=f"{axis}/phase")
        waves = [
            graph.node("Unsqueeze", graph.node(kind, phase, name=f"{axis}/{kind.lower()}"), graph.integers(2),
                       name=f"{axis}/{kind.lower()}_last")
            for kind in ("Sin", "Cos")
        ]  # fmt: skip
        pairs = graph.node("Concat", *waves, name=f"{axis}/pairs", axis=2)
        return str(graph.node("Reshape", pairs, graph.integers(-1, channels), name=f"{axis}/waves"))

    def xca(self, x: str, cell: str) -> str:
        """Cross-covariance attention, (B, N, C) → (B, N, C) (paper, section 3.2)."""
        graph, head = self.graph, self.dim // self.heads
        with graph.scope("xca"):
            qkv = self.dense(x, f"{cell}.qkv", "qkv")
            qkv = graph.node("Reshape", qkv, graph.integers(0, -1, 3, self.heads, head), name="heads")
            qkv = graph.node("Transpose", qkv, name="channels_first", perm=[2, 0, 3, 4, 1])  # (3, B, h, d, N)
            parts = graph.node("Split", qkv, *self._thirds(), name="split", count=3, axis=0, **self._num_outputs(3))
            query, key, value = (
                graph.node("Squeeze", part, graph.integers(0), name=name)
                for part, name in zip(parts, ("query", "key", "value"), strict=True)
            )
            if self.dialect.normalize_qk:
                query, key = self.unit_length(query, "normalize_query"), self.unit_length(key, "normalize_key")
            key = graph.node("Transpose", key, name="key_transposed", perm=[0, 1, 3, 2])
            attention = graph.node("MatMul", query, key, name="cross_covariance")  # (B, h, d, d)
            attention = graph.node("Mul", attention, self.parameter(f"{cell}.temperature"), name="temperature")
            attention = graph.node("Softmax", attention, name="softmax", axis=-1)
            self.channel_shares.append(attention)
            mixed = graph.node("MatMul", attention, value, name="mix")  # (B, h, d, N)
            mixed = graph.node("Transpose", mixed, name="tokens_first", perm=[0, 3, 1, 2])
            mixed = graph.node("Reshape", mixed, graph.integers(0, -1, self.dim), name="tokens")
            return self.dense(mixed, f"{cell}.proj", "proj")

    def _thirds(self) -> Sequence[str]:
        return () if self.graph.opset >= 18 else (self.graph.integers(1, 1, 1),)

    def _num_outputs(self, count: int) -> dict[str, int]:
        return {"num_outputs": count} if self.graph.opset >= 18 else {}

    def unit_length(self, x: str, name: str) -> str:
        """Divide (B, h, d, N) by its L2 norm over the tokens; float16 would overflow in the sum of squares."""
        graph = self.graph
        with graph.scope(name):
            wide = x if graph.dtype == "float32" else graph.cast(x, "float32", "widen")
            length = graph.reduce("ReduceL2", wide, -1, "l2")
            length = graph.node("Max", length, graph.number(_NORMALIZE_EPSILON, "float32"), name="bounded")
            unit = graph.node("Div", wide, length, name="unit")
            return str(unit if graph.dtype == "float32" else graph.cast(unit, graph.dtype, "narrow"))

    def lpi(self, x: str, cell: str, sides: str) -> str:
        """Local patch interaction, (B, N, C) → (B, N, C) (paper, section 3.3); ``sides`` is (Hp, Wp)."""
        graph = self.graph
        with graph.scope("lpi"):
            grid = graph.node("Transpose", x, name="channels_first", perm=[0, 2, 1])
            shape = graph.node("Concat", graph.integers(0, self.dim), sides, name="shape", axis=0)
            grid = graph.node("Reshape", grid, shape, name="grid")
            grid = self.convolution(grid, f"{cell}.conv1", "conv1", group=self.dim)
            grid = self.batch_norm(self.gelu(grid, "gelu"), f"{cell}.bn", "norm")
            grid = self.convolution(grid, f"{cell}.conv2", "conv2", group=self.dim)
            return self.tokens_of(grid)

    def tokens_of(self, grid: str) -> str:
        """(B, C, Hp, Wp) → (B, N, C)."""
        flat = self.graph.node("Reshape", grid, self.graph.integers(0, self.dim, -1), name="flat")
        return str(self.graph.node("Transpose", flat, name="tokens", perm=[0, 2, 1]))

    def mlp(self, x: str, cell: str) -> str:
        with self.graph.scope("mlp"):
            hidden = self.gelu(self.dense(x, f"{cell}.fc1", "fc1"), "gelu")
            return self.dense(hidden, f"{cell}.fc2", "fc2")

    def block(self, x: str, index: int, sides: str) -> str:
        """XCA, then LPI, then the MLP: the order of the official code, whatever the numbers of the norms suggest."""
        graph, cell = self.graph, f"blocks.{index}"
        with graph.scope(cell):
            branch = self.xca(self.layer_norm(x, f"{cell}.norm1", "norm1"), f"{cell}.attn")
            x = graph.node("Add", x, self.scaled(branch, f"{cell}.gamma1", "gamma1"), name="add1")
            branch = self.lpi(self.layer_norm(x, f"{cell}.norm3", "norm3"), f"{cell}.local_mp", sides)
            x = graph.node("Add", x, self.scaled(branch, f"{cell}.gamma3", "gamma3"), name="add3")
            branch = self.mlp(self.layer_norm(x, f"{cell}.norm2", "norm2"), f"{cell}.mlp")
            return str(graph.node("Add", x, self.scaled(branch, f"{cell}.gamma2", "gamma2"), name="add2"))

    def class_attention(self, x: str, cls_token: str, cell: str) -> str:
        """Class token and all tokens (B, 1 + N, C) → what the class token gathers (B, 1, C) (CaiT, section 3)."""
        graph, head = self.graph, self.dim // self.heads
        weights, biases = np.split(self.arrays[f"{cell}.qkv.weight"], 3), np.split(self.arrays[f"{cell}.qkv.bias"], 3)
        laid_out = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
        with graph.scope("attn"):
            found = []
            for part, (name, perm) in enumerate(laid_out.items()):
                scale = head**-0.5 if name == "query" else 1.0
                weight = graph.weight(f"{cell}.{name}.weight", weights[part].T * scale)
                bias = graph.weight(f"{cell}.{name}.bias", biases[part] * scale)
                y = graph.node("MatMul", cls_token if name == "query" else x, weight, name=f"{name}/matmul")
                y = graph.node("Add", y, bias, name=name)
                y = graph.node("Reshape", y, graph.integers(0, -1, self.heads, head), name=f"{name}/heads")
                found.append(graph.node("Transpose", y, name=f"{name}/heads_first", perm=perm))
            query, key, value = found
            attention = graph.node("MatMul", query, key, name="scores")  # (B, h, 1, 1 + N)
            attention = graph.node("Softmax", attention, name="softmax", axis=-1)
            self.class_shares.append(attention)
            gathered = graph.node("MatMul", attention, value, name="gather")  # (B, h, 1, d)
            gathered = graph.node("Transpose", gathered, name="tokens_first", perm=[0, 2, 1, 3])
            gathered = graph.node("Reshape", gathered, graph.integers(0, -1, self.dim), name="tokens")
            return self.dense(gathered, f"{cell}.proj", "proj")

    def class_block(self, cls_token: str, tokens: str, index: int, tokens_wanted: bool) -> tuple[str, str]:
        """Class token (B, 1, C) and patch tokens (B, N, C) → new ones."""
        graph, cell = self.graph, f"cls_attn_blocks.{index}"
        with graph.scope(cell):
            cls_normed = self.layer_norm(cls_token, f"{cell}.norm1", "norm1")
            tokens_normed = self.layer_norm(tokens, f"{cell}.norm1", "norm1_tokens")
            together = graph.node("Concat", cls_normed, tokens_normed, name="all_tokens", axis=1)
            gathered = self.class_attention(together, cls_normed, f"{cell}.attn")
            cls_token = graph.node("Add", cls_token, self.scaled(gathered, f"{cell}.gamma1", "gamma1"), name="add1")
            cls_token = self.layer_norm(cls_token, f"{cell}.norm2", "norm2")
            branch = self.scaled(self.mlp(cls_token, f"{cell}.mlp"), f"{cell}.gamma2", "gamma2")
            cls_token = graph.node("Add", cls_token, branch, name="add2")
            if tokens_wanted:
                scaled = self.scaled(tokens_normed, f"{cell}.gamma1", "gamma1_tokens")
                tokens = graph.node("Add", tokens, scaled, name="add1_tokens")
                if self.architecture.tokens_norm:
                    tokens = self.layer_norm(tokens, f"{cell}.norm2", "norm2_tokens")
                # The official block adds the patch tokens to themselves; published weights rely on it.
                tokens = graph.node("Add", tokens, tokens, name="add2_tokens")
        return cls_token, tokens

    # ---- The network ----

    def build(self, image: str) -> dict[str, str]:
        """Image → the outputs' names in the graph by the names they are to have."""
        graph, form = self.graph, self.form
        x = self.pixels(image) if form.mean is not None else image
        if graph.dtype != "float32":
            x = graph.cast(x, graph.dtype, "image_cast")
        grid = self.patch_embed(x)
        shape = graph.node("Shape", grid, name="patch_embed/shape")
        sides = graph.node("Slice", shape, graph.integers(2), graph.integers(4), name="patch_embed/sides")
        height, width = (
            graph.node("Slice", shape, graph.integers(axis), graph.integers(axis + 1), name=f"patch_embed/{name}")
            for axis, name in ((2, "height"), (3, "width"))
        )
        tokens = self.tokens_of(grid)
        if self.architecture.use_pos_embed:
            tokens = graph.node("Add", tokens, self.position(height, width), name="add_position")
        found = {}
        for index in range(max(form.features, default=self.architecture.depth - 1) + 1):
            tokens = self.block(tokens, index, sides)
            if index in form.features:
                found[f"features.{index}"] = self._as_map(tokens, index, sides)
        found = found or self._classified(tokens, shape)
        return {**found, **self._attention(sides)} if form.attention else found

    def _attention(self, sides: str) -> dict[str, str]:
        """Stack what every layer attended to; ``sides`` is (Hp, Wp)."""
        graph, everything = self.graph, np.iinfo(np.int64).max
        with graph.scope("attention"):
            layers = graph.node("Concat", *self.class_shares, name="layers", axis=2)  # (B, h, L, 1 + N)
            layers = graph.node("Transpose", layers, name="layers_first", perm=[0, 2, 1, 3])
            own = graph.node(
                "Slice", layers, graph.integers(0), graph.integers(1), graph.integers(3), name="class_token/share"
            )
            own = graph.node("Squeeze", own, graph.integers(3), name="class_token")
            rest = graph.node(
                "Slice", layers, graph.integers(1), graph.integers(everything), graph.integers(3), name="classes/shares"
            )
            counts = graph.integers(0, len(self.class_shares), self.heads)
            shape = graph.node("Concat", counts, sides, name="classes/shape", axis=0)
            maps = graph.node("Reshape", rest, shape, name="classes")
            blocks = [
                graph.node("Unsqueeze", shares, graph.integers(1), name=f"channels/{index}")
                for index, shares in enumerate(self.channel_shares)
            ]
            channels = graph.node("Concat", *blocks, name="channels", axis=1)
        return dict(zip(ATTENTION, (maps, own, channels), strict=True))

    def _as_map(self, tokens: str, index: int, sides: str) -> str:
        graph = self.graph
        with graph.scope(f"features.{index}"):
            grid = graph.node("Transpose", tokens, name="channels_first", perm=[0, 2, 1])
            shape = graph.node("Concat", graph.integers(0, self.dim), sides, name="shape", axis=0)
            return str(graph.node("Reshape", grid, shape, name="map"))

    def _classified(self, tokens: str, shape: str) -> dict[str, str]:
        graph, form = self.graph, self.form
        batch = graph.node("Slice", shape, graph.integers(0), graph.integers(1), name="cls_token/batch")
        shape = graph.node("Concat", batch, graph.integers(1, self.dim), name="cls_token/shape", axis=0)
        cls_token = graph.node("Expand", self.parameter("cls_token"), shape, name="cls_token/expand")
        last = self.architecture.cls_attn_layers - 1
        for index in range(last + 1):
            cls_token, tokens = self.class_block(cls_token, tokens, index, form.global_pool != "token" or index < last)
        if form.global_pool == "token":
            x = self.layer_norm(cls_token, "norm", "norm")
            x = graph.node("Squeeze", x, graph.integers(1), name="pool")
        elif form.global_pool == "avg":
            x = graph.reduce("ReduceMean", self.layer_norm(tokens, "norm", "norm"), 1, "pool", keepdims=0)
        else:
            x = self.layer_norm(graph.node("Concat", cls_token, tokens, name="all_tokens", axis=1), "norm", "norm")
        if form.num_classes:
            return {"logits": self.dense(x, "head", "head")}
        return {"features": x}


def build(
    arrays: Mapping[str, Array],
    architecture: Architecture,
    dialect: Dialect,
    form: Form,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Return the network as an ONNX model that computes what evaluation computes.

    Args:
        arrays: every parameter and buffer by MindCV's names, floating point.
        metadata: what the file is to say of itself.

    Returns:
        Input ``image``: float32 (batch, in_chans, height, width), normalised; or, with ``form.mean``, uint8 (batch,
        height, width, in_chans). Output ``logits`` (batch, classes), ``features`` without a classifier, or one
        ``features.<block>`` (batch, C, Hp, Wp) for each of ``form.features``; with ``form.attention`` also
        :data:`xcit_hub.exporters.form.ATTENTION`; float32.
    """
    builder = _Builder(arrays, architecture, dialect, form)
    graph = builder.graph
    batch: Any = form.batch or "batch"
    height, width = form.image_size or ("height", "width")
    uint8 = form.mean is not None
    sides = [batch, height, width, form.in_chans] if uint8 else [batch, form.in_chans, height, width]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8 if uint8 else TensorProto.FLOAT, sides)
    outputs = []
    for name, found in builder.build("image").items():
        if graph.dtype != "float32":
            found = graph.cast(found, "float32", f"{name}/cast")
        graph.rename(found, name)
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, _output_shape(name, builder, batch)))
    model = helper.make_model(
        helper.make_graph(graph.nodes, architecture.name, [image], outputs, list(graph.initializers.values())),
        producer_name="xcit-hub",
        opset_imports=[helper.make_opsetid("", form.opset)],
        ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", form.opset)]),
    )
    describe(model, metadata)
    return model


def describe(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Write what the file is to say of itself."""
    helper.set_model_props(model, dict(metadata))


def _output_shape(name: str, builder: _Builder, batch: Any) -> list[Any]:
    form, heads = builder.form, builder.heads
    if name in ATTENTION:
        layers, depth, width = len(builder.class_shares), len(builder.channel_shares), builder.dim // heads
        sides = [[layers, heads, *_grid(form, builder.architecture)], [layers, heads], [depth, heads, width, width]]
        return [batch, *sides[ATTENTION.index(name)]]
    if name.startswith("features."):
        return [batch, builder.dim, *_grid(form, builder.architecture)]
    tokens = [] if form.global_pool else ["tokens"]
    return [batch, *tokens, form.num_classes or builder.dim]


def _grid(form: Form, architecture: Architecture) -> tuple[Any, Any]:
    if form.image_size is None:
        return "grid_height", "grid_width"
    height, width = (-(-side // architecture.patch_size) for side in form.image_size)
    return height, width
