"""The compiled operations give the values and the derivatives of MindSpore's own."""

from __future__ import annotations

import copy
import inspect
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn
from modes import in_pynative

from xcit_hub.accelerated import accelerate, build, fuse, operands, operations, portable
from xcit_hub.accelerated.cells import make_accelerated
from xcit_hub.errors import InputError
from xcit_hub.models import create_model
from xcit_hub.models.xcit import ClassAttention, ConvPatchEmbed, Gelu, PositionalEncodingFourier, XCABlock
from xcit_hub.training.randomness import seed_dropout
from xcit_hub.variants import architecture, dialect

needs_compiler = pytest.mark.skipif(build.library() is None, reason=build.absence())

_GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Whatever tests ran before in this process."""
    global _GENERATOR
    _GENERATOR = np.random.default_rng(1)


def _draw(*shape: int) -> np.ndarray:
    return _GENERATOR.standard_normal(shape, np.float32)


class _Call(nn.Cell):
    """A way's cell with everything that it computes from as a parameter, so that one gradient covers it all."""

    def __init__(self, run, arrays: list[np.ndarray]) -> None:
        super().__init__()
        self.run = run
        self.arguments = mindspore.ParameterTuple(
            [mindspore.Parameter(Tensor(array), name=f"argument{index}") for index, array in enumerate(arrays)]
        )

    def construct(self) -> Tensor:
        return self.run(*self.arguments)


class _Weighed(nn.Cell):
    """A scalar that depends on every number a cell puts out."""

    def __init__(self, cell: nn.Cell, weights: Tensor) -> None:
        super().__init__()
        self.cell, self.weights = cell, weights

    def construct(self) -> Tensor:
        return (self.cell() * self.weights).sum()


def _accelerated(cell: nn.Cell) -> nn.Cell:
    make_accelerated(cell)
    return cell


# What is computed, the plain cell, and its arguments; 40 channels are not a multiple of a vector.
_OPERATIONS = {
    "erf gelu": (lambda: Gelu("erf"), [3.0 * _draw(3, 5000)]),
    "tanh gelu": (lambda: Gelu("tanh"), [3.0 * _draw(3, 5000)]),
    "layer norm": (lambda: nn.LayerNorm((40,), epsilon=1e-6), [_draw(3, 50, 40)]),
    "layer norm of wide rows": (lambda: nn.LayerNorm((768,), epsilon=1e-6), [5.0 + _draw(64, 768)]),
    "affine map": (lambda: nn.Dense(40, 70), [_draw(3, 50, 40)]),
    "affine map of one row": (lambda: nn.Dense(192, 100), [_draw(1, 192)]),
    "affine map of few rows": (lambda: nn.Dense(192, 100), [_draw(3, 192)]),
    "deep affine map of one row": (lambda: nn.Dense(1000, 49), [0.1 * _draw(1, 1000)]),
    "affine map of many rows": (lambda: nn.Dense(24, 48), [_draw(4, 500, 24)]),
}


def _in_both_modes(cases: Iterable[str], alike: set[str]) -> list[Any]:
    """Every case in PyNative; in graphs, seconds each, a campaign has those that differ from another in shape alone."""
    marked = [pytest.param("graph", name, marks=[pytest.mark.campaign] if name in alike else []) for name in cases]
    return [pytest.param("pynative", name) for name in cases] + marked


_OTHER_SHAPES = {name for name in _OPERATIONS if " of " in name}


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("mode", "name"), _in_both_modes(_OPERATIONS, _OTHER_SHAPES), indirect=["mode"])
def test_a_compiled_operation_equals_mindspores_in_value_and_gradient(name: str) -> None:
    build_cell, arrays = _OPERATIONS[name]
    plain, compiled = _Call(build_cell(), arrays), _Call(_accelerated(build_cell()), arrays)
    inner = compiled.parameters_dict()
    for key, parameter in plain.parameters_dict().items():
        if not key.startswith("argument"):
            value = Tensor(np.abs(_draw(*parameter.shape)) + 0.5)
            parameter.set_data(value)
            inner[key].set_data(value)
    with in_pynative():
        weights = Tensor(_draw(*plain().shape))

    def everything(cell: nn.Cell) -> list[np.ndarray]:
        gradients = mindspore.grad(_Weighed(cell, weights), None, cell.trainable_params())()
        state = [parameter for parameter in cell.get_parameters() if not parameter.requires_grad]
        return [value.asnumpy() for value in (cell(), *gradients, *state)]

    with in_pynative():
        wanted = everything(plain)
    for found, expected in zip(everything(compiled), wanted, strict=True):
        assert np.abs(found - expected).max() <= 3e-5 * max(1.0, np.abs(expected).max())


@dataclass(frozen=True)
class _Block:
    """A cross-covariance block to be computed in both ways: its widths, its dialect, and how it is run."""

    dim: int
    heads: int
    dialect: str = "paper"
    training: bool = False
    frozen: bool = False
    by_batch: bool | None = None
    drop_path: float = 0.0
    grid: tuple[int, int] = (5, 7)

    def build(self) -> nn.Cell:
        fine = replace(architecture("xcit_nano_12_p16_224"), embed_dim=self.dim, num_heads=self.heads)
        block = XCABlock(fine, dialect(self.dialect), proj_drop=0.0, attn_drop=0.0, drop_path=self.drop_path)
        block.set_train(self.training)
        if self.frozen:
            block.local_mp.bn.set_train(False)
        block.local_mp.bn.use_batch_statistics = self.by_batch
        seed_dropout(block, seed=3, rank=0)
        return block


_BLOCKS = {
    "in evaluation": _Block(96, 2),
    "of odd widths": _Block(30, 3),
    "of wide heads": _Block(128, 2),
    "of MindCV's dialect": _Block(48, 4, dialect="mindcv"),
    "in training": _Block(96, 2, training=True),
    "of MindCV's dialect in training": _Block(48, 4, dialect="mindcv", training=True),
    "in training with batch norm frozen": _Block(48, 4, training=True, frozen=True),
    "in training with whole images dropped": _Block(48, 4, training=True, drop_path=0.4),
    "in training, told to keep its statistics": _Block(48, 4, training=True, by_batch=False),
    "in evaluation, told to move its statistics": _Block(48, 4, by_batch=True),
    "of one row of tokens": _Block(48, 4, training=True, grid=(1, 9)),
}


class _Sum(nn.Cell):
    """A scalar that depends on every number that a cell makes of an input, and what it makes."""

    def __init__(self, cell: nn.Cell, others: tuple[int, ...], weights: Tensor) -> None:
        super().__init__()
        self.cell, self.others, self.weights = cell, others, weights

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = _first(self.cell(x, *self.others))
        return (out * self.weights).sum(), out


def _first(out: Tensor | tuple[Tensor, tuple[int, int]]) -> Tensor:
    """The tokens of what a block, or the patch embedding, puts out."""
    return out[0] if isinstance(out, tuple) else out


def _everything(cell: nn.Cell, x: Tensor, others: tuple[int, ...], weights: Tensor) -> dict[str, np.ndarray]:
    """Return a cell's result, the gradients of its input and its parameters, and its running statistics."""
    trained = cell.trainable_params()
    run = mindspore.value_and_grad(_Sum(cell, others, weights), 0, ParameterTuple(trained), has_aux=True)
    (_, out), (dx, slopes) = run(x)
    state = [parameter for parameter in cell.get_parameters() if "moving" in parameter.name]
    return {
        "out": out.asnumpy(),
        "x": dx.asnumpy(),
        **{entry.name: slope.asnumpy() for entry, slope in zip(trained, slopes, strict=True)},
        **{entry.name: entry.asnumpy() for entry in state},
    }


def _assert_equal(
    compiled: nn.Cell, plain: nn.Cell, x: Tensor, others: tuple[int, ...] = (), temperature: float = 1.0
) -> None:
    """Give both cells the same random parameters, and compare everything that comes of them."""
    assert compiled.compiled
    for own, other in zip(compiled.get_parameters(), plain.get_parameters(), strict=True):
        value = 0.3 * _draw(*own.shape) + 1.0
        if own.ndim in (2, 4) and own.shape[1] > 1:
            value = _draw(*own.shape) / math.prod(own.shape[1:]) ** 0.5
        if own.name.endswith("temperature"):
            value = value * temperature
        value = Tensor(np.abs(value) if own.name.endswith("moving_variance") else value)
        own.set_data(value)
        other.set_data(value)
    with in_pynative():
        weights = Tensor(_draw(*_first(plain(x, *others)).shape))
    for parameter in compiled.get_parameters():  # the call above may have moved statistics
        if "moving" in parameter.name:
            plain.parameters_dict()[parameter.name].set_data(parameter.value())
    found = _everything(compiled, x, others, weights)
    with in_pynative():
        expected = _everything(plain, x, others, weights)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.abs(found[key] - value).max() <= 3e-5 * max(1.0, np.abs(value).max()), key


_OTHER_WIDTHS = {"of odd widths", "of wide heads", "of one row of tokens", "of MindCV's dialect"}


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("mode", "name"), _in_both_modes(_BLOCKS, _OTHER_WIDTHS), indirect=["mode"])
def test_a_compiled_block_equals_mindspores_in_value_gradient_and_statistics(name: str) -> None:
    case = _BLOCKS[name]
    compiled, plain = _accelerated(case.build()), case.build()
    tokens = math.prod(case.grid)
    # In MindCV's dialect nothing else keeps these products small, and softmax from being a maximum.
    temperature = 1.0 / tokens if case.dialect == "mindcv" else 1.0
    _assert_equal(compiled, plain, Tensor(_draw(4, tokens, case.dim)), case.grid, temperature)


_CLASS_ATTENTIONS = {"in evaluation": (96, 2, False), "of odd widths": (30, 3, False), "in training": (48, 4, True)}


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("mode", "name"), _in_both_modes(_CLASS_ATTENTIONS, {"of odd widths"}), indirect=["mode"])
def test_compiled_class_attention_equals_mindspores_in_value_and_gradient(name: str) -> None:
    dim, heads, training = _CLASS_ATTENTIONS[name]
    plain, compiled = (ClassAttention(dim, heads, attn_drop=0.0, proj_drop=0.0).set_train(training) for _ in range(2))
    _assert_equal(_accelerated(compiled), plain, Tensor(_draw(3, 10, dim)))


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("mode", ["pynative", "graph"], indirect=True)
def test_the_compiled_position_encoding_equals_mindspores_in_value_and_gradient() -> None:
    _assert_equal(_accelerated(_Positions()), _Positions(), Tensor(_draw(2, 35, 72)))


class _Positions(nn.Cell):
    """Tokens of a 5×7 grid and their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding = PositionalEncodingFourier(72)

    @property
    def compiled(self) -> bool:
        return self.encoding.compiled

    def construct(self, tokens: Tensor) -> Tensor:
        return tokens + self.encoding(5, 7)


@needs_compiler
@pytest.mark.parametrize("cell", ["blocks.0.attn.attn_drop", "blocks.0.mlp.drop", "cls_attn_blocks.0.attn.attn_drop"])
def test_what_stands_in_the_place_of_a_dropout_or_watches_it_sees_what_passes(cell: str) -> None:
    shape = replace(architecture("xcit_nano_12_p16_224"), depth=1)
    network = accelerate(create_model(shape, num_classes=10, seed=0).set_train(False))
    image = Tensor(_draw(1, 3, 32, 32))
    before = network(image).asnumpy()
    owner, name = dict(network.cells_and_names())[cell.rpartition(".")[0]], cell.rpartition(".")[2]
    seen: list[tuple[int, ...]] = []
    handle = getattr(owner, name).register_forward_hook(lambda _, __, output: seen.append(output.shape))
    hooked = network(image).asnumpy()
    handle.remove()
    assert len(seen) == (2 if name == "drop" else 1)
    assert np.abs(hooked - before).max() <= 1e-5 * before.std()
    setattr(owner, name, _Nothing())
    assert np.abs(network(image).asnumpy() - before).max() > 1e-3 * before.std()


class _Nothing(nn.Cell):
    """Lets nothing pass."""

    def construct(self, x: Tensor) -> Tensor:
        return x * 0.0


def _stages() -> Iterator[Any]:
    """Every stem in PyNative; in graphs, which take seconds each, every two of its choices together."""
    for mode, patch, run in product(("pynative", "graph"), (0, 1), (0, 1, 2)):
        for form in (0, 1):
            rest = (pytest.mark.campaign,) if mode == "graph" and form != (patch + run) % 2 else ()
            training, frozen = ((False, False), (True, False), (True, True))[run]
            yield pytest.param(mode, ("erf", "tanh")[form], (8, 16)[patch], training, frozen, marks=rest)


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("mode", "form", "patch_size", "training", "frozen"), list(_stages()), indirect=["mode"])
def test_compiled_stages_of_the_patch_embedding_equal_mindspores_in_value_gradient_and_statistics(
    form: str, patch_size: int, training: bool, frozen: bool
) -> None:
    fine = replace(architecture("xcit_nano_12_p16_224"), embed_dim=72, patch_size=patch_size)

    def build_cell() -> nn.Cell:
        cell = ConvPatchEmbed(fine, 3, replace(dialect("paper"), gelu=form)).set_train(training)
        for _, child in cell.cells_and_names():
            if frozen and isinstance(child, nn.BatchNorm2d):
                child.set_train(False)
        return cell

    compiled, plain = _accelerated(build_cell()), build_cell()
    _assert_equal(compiled, plain, Tensor(_draw(3, 3, 3 * patch_size, 5 * patch_size)))


@needs_compiler
def test_a_block_that_drops_inside_its_branches_is_one_operation_in_evaluation_alone() -> None:
    for rates in ({"proj_drop_rate": 0.1}, {"attn_drop_rate": 0.1}):
        network = accelerate(create_model("xcit_nano_12_p16_224", init=False, **rates))
        for training in (False, True):
            assert {block.compiled for block in network.set_train(training).blocks} == {not training}


@pytest.mark.skipif(os.environ.get(build.SWITCH) == "0", reason="switched off")
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
def test_the_operations_are_built_where_there_is_a_compiler() -> None:
    assert build.library() is not None or "lacks" in build.absence(), build.absence()


@needs_compiler
def test_the_derivative_of_blocks_takes_the_operands_of_the_table_in_their_order() -> None:
    for operation in operations.blocks("erf", True):
        derivative = operation.get_bprop() if hasattr(operation, "get_bprop") else operation.bprop
        assert tuple(inspect.signature(derivative).parameters) == (*operands.BLOCKS, "out", "up")


@needs_compiler
def test_the_operands_of_a_block_are_its_parameters_in_the_tables_shapes() -> None:
    fine = architecture("xcit_nano_12_p16_224")
    block = XCABlock(fine, dialect("paper"), proj_drop=0.0, attn_drop=0.0, drop_path=0.0)
    shapes = {name: list(parameter.shape) for name, parameter in block.parameters_and_names()}
    sizes = {"C": fine.embed_dim, "M": fine.embed_dim * fine.mlp_ratio, "h": fine.num_heads}
    assert {operand.parameter: operand.sizes(sizes) for operand in operands.BLOCK} == shapes


@needs_compiler
@pytest.mark.parametrize("value", [1.5, 1e-30, 2e19, np.inf, np.nan])
def test_the_sum_of_squares_is_that_of_double_precision_and_tells_what_is_not_finite(value: float) -> None:
    numbers = np.random.default_rng(0).standard_normal((3, 70, 411)).astype(np.float32)
    numbers[1, 2, 3] = value
    with np.errstate(over="ignore"):
        expected = np.square(numbers.astype(np.float64)).sum().astype(np.float32)
    np.testing.assert_allclose(operations.squared_sum()(Tensor(numbers)).asnumpy(), [expected], rtol=1e-6)


@needs_compiler
@pytest.mark.parametrize("form", ["erf", "tanh"])
def test_compiled_gelu_is_exact_to_single_precision_at_every_size(form: str) -> None:
    x = np.concatenate([np.linspace(-14.0, 14.0, 8001), [0.0, -0.0, 1e-20, 60.0, -60.0, 1e30]]).astype(np.float32)
    wide = x.astype(np.float64)
    normal = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in wide])
    gate = 0.5 * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))
    exact = wide * (normal if form == "erf" else gate)
    found = _accelerated(Gelu(form))(Tensor(x)).asnumpy()
    assert np.all(np.abs(found - exact) <= 3e-7 * np.maximum(1.0, np.abs(exact)))


@needs_compiler
def test_numbers_that_are_none_stay_visible() -> None:
    x = np.ones((2, 9, 24), np.float32)
    x[0, 3, 5] = np.nan
    for name in ("erf gelu", "tanh gelu"):
        assert np.isnan(_accelerated(_OPERATIONS[name][0]())(Tensor(x)).asnumpy()[0, 3, 5])
    assert np.isnan(_accelerated(nn.LayerNorm((24,)))(Tensor(x)).asnumpy()[0, 3]).all()
    gathered = operations.class_attention()(
        Tensor(x), Tensor([2], mindspore.int32), Tensor(_draw(72, 24)), Tensor(_draw(72))
    ).asnumpy()
    assert np.isnan(gathered[0]).all() and np.isfinite(gathered[1]).all()
    erf = _accelerated(Gelu("erf"))
    ends = Tensor(np.array([np.inf, -np.inf], np.float32))
    assert np.array_equal(np.round(erf(ends).asnumpy(), 9), [np.inf, 0.0])
    far = Tensor(np.array([1e38, -1e38], np.float32))
    assert np.array_equal(mindspore.grad(erf)(far).asnumpy().round(9), [1.0, 0.0])


@needs_compiler
def test_half_precision_passes_through_the_compiled_operations() -> None:
    cell = _accelerated(nn.LayerNorm((40,), epsilon=1e-6))
    x = Tensor(_draw(3, 40).astype(np.float16))
    assert cell(x).dtype == mindspore.float16


@needs_compiler
def test_no_row_becomes_no_row() -> None:
    weight, bias = Tensor(_draw(5, 40)), Tensor(_draw(5))
    assert operations.linear()(Tensor(_draw(0, 40)), weight, bias).asnumpy().shape == (0, 5)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_numbers_of_another_type_are_never_read_as_single_precision(dtype: type) -> None:
    other = Tensor(np.ones((2, 32), dtype))
    with pytest.raises(RuntimeError, match=r"LayerNorm\) is 1"):
        operations.layer_norm()(other, *(Tensor(np.ones(size, np.float32)) for size in (32, 32, 1))).asnumpy()


@needs_compiler
@pytest.mark.usefixtures("mode")
def test_operands_of_other_shapes_are_refused_before_anything_is_read_beyond_them() -> None:
    shape = replace(architecture("xcit_nano_12_p16_224"), depth=2)
    network = accelerate(create_model(shape, num_classes=10, seed=0).set_train(False))
    with pytest.raises(InputError, match=r"\(10, 64\) fits"):
        network.head(Tensor(_draw(1, 5, 64)))
    with pytest.raises(InputError, match="packed affine map"):
        fuse(network).head(Tensor(_draw(1, 5, 64)))
    with pytest.raises(InputError, match="4 tokens are not a grid of 3×3"):
        network.blocks[0](Tensor(_draw(1, 4, 128)), 3, 3)
    with pytest.raises(InputError, match="4 tokens are not a grid of 3×3"):
        fuse(network).blocks(Tensor(_draw(1, 4, 128)), 3, 3, 0, 1)
    network.blocks[1].mlp.fc1.weight = mindspore.Parameter(Tensor(_draw(64, 128)))
    with pytest.raises(InputError, match=r"has shape \(64, 128\); \(512, 128\) fits"):
        network(Tensor(_draw(1, 3, 32, 32)))


@needs_compiler
def test_a_deep_copy_computes_the_same_and_is_independent() -> None:
    network = accelerate(create_model("xcit_nano_12_p16_224", num_classes=10, seed=0).set_train(False))
    image = Tensor(_draw(1, 3, 32, 32))
    expected = network(image).asnumpy()
    twin = copy.deepcopy(network)
    assert np.array_equal(twin(image).asnumpy(), expected)
    twin.head.bias.set_data(twin.head.bias + 1.0)
    assert np.array_equal(network(image).asnumpy(), expected)


@needs_compiler
@pytest.mark.parametrize("features_only", [False, True])
def test_a_portable_copy_exports_without_this_machines_code(features_only: bool, tmp_path: Path) -> None:
    shape = replace(architecture("xcit_nano_12_p16_224"), depth=1, cls_attn_layers=1)
    options = {"features_only": True, "out_indices": (0,)} if features_only else {}
    network = accelerate(create_model(shape, seed=0, **options).set_train(False))
    image = Tensor(_draw(1, 3, 32, 32))
    copy = portable(network)
    mindspore.export(copy, image, file_name=str(tmp_path / "network"), file_format="MINDIR")
    assert build.library().name.encode() not in (tmp_path / "network.mindir").read_bytes()
    found = nn.GraphCell(mindspore.load(str(tmp_path / "network.mindir")))(image)
    expected = network(image)
    if features_only:
        found, expected = found[-1] if isinstance(found, (tuple, list)) else found, expected[-1]
    assert np.abs(found.asnumpy() - expected.asnumpy()).max() <= 1e-4


@needs_compiler
def test_a_result_does_not_depend_on_timing() -> None:
    x, up = Tensor(_draw(16, 196, 192)), Tensor(_draw(16, 196, 192))
    cell = _accelerated(nn.LayerNorm((192,), epsilon=1e-6))
    slope = mindspore.grad(_Weighed(_Call(cell, [x.asnumpy()]), up), None, cell.trainable_params())
    first = [gradient.asnumpy() for gradient in slope()]
    for _ in range(5):
        assert all(np.array_equal(a, b.asnumpy()) for a, b in zip(first, slope(), strict=True))
